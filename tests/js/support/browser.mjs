// The installed Chromium, driven by Playwright; nothing is downloaded.

import { chromium } from "playwright-core";

import { scaled, which } from "./need.mjs";

/** Open an empty page in a browser of the test's own, until the test `t` ends. */
export async function openPage(t, url = "about:blank") {
  const executablePath = which("chromium", "chromium-browser", "google-chrome");
  if (!executablePath) throw new Error("Chromium is not installed; to install it: sudo apt-get install chromium");
  const browser = await chromium.launch({ executablePath, timeout: scaled(60_000) });
  t.after(() => browser.close());
  const page = await browser.newPage();
  page.setDefaultTimeout(scaled(30_000));
  await page.goto(url);
  return page;
}
