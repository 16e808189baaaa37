/**
 * Makes the builds that are committed and that the broker serves: `ringyard.min.mjs`, an ES module, and `ringyard.min.js`,
 * a script that sets `globalThis.ringyard`; `ringyard-sse.min.mjs`, for where WebSockets are blocked; `ringyard-yjs.min.mjs`, the Yjs
 * provider without Yjs; and `vendor/yjs.min.mjs`, Yjs and its awareness, for pages without a bundler. esbuild shortens the private names, terser the rest.
 *
 *     node build.js            # writes them
 *
 * The tests compare what this makes with what is committed, so the versions of both tools are pinned.
 */

import { mkdir, readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import * as esbuild from "esbuild";
import { minify } from "terser";

const here = (name) => fileURLToPath(new URL(name, import.meta.url));

const entries = {
  "ringyard.min.mjs": { format: "esm", contents: 'export { connect } from "./ringyard.js";' },
  "ringyard.min.js": {
    format: "iife",
    contents: 'import { connect } from "./ringyard.js"; globalThis.ringyard = { connect };',
  },
  "ringyard-sse.min.mjs": { format: "esm", contents: 'export { fallback } from "./ringyard-sse.js";' },
  "ringyard-yjs.min.mjs": {
    format: "esm",
    contents: 'export { RingyardProvider } from "./ringyard-yjs.js";',
    external: ["yjs", "y-protocols/*"],
  },
  "vendor/yjs.min.mjs": {
    format: "esm",
    contents: 'export * from "yjs"; export * from "y-protocols/awareness";',
    licences: ["yjs", "y-protocols", "lib0"],
  },
};

/** A comment with the terms of the packages that a build contains. */
const notice = async (packages) => {
  const texts = packages.map(async (name) => `${name}:\n${await readFile(here(`node_modules/${name}/LICENSE`), "utf8")}`);
  return packages.length ? `/*!\n${(await Promise.all(texts)).join("\n")}*/\n` : "";
};

/** The text of each build, by its file's name. */
export const build = async () => {
  const texts = {};
  for (const [name, { format, contents, external, licences = [] }] of Object.entries(entries)) {
    const { outputFiles } = await esbuild.build({
      stdin: { contents, resolveDir: here(".") },
      bundle: true,
      format,
      external,
      minify: true,
      // Only ours: Yjs has such names in its interface.
      mangleProps: licences.length ? undefined : /^_/,
      target: "es2022",
      write: false,
    });
    const { code } = await minify(outputFiles[0].text, {
      module: format === "esm",
      ecma: 2022,
      // What is called unsafe leaves out `new` before `Error` and joins strings with `+`.
      compress: { passes: 3, unsafe: true, unsafe_arrows: true },
      format: { comments: false },
    });
    texts[name] = `${await notice(licences)}${code}\n`;
  }
  return texts;
};

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await mkdir(here("vendor"), { recursive: true });
  for (const [name, text] of Object.entries(await build())) {
    await writeFile(here(name), text);
  }
}
