// The page in a real browser: live prices over SSE, then over a WebSocket, and nothing on the console.
//
//   node tests/browser/page.mjs http://127.0.0.1:8080 target/browser
//
// Prints one line a check and exits 1 if one failed. Screenshots go to the folder given.

import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { check, end, equal } from "../checks.mjs";
import { browser } from "./chromium.mjs";

const [address, folder = "target/browser"] = process.argv.slice(2);
if (!address) {
  console.error("usage: page.mjs ADDRESS [FOLDER]");
  process.exit(2);
}
const WAIT_MS = 45_000; // longer than a heartbeat
mkdirSync(folder, { recursive: true });
const complaints = [];

const { page, close } = await browser({ viewport: { width: 1280, height: 900 }, args: ["--disable-quic"] });
page.on("console", (message) => {
  if (["error", "warning"].includes(message.type())) complaints.push(`${message.type()}: ${message.text()}`);
});
page.on("pageerror", (error) => complaints.push(`uncaught: ${error.message}`));
page.on("requestfailed", (request) => {
  // A stream that the page itself ends is no failure.
  if (!request.url().includes("/v1/stream")) complaints.push(`failed: ${request.url()}`);
});
page.on("request", (request) => {
  if (new URL(request.url()).host !== new URL(address).host) complaints.push(`another host: ${request.url()}`);
});

/** Waits for rows with prices that the page calls trusted, and for a price that moves. */
async function live() {
  await page.waitForFunction(() => document.getElementById("connection").dataset.state === "live", null, { timeout: WAIT_MS });
  await page.waitForFunction(() => document.querySelectorAll('#rows tr[data-trust="now"]').length > 0, null, { timeout: WAIT_MS });
  const text = () => page.$$eval("#rows tr", (rows) => rows.map((row) => row.innerText).join("\n"));
  const bids = () => page.$$eval('#rows tr[data-trust="now"] [data-cell=bid]', (cells) => cells.map((c) => c.textContent).join());
  if (!/\d/.test(await text())) throw new Error("no row has a number");
  const before = await bids();
  await page.waitForFunction((old) => [...document.querySelectorAll('#rows tr[data-trust="now"] [data-cell=bid]')]
    .map((c) => c.textContent).join() !== old, before, { timeout: WAIT_MS });
}

const transport = () => page.textContent("#over");

await check("the page loads", async () => equal((await page.goto(`${address}/`)).status(), 200, "status"));
await check("prices move over Server-Sent Events", async () => {
  await live();
  equal(await transport(), "Server-Sent Events", "transport");
});
await check("the synthetic market is named as such", async () => {
  const venues = await page.evaluate(async () => (await fetch("/v1/venues")).text());
  equal(await page.isVisible("#synthetic"), venues.includes("synthetic"), "banner");
});
await check("prices are decimals, and no ask is below its bid", async () => {
  const crossed = await page.$$eval('#rows tr[data-trust="now"]', (rows) => rows.map((row) => {
    const of = (name) => row.querySelector(`[data-cell=${name}]`).textContent;
    return [of("bid"), of("ask"), of("spread")];
  }).filter(([bid, ask, spread]) => bid !== "–" && ask !== "–" &&
    !(/^\d+(\.\d+)?$/.test(bid) && /^\d+(\.\d+)?$/.test(ask) && /^\d+(\.\d+)?$/.test(spread))));
  equal(JSON.stringify(crossed), "[]", "rows");
});
await page.screenshot({ path: join(folder, "page-sse.png") });

await check("the cursor and the heartbeats go on", async () => {
  await page.waitForFunction(() => /^[a-z0-9]{1,16}-\d+$/.test(document.getElementById("cursor").textContent), null, { timeout: WAIT_MS });
  await page.waitForFunction(() => Number(document.getElementById("heartbeats").textContent.replaceAll(",", "")) > 0, null, { timeout: WAIT_MS });
});

await check("prices move over a WebSocket", async () => {
  await page.check("input[name=over][value=ws]");
  await live();
  equal(await transport(), "WebSocket", "transport");
});
await page.screenshot({ path: join(folder, "page-ws.png") });

await check("the filter narrows the list", async () => {
  const symbol = await page.textContent("#rows tr .symbol");
  await page.fill("#filter", symbol);
  await page.waitForFunction((wanted) => [...document.querySelectorAll("#rows .symbol")].every((s) => s.textContent.includes(wanted)),
    symbol, { timeout: WAIT_MS });
  await live();
  await page.fill("#filter", "no such instrument");
  await page.waitForFunction(() => document.querySelectorAll("#rows tr").length === 0, null, { timeout: WAIT_MS });
  await page.fill("#filter", "");
  await live();
});

await check("a narrow, dark screen fits", async () => {
  await page.setViewportSize({ width: 390, height: 844 });
  await page.emulateMedia({ colorScheme: "dark" });
  const [wide, room] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
  if (wide > room) throw new Error(`the page is ${wide} px wide on a screen of ${room}`);
  await page.screenshot({ path: join(folder, "page-phone.png") });
});

await check("the console stays empty", async () => equal(complaints.join("; "), "", "console"));

await close();
end();
