"""Makes keys, and tokens by PyJWT and joserfc. The private keys stay in the folder of the first argument."""

import base64
import hashlib
import hmac
import json
import pathlib
import sys

import joserfc.jwe
import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from joserfc import jws
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

WORK = pathlib.Path(sys.argv[1])
NOW = 1_790_000_000
SECRET = b"an example of a secret, which is 48 bytes long.."
ISSUER, AUDIENCE = "https://id.example", "ringyard"


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def pem(key):
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def public_pem(key):
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
RSA_PS = rsa.generate_private_key(public_exponent=65537, key_size=2048)
WEAK = rsa.generate_private_key(public_exponent=65537, key_size=1024)
P256 = ec.generate_private_key(ec.SECP256R1())
P384 = ec.generate_private_key(ec.SECP384R1())
P521 = ec.generate_private_key(ec.SECP521R1())
K256 = ec.generate_private_key(ec.SECP256K1())
ED = ed25519.Ed25519PrivateKey.generate()
OTHERS = {
    "rsa": rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "es256": ec.generate_private_key(ec.SECP256R1()),
    "ed": ed25519.Ed25519PrivateKey.generate(),
}
KEYS = {"rsa": RSA, "ps": RSA_PS, "es256": P256, "es384": P384, "ed": ED}
KINDS = {"rsa": RSAKey, "ps": RSAKey, "es256": ECKey, "es384": ECKey, "ed": OKPKey}


def public_jwk(name, **more):
    jwk = KINDS[name].import_key(public_pem(KEYS[name])).as_dict(private=False)
    return {**jwk, "kid": name, **more}


JWKS = {
    "keys": [
        public_jwk("rsa", use="sig"),
        public_jwk("ps", alg="PS256"),
        public_jwk("es256"),
        public_jwk("es384", key_ops=["verify"]),
        public_jwk("ed", alg="EdDSA"),
        {**ECKey.import_key(public_pem(P521)).as_dict(private=False), "kid": "es512"},
        {**public_jwk("es256"), "kid": "encryption", "use": "enc"},
    ]
}
PUBLIC = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"]
HS = ["HS256", "HS384", "HS512"]
ADDRESSED = {"issuer": ISSUER, "audience": AUDIENCE}
SETTINGS = {
    "hs": {"secret": True, "algorithms": HS, **ADDRESSED},
    "hs256": {"secret": True, "algorithms": ["HS256"]},
    "public": {"jwks": True, "algorithms": PUBLIC, **ADDRESSED},
    "es256": {"jwks": True, "algorithms": ["ES256"]},
    "mixed": {"secret": True, "jwks": True, "algorithms": ["HS256", "RS256", "ES256", "EdDSA"]},
    "pem": {"pem": True, "algorithms": PUBLIC},
    "typ": {"secret": True, "algorithms": HS, "typ": "at+jwt"},
    "max-age": {"secret": True, "algorithms": HS, "max_age_s": 3600},
    "named": {"secret": True, "algorithms": HS, "user_claim": "uid", "topics_claim": "https://example.org/topics"},
}
CLAIMS = {
    "iss": ISSUER,
    "aud": AUDIENCE,
    "sub": "ann",
    "iat": NOW - 60,
    "exp": NOW + 3600,
    "topics": {"subscribe": ["chat/7"], "publish": ["chat/7"], "rights": ["presence", "enter"]},
}
tokens = []


def add(name, library, settings, token, expected="ok"):
    if isinstance(token, bytes):
        token = token.decode()
    tokens.append({"name": f"{library}: {name}", "settings": settings, "token": token, "expected": expected})


def claims(without=(), **changed):
    return {name: value for name, value in {**CLAIMS, **changed}.items() if name not in without}


def py(payload=None, key=SECRET, algorithm="HS256", **headers):
    """A token of PyJWT, whatever the payload."""
    if payload is None:
        payload = CLAIMS
    if not isinstance(payload, bytes):
        payload = json.dumps(payload).encode()
    return jwt.api_jws.PyJWS().encode(payload, key, algorithm=algorithm, headers=headers or None)


def raw(head, payload, secret=SECRET):
    """A token put together by hand, with HMAC and SHA-256."""
    head = head if isinstance(head, bytes) else json.dumps(head).encode()
    payload = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    message = f"{b64(head)}.{b64(payload)}"
    return f"{message}.{b64(hmac.new(secret, message.encode(), hashlib.sha256).digest())}"


