/** Chromium, where there is one. */

import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

const find = () => {
  try {
    return execFileSync("sh", ["-c", "command -v chromium || command -v chromium-browser || command -v google-chrome"]).toString().trim();
  } catch {
    return undefined;
  }
};

/** Its path. */
export const chromium = find();

/** Opens a page in a browser of its own, which ends with the test. */
export const openPage = async (t, address) => {
  const profile = await mkdtemp(join(tmpdir(), "ringyard-chromium-"));
  const flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-popup-blocking"];
  const browser = spawn(chromium, [...flags, `--user-data-dir=${profile}`, address], { stdio: "ignore" });
  t.after(async () => {
    const exit = once(browser, "exit");
    browser.kill("SIGKILL");
    await exit;
    await rm(profile, { recursive: true, force: true, maxRetries: 5 });
  });
};
