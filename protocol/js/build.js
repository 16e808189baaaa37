/**
 * Makes the builds that are committed and that the broker serves: `ringyard.min.mjs`, an ES module, and `ringyard.min.js`,
 * a script that sets `globalThis.ringyard`. esbuild shortens the private names, terser the rest.
 *
 *     node build.js            # writes them
 *
 * The tests compare what this makes with what is committed, so the versions of both tools are pinned.
 */

import { writeFile } from "node:fs/promises";
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
};

/** The text of each build, by its file's name. */
export const build = async () => {
  const texts = {};
  for (const [name, { format, contents }] of Object.entries(entries)) {
    const { outputFiles } = await esbuild.build({
      stdin: { contents, resolveDir: here(".") },
      bundle: true,
      format,
      minify: true,
      mangleProps: /^_/,
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
    texts[name] = `${code}\n`;
  }
  return texts;
};

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const [name, text] of Object.entries(await build())) {
    await writeFile(here(name), text);
  }
}