def good_tokens():
    for algorithm in HS:
        add(f"good {algorithm}", "PyJWT", "hs", py(algorithm=algorithm))
    for algorithm, name in [
        ("RS256", "rsa"), ("RS384", "rsa"), ("RS512", "rsa"), ("PS256", "ps"), ("PS384", "rsa"), ("PS512", "rsa"),
        ("ES256", "es256"), ("ES384", "es384"), ("EdDSA", "ed"),
    ]:
        add(f"good {algorithm}", "PyJWT", "public", py(key=pem(KEYS[name]), algorithm=algorithm, kid=name))
        if name != "ps":
            add(f"good {algorithm} by PEM", "PyJWT", "pem", py(key=pem(KEYS[name]), algorithm=algorithm, kid="any"))
    add("good without kid, one key suits", "PyJWT", "public", py(key=pem(RSA), algorithm="RS256"))
    add("good HS beside public keys", "PyJWT", "mixed", py())
    add("good ES256 beside a secret", "PyJWT", "mixed", py(key=pem(P256), algorithm="ES256", kid="es256"))
    add("good aud in a list", "PyJWT", "hs", py(claims(aud=["other", AUDIENCE])))
    add("good fractions of seconds", "PyJWT", "hs", py(claims(exp=NOW + 1.5, nbf=NOW - 0.5)))
    add("good within leeway of exp", "PyJWT", "hs", py(claims(exp=NOW - 29)))
    add("good within leeway of nbf", "PyJWT", "hs", py(claims(nbf=NOW + 29)))
    add("good without topics", "PyJWT", "hs", py(claims(without=["topics"])))
    add("good with 64 filters", "PyJWT", "hs", py(claims(topics={"subscribe": [f"t/{n}" for n in range(64)]})))
    add("good with 8 levels", "PyJWT", "hs", py(claims(deep=nested(7))))
    add("good at+jwt", "PyJWT", "typ", py(typ="at+jwt"))
    add("good application/at+jwt", "PyJWT", "typ", py(typ="application/AT+jwt"))
    add("good without exp", "PyJWT", "max-age", py(claims(without=["exp"])))
    named = {"uid": "ann", "exp": NOW + 9, "https://example.org/topics": {"publish": ["a"]}, "topics": 7}
    add("good with other claims", "PyJWT", "named", py(named))


def nested(levels):
    value = 1
    for _ in range(levels):
        value = [value]
    return value


def forged_algorithms():
    add("alg none", "PyJWT", "hs", py(key=None, algorithm="none"), "algorithm")
    add("alg none with public keys", "PyJWT", "public", py(key=None, algorithm="none"), "algorithm")
    for alg in ["None", "NONE", "nOnE", "hs256", "HS256 ", "", "HS1", "dir"]:
        add(f"alg '{alg}'", "by hand", "hs", raw({"alg": alg, "typ": "JWT"}, CLAIMS), "algorithm")
    for what, head in [("no alg", {"typ": "JWT"}), ("alg is a number", {"alg": 256}), ("alg is a list", {"alg": ["HS256"]})]:
        add(what, "by hand", "hs", raw(head, CLAIMS), "algorithm")
    add("HS384 is not listed", "PyJWT", "hs256", py(algorithm="HS384"), "algorithm")
    add("RS256 is not listed", "PyJWT", "es256", py(key=pem(RSA), algorithm="RS256", kid="rsa"), "algorithm")
    # The confusion of public key and secret.
    for what, secret in [
        ("the PEM of a public key", public_pem(RSA)),
        ("the PEM of a public key without its last line end", public_pem(RSA).strip()),
        ("the JWK of a public key", json.dumps(public_jwk("rsa")).encode()),
        ("the modulus of a public key", RSA.public_key().public_numbers().n.to_bytes(256, "big")),
    ]:
        head = {"alg": "HS256", "typ": "JWT", "kid": "rsa"}
        add(f"HS256 with {what}", "by hand", "public", raw(head, CLAIMS, secret), "algorithm")
        add(f"HS256 beside a secret, with {what}", "by hand", "mixed", raw(head, CLAIMS, secret), "signature")


