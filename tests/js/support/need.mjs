// What a test needs of the machine: where it is missing the test is skipped with the cure, and with CI=true it fails.

import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";

/** Factor on every time limit, for slow machines. */
export const SCALE = Number(process.env.TASKWIRE_TEST_TIMEOUT_SCALE ?? "1");

/** Milliseconds, stretched by TASKWIRE_TEST_TIMEOUT_SCALE. */
export const scaled = (ms) => ms * SCALE;

/** The path of the first of these programs that is installed, or undefined. */
export function which(...names) {
  for (const name of names) {
    for (const folder of (process.env.PATH ?? "").split(delimiter)) {
      const path = join(folder, name);
      try {
        accessSync(path, constants.X_OK);
        return path;
      } catch {
        // the next folder
      }
    }
  }
  return undefined;
}

/** Options of `test()` for a test in the browser: `test("…", chromium, async () => …)`. */
export const needsChromium = need("Chromium", which("chromium", "chromium-browser", "google-chrome"), "sudo apt-get install chromium");

function need(what, found, cure) {
  if (found || process.env.CI === "true") return {}; // in CI the test runs, and fails for want of it
  return { skip: `${what} is not installed; to install it: ${cure}` };
}
