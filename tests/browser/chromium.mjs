// Chromium as the tests start it.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

// Without these a browser looks for its maker's hosts, which a closed network refuses.
export const launch = {
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  headless: true,
  args: ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    ...(process.env.CHROMIUM_ARGS?.split(" ") ?? [])],
};

// A browser of its own, with its first page; `close` leaves nothing behind.
export async function browser({ args = [], ...options } = {}) {
  const profile = mkdtempSync(join(tmpdir(), "ticker-browser-"));
  const all = { ...launch, ...options, args: [...launch.args, ...args] };
  const context = await chromium.launchPersistentContext(profile, all);
  const close = async () => {
    await context.close();
    rmSync(profile, { recursive: true, force: true });
  };
  return { context, page: context.pages()[0] ?? (await context.newPage()), close };
}