def forged_signatures():
    add("another secret", "PyJWT", "hs", py(key=SECRET[::-1]), "signature")
    add("an empty secret", "by hand", "hs", raw({"alg": "HS256"}, CLAIMS, b""), "signature")
    good, other = py().split("."), py(claims(sub="eve")).split(".")
    add("the payload of another", "PyJWT", "hs", ".".join([good[0], other[1], good[2]]), "signature")
    head = b64(json.dumps({"alg": "HS384"}).encode())
    add("the header of another", "PyJWT", "hs", ".".join([head, good[1], good[2]]), "signature")
    add("no signature", "PyJWT", "hs", f"{good[0]}.{good[1]}.", "signature")
    add("half a signature", "PyJWT", "hs", f"{good[0]}.{good[1]}.{good[2][:20]}", "signature")
    add("a padded signature", "PyJWT", "hs", f"{good[0]}.{good[1]}.{good[2]}=", "malformed")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    loose = alphabet[alphabet.index(good[2][-1]) | 1]
    add("loose bits in the signature", "PyJWT", "hs", f"{good[0]}.{good[1]}.{good[2][:-1]}{loose}", "malformed")
    add("a line end behind", "PyJWT", "hs", ".".join(good) + "\n", "malformed")
    add("a space in front", "PyJWT", "hs", " " + ".".join(good), "malformed")
    for name, algorithm in [("rsa", "RS256"), ("rsa", "PS512"), ("es256", "ES256"), ("ed", "EdDSA")]:
        token = py(key=pem(OTHERS[name]), algorithm=algorithm, kid=name)
        add(f"{algorithm} by another key", "PyJWT", "public", token, "signature")
    message = ".".join(py(key=pem(P256), algorithm="ES256", kid="es256").split(".")[:2])
    add("ES256 of zeros", "by hand", "public", f"{message}.{b64(bytes(64))}", "signature")
    # The order of the group, which is zero again.
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551.to_bytes(32, "big")
    add("ES256 of the order", "by hand", "public", f"{message}.{b64(order * 2)}", "signature")
    signature = base64.urlsafe_b64decode(py(key=pem(P256), algorithm="ES256").split(".")[2] + "==")
    der = encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
    add("ES256 as DER", "by hand", "public", f"{message}.{b64(der)}", "signature")
    message = ".".join(py(key=pem(RSA), algorithm="RS256", kid="rsa").split(".")[:2])
    add("RS256 of zeros", "by hand", "public", f"{message}.{b64(bytes(256))}", "signature")
    add("RS256 of one", "by hand", "public", f"{message}.{b64(bytes(255) + bytes([1]))}", "signature")


def forged_kids():
    for kid in ["other", "RSA", "", "../../../../dev/null", "' OR 1=1 --", "es512", "encryption"]:
        token = py(key=pem(RSA), algorithm="RS256", kid=kid)
        add(f"kid '{kid}'", "PyJWT", "public", token, "unknown-key")
    add("kid of another family", "PyJWT", "public", py(key=pem(P256), algorithm="ES256", kid="rsa"), "unknown-key")
    add("kid of another curve", "PyJWT", "public", py(key=pem(P256), algorithm="ES256", kid="es384"), "unknown-key")
    add("kid of a key for PS256", "PyJWT", "public", py(key=pem(RSA_PS), algorithm="RS256", kid="ps"), "unknown-key")
    add("no kid, and several keys suit", "PyJWT", "public", py(key=pem(RSA_PS), algorithm="PS256"), "unknown-key")
    add("kid is a number", "by hand", "hs", raw({"alg": "HS256", "kid": 7}, CLAIMS), "malformed")
    add("kid is null", "by hand", "hs", raw({"alg": "HS256", "kid": None}, CLAIMS), "malformed")


