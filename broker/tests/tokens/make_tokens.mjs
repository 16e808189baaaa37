// Makes tokens by `jose`, with the keys that make_tokens.py left in the folder of the first argument.

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { CompactEncrypt, CompactSign, importJWK, SignJWT, UnsecuredJWT } from "jose";

const work = process.argv[2];
const { private: keys, others, secret, claims, now_s } = JSON.parse(readFileSync(join(work, "keys.json")));
const bytes = (text) => new TextEncoder().encode(text);
const tokens = [];

function add(name, settings, token, expected = "ok") {
  tokens.push({ name: `jose: ${name}`, settings, token, expected });
}

const hs = (payload, head = { alg: "HS256" }, key = bytes(secret)) =>
  new CompactSign(bytes(typeof payload === "string" ? payload : JSON.stringify(payload))).setProtectedHeader(head).sign(key);

const sign = async (jwk, alg, head = {}, payload = claims) =>
  new SignJWT(payload).setProtectedHeader({ alg, ...head }).sign(await importJWK(jwk, alg));

for (const alg of ["HS256", "HS384", "HS512"]) add(`good ${alg}`, "hs", await hs(claims, { alg }));
for (const [alg, kid] of [
  ["RS256", "rsa"], ["RS384", "rsa"], ["RS512", "rsa"], ["PS256", "ps"], ["PS384", "rsa"], ["PS512", "rsa"],
  ["ES256", "es256"], ["ES384", "es384"], ["EdDSA", "ed"],
]) {
  add(`good ${alg}`, "public", await sign(keys[kid], alg, { kid }));
}

add("unsecured", "hs", new UnsecuredJWT(claims).encode(), "algorithm");
add("another secret", "hs", await hs(claims, { alg: "HS256" }, bytes("x".repeat(32))), "signature");
add("a member twice", "hs", await hs(JSON.stringify(claims).replace('"sub"', '"sub":"eve","sub"')), "malformed");
add("exp is a string", "hs", await hs({ ...claims, exp: String(claims.exp) }), "claims");
add("exp in milliseconds is far away, and iat in milliseconds not yet", "hs",
  await hs({ ...claims, exp: claims.exp * 1000, iat: claims.iat * 1000 }), "not-yet");
add("expired", "hs", await hs({ ...claims, exp: now_s - 30 }), "expired");
add("for others", "hs", await hs({ ...claims, aud: ["a", "b"] }), "audience");
add("no exp", "hs", await hs({ ...claims, exp: undefined }), "no-expiry");
add("unknown kid", "public", await sign(others.rsa, "RS256", { kid: "rotated" }), "unknown-key");
add("another key under a known kid", "public", await sign(others.ed, "EdDSA", { kid: "ed" }), "signature");
{
  const { d, ...open } = others.es256;
  add("its own key in the header", "public", await sign(others.es256, "ES256", { kid: "es256", jwk: open }), "signature");
}
add("Ed25519 by its newer name", "public", await sign(keys.ed, "Ed25519", { kid: "ed" }), "algorithm");
add("a payload that is not in base64", "hs",
  await new CompactSign(bytes(JSON.stringify(claims))).setProtectedHeader({ alg: "HS256", b64: true, crit: ["b64"] })
    .sign(bytes(secret)), "critical");
add("encrypted instead of signed", "hs",
  await new CompactEncrypt(bytes(JSON.stringify(claims))).setProtectedHeader({ alg: "dir", enc: "A256GCM" })
    .encrypt(bytes(secret).slice(0, 32)), "malformed");
add("no user", "hs", await hs({ ...claims, sub: undefined }), "user");
add("topics as a list", "hs", await hs({ ...claims, topics: ["chat/7"] }), "topics");

writeFileSync(join(work, "node.json"), JSON.stringify(tokens));