def forged_claims():
    for name in ["exp", "nbf", "iat"]:
        for value in [str(NOW + 60), None, True, -1, [NOW + 60], {"at": NOW}, 1e300]:
            add(f"{name} is {value!r}", "PyJWT", "hs", py(claims(**{name: value})), "claims")
    add("expired", "PyJWT", "hs", py(claims(exp=NOW - 3600)), "expired")
    add("expired by the leeway", "PyJWT", "hs", py(claims(exp=NOW - 30)), "expired")
    add("exp is 0", "PyJWT", "hs", py(claims(exp=0)), "expired")
    add("nbf in the future", "PyJWT", "hs", py(claims(nbf=NOW + 31)), "not-yet")
    add("iat in the future", "PyJWT", "hs", py(claims(iat=NOW + 31)), "not-yet")
    add("expired and for others", "PyJWT", "hs", py(claims(exp=0, aud="other")), "audience")
    add("expired and wrong topics", "PyJWT", "hs", py(claims(exp=0, topics=7)), "topics")
    add("no exp", "PyJWT", "hs", py(claims(without=["exp"])), "no-expiry")
    add("no iss", "PyJWT", "hs", py(claims(without=["iss"])), "issuer")
    for value in ["https://id.example/", "HTTPS://ID.EXAMPLE", ""]:
        add(f"iss is '{value}'", "PyJWT", "hs", py(claims(iss=value)), "issuer")
    for value in [[ISSUER], 7, None]:
        add(f"iss is {value!r}", "PyJWT", "hs", py(claims(iss=value)), "claims")
    add("no aud", "PyJWT", "hs", py(claims(without=["aud"])), "audience")
    for value in ["other", "Ringyard", "", [], ["other"], ["ringyard2"]]:
        add(f"aud is {value!r}", "PyJWT", "hs", py(claims(aud=value)), "audience")
    for value in [7, None, ["ringyard", 7], {"ringyard": True}]:
        add(f"aud is {value!r}", "PyJWT", "hs", py(claims(aud=value)), "claims")
    add("no sub", "PyJWT", "hs", py(claims(without=["sub"])), "user")
    for value in ["", 7, None, ["ann"], "a" * 256, "a\nb", "a\x00"]:
        add(f"sub is {value!r:.30}", "PyJWT", "hs", py(claims(sub=value)), "user")
    add("the user's claim has another name", "PyJWT", "named", py(), "user")
    for typ in ["JWT", "at", "application/jwt", 7]:
        add(f"typ is {typ!r}", "by hand", "typ", raw({"alg": "HS256", "typ": typ}, CLAIMS), "type")
    add("no typ", "by hand", "typ", raw({"alg": "HS256"}, CLAIMS), "type")


def forged_topics():
    for value in [
        "chat/7", ["chat/7"], 7, None, True,
        {"subscribe": "chat/7"}, {"subscribe": {"chat": 7}}, {"subscribe": [7]}, {"subscribe": [["a"]]},
        {"subscribe": [""]}, {"subscribe": ["a/#/b"]}, {"publish": ["a+"]}, {"lease": ["a\x00"]}, {"publish": None},
        {"subscirbe": ["a"]}, {"Subscribe": ["a"]}, {"rights": ["everything"]}, {"rights": "history"},
        {"rights": [1]}, {"respond": ["+a"]},
        {"subscribe": [f"{n}" for n in range(33)], "publish": [f"{n}" for n in range(32)]},
    ]:
        add(f"topics are {json.dumps(value)[:60]}", "PyJWT", "hs", py(claims(topics=value)), "topics")


def forged_texts():
    payload = json.dumps(CLAIMS)
    for what, text in [
        ("a member twice", payload[:-1] + ', "sub": "eve"}'),
        ("a member twice, once escaped", payload[:-1] + ', "s\\u0075b": "eve"}'),
        ("a member of a member twice", payload[:-1] + ', "x": {"a": 1, "a": 1}}'),
        ("9 levels", json.dumps({**CLAIMS, "deep": nested(8)})),
        ("1000 levels", payload[:-1] + ', "deep": ' + "[" * 1000 + "]" * 1000 + "}"),
        ("a list", json.dumps([CLAIMS])),
        ("a text", json.dumps("claims")),
        ("null", "null"),
        ("nothing", ""),
        ("something behind", payload + "{}"),
        ("a comma too many", payload[:-1] + ",}"),
        ("NaN", payload[:-1] + ', "x": NaN}'),
        ("a byte order mark", "\ufeff" + payload),
        ("half", payload[: len(payload) // 2]),
    ]:
        add(f"the payload is {what}", "PyJWT", "hs", py(text.encode()), "malformed")
    add("the payload is not UTF-8", "PyJWT", "hs", py(payload.replace("ann", "a?").encode().replace(b"?", b"\xff")), "malformed")
    for what, head in [
        ("alg twice", b'{"alg":"HS256","alg":"none"}'),
        ("alg twice, once escaped", b'{"alg":"HS256","\\u0061lg":"none"}'),
        ("a list", b'["HS256"]'),
        ("no JSON", b"HS256"),
        ("deep", b'{"alg":"HS256","x":' + b"[" * 9 + b"]" * 9 + b"}"),
    ]:
        add(f"the header is {what}", "by hand", "hs", raw(head, CLAIMS), "malformed")
    good = py()
    for what, token in [
        ("nothing", ""),
        ("dots", ".."),
        ("two parts", good.rsplit(".", 1)[0]),
        ("four parts", good + ".e30"),
        ("no token", "Bearer " + good),
        ("text", "hunter2"),
        ("an umlaut", good.replace(".", "\u00fc.", 1)),
    ]:
        add(f"it is {what}", "by hand", "hs", token, "malformed")
    add("the alphabet of plain base64", "by hand", "hs", good.replace("-", "+").replace("_", "/").replace(".", "+/.", 1), "malformed")
    add("much too long", "PyJWT", "hs", py(claims(x="a" * 40_000)), "too-long")
    room = next(n for n in range(4000) if len(py(claims(x="a" * n))) > 4096)
    add("just too long", "PyJWT", "hs", py(claims(x="a" * room)), "too-long")
    add("good and as long as may be", "PyJWT", "hs", py(claims(x="a" * (room - 1))))
    for what, head in [("crit", {"crit": ["exp"], "exp": 1}), ("b64", {"crit": ["b64"], "b64": False}), ("crit of nothing", {"crit": []})]:
        add(f"the header has {what}", "by hand", "hs", raw({"alg": "HS256", **head}, CLAIMS), "critical")


def joserfc_tokens():
    def sign(key, algorithm, payload=None, **head):
        registry = jws.JWSRegistry(algorithms=[algorithm], strict_check_header=False)
        payload = json.dumps(CLAIMS if payload is None else payload)
        return jws.serialize_compact({"alg": algorithm, **head}, payload, key, registry=registry)

    secret = OctKey.import_key(SECRET)
    keys = {name: KINDS[name].import_key(pem(key)) for name, key in KEYS.items()}
    for algorithm in HS:
        add(f"good {algorithm}", "joserfc", "hs", sign(secret, algorithm))
    for algorithm, name in [
        ("RS256", "rsa"), ("RS384", "rsa"), ("RS512", "rsa"), ("PS256", "ps"), ("PS384", "rsa"), ("PS512", "rsa"),
        ("ES256", "es256"), ("ES384", "es384"), ("EdDSA", "ed"),
    ]:
        add(f"good {algorithm}", "joserfc", "public", sign(keys[name], algorithm, kid=name))
    add("alg none", "joserfc", "hs", sign(OctKey.import_key(b"none"), "none"), "algorithm")
    add("ES512", "joserfc", "public", sign(ECKey.import_key(pem(P521)), "ES512", kid="es512"), "algorithm")
    add("ES256K", "joserfc", "public", sign(ECKey.import_key(pem(K256)), "ES256K", kid="es256"), "algorithm")
    add("Ed25519 by its newer name", "joserfc", "public", sign(keys["ed"], "Ed25519", kid="ed"), "algorithm")
    add("another secret", "joserfc", "hs", sign(OctKey.import_key(b"x" * 32), "HS256"), "signature")
    other = ECKey.import_key(pem(OTHERS["es256"]))
    head = {"kid": "es256", "jwk": other.as_dict(private=False)}
    add("its own key in the header", "joserfc", "public", sign(other, "ES256", **head), "signature")
    head = {"kid": "mine", "jku": "http://127.0.0.1:1/jwks", "x5u": "http://127.0.0.1:1/x5u"}
    add("an address of keys in the header", "joserfc", "public", sign(other, "ES256", **head), "unknown-key")
    add("exp is a string", "joserfc", "hs", sign(secret, "HS256", claims(exp="4000000000")), "claims")
    add("expired", "joserfc", "hs", sign(secret, "HS256", claims(exp=NOW - 31)), "expired")
    encrypted = joserfc.jwe.encrypt_compact({"alg": "dir", "enc": "A128CBC-HS256"}, json.dumps(CLAIMS), OctKey.import_key(SECRET[:32]))
    add("encrypted instead of signed", "joserfc", "hs", encrypted, "malformed")


good_tokens()
forged_algorithms()
forged_signatures()
forged_kids()
forged_claims()
forged_topics()
forged_texts()
joserfc_tokens()

private = {name: {**KINDS[name].import_key(pem(key)).as_dict(private=True), "kid": name} for name, key in KEYS.items()}
others = {name: KINDS[name].import_key(pem(key)).as_dict(private=True) for name, key in OTHERS.items()}
(WORK / "keys.json").write_text(
    json.dumps({"private": private, "others": others, "secret": SECRET.decode(), "claims": CLAIMS, "now_s": NOW})
)
vectors = {
    "now_s": NOW,
    "leeway_s": 30,
    "secret": SECRET.decode(),
    "jwks": JWKS,
    "pem": "".join(public_pem(KEYS[name]).decode() for name in ["rsa", "es256", "es384", "ed"]),
    "weak_jwk": RSAKey.import_key(public_pem(WEAK)).as_dict(private=False),
    "weak_pem": public_pem(WEAK).decode(),
    "curve_pem": public_pem(P521).decode(),
    "settings": SETTINGS,
    "tokens": tokens,
}
(WORK / "python.json").write_text(json.dumps(vectors))
