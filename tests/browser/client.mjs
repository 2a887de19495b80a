// The npm package in a real browser: over each transport, WebTransport and WebRTC included, and from one to the next.
//
//   node tests/browser/client.mjs http://127.0.0.1:8080
//
// Prints one line a check and exits 1 if one failed.

import { readFile } from "node:fs/promises";
import { check as untimed, end, equal, within } from "../checks.mjs";
import { browser } from "./chromium.mjs";

const [address] = process.argv.slice(2);
if (!address) {
  console.error("usage: client.mjs ADDRESS");
  process.exit(2);
}
const check = (name, run) => untimed(name, () => within(60_000, "all of it", run()));
const WAYS = ["webtransport", "ws", "sse", "poll", "rtc"];
// Where the page finds what is tested: under the service's own origin, as the page's policy wants it.
const SERVED = {
  package: new URL("../../services/dashboard/client/dist/", import.meta.url),
  tests: new URL("../", import.meta.url),
};

const { context, close } = await browser();
await context.route(/\/(package|tests)\/[\w/.-]+\.m?js$/, async (route) => {
  const [, folder, path] = /\/(package|tests)\/(.+)$/.exec(new URL(route.request().url()).pathname);
  await route.fulfill({ body: await readFile(new URL(path, SERVED[folder])), contentType: "text/javascript" });
});
const openPage = async () => {
  const page = await context.newPage();
  await page.goto(`${address}/`);
  await page.evaluate(async () => {
    window.client = await import("/package/index.js");
    window.scenarios = await import("/tests/client-scenarios.mjs");
  });
  return page;
};
const page = await openPage();
const run = (name, options, ...more) =>
  page.evaluate(
    ([name, options, more]) => window.scenarios[name](window.client, location.origin, options, ...more),
    [name, options, more],
  );

try {
  for (const over of WAYS) {
    await check(`prices over ${over} are those of the snapshot`, () => run("prices", { over }));
    await check(`topics come and go over ${over}`, () => run("changes", { over }));
    await check(`what is refused over ${over} is told`, () => run("refused", { over }));
    await check(`a slow reader over ${over} loses no trade`, () => run("slow", { over }));
  }
  for (const over of ["webtransport", "rtc"]) {
    await check(`datagrams over ${over} are whole, and right`, () => run("datagrams", { over }));
  }
  await check("a cursor goes on over every transport", () =>
    run("carriesOn", {}, ["webtransport", "rtc", "sse", "webtransport", "poll", "ws", "rtc", "webtransport"]),
  );

  await check("where UDP does not pass, it goes on over a WebSocket", async () => {
    const states = await page.evaluate(async () => {
      // As a network that drops it: nothing is ever answered.
      class Mute {
        ready = new Promise((_, reject) => setTimeout(() => reject(new Error("nobody answers")), 50));
        closed = new Promise(() => {});
        close() {}
      }
      const seen = [];
      const feed = window.client.connect(location.origin, {
        topics: ["quote/synthetic/*"],
        WebTransport: Mute,
        retry: { firstMs: 20 },
      });
      for await (const message of feed) {
        if (message.op === "connection") seen.push(`${message.state} ${message.over}`);
        if (window.client.isEvent(message)) return seen;
      }
    });
    equal(states.slice(-2).join(), "connecting ws,open ws", "at last");
  });

  await check("with nothing said, it is WebTransport", async () => {
    const over = await page.evaluate(async () => {
      const feed = window.client.connect(location.origin, { topics: ["quote/synthetic/*"] });
      for await (const message of feed) if (window.client.isEvent(message)) return feed.over;
    });
    equal(over, "webtransport", "transport");
  });

  await check("a new network: ICE begins anew, and the session goes on", async () => {
    const got = await page.evaluate(async () => {
      const patches = [];
      const watched = (url, init) => {
        const answer = fetch(url, init);
        if (init?.method === "PATCH") answer.then(({ status }) => patches.push(status));
        return answer;
      };
      const feed = window.client.connect(location.origin, {
        over: "rtc",
        topics: ["trade/synthetic/*"],
        fetch: watched,
        trickle: true,
      });
      let [trades, opens] = [0, 0];
      for await (const message of feed) {
        if (message.state === "open") opens += 1;
        if (!window.client.isEvent(message)) continue;
        trades += 1;
        if (trades === 20) {
          if (!patches.includes(204))
            trades -= 1; // the candidates are told at their own time
          else feed.networkChanged();
        }
        if (trades >= 60 && patches.includes(200))
          return [opens, patches.every((status) => status === 200 || status === 204)];
      }
    });
    equal(got.join(), "1,true", "connections, and what the edge said to each PATCH");
  });

  await check("two pages reach each other, and one passes its prices on", async () => {
    const other = await openPage();
    const name = await page.evaluate(async () => {
      const { connect, Peers } = window.client;
      const feed = connect(location.origin, { over: "ws", topics: ["quote/synthetic/*"] });
      const channels = [];
      window.peers = new Peers(feed, { onChannel: (channel) => channels.push(channel) });
      feed.on("event", (event) =>
        channels.forEach((channel) => channel.readyState === "open" && channel.send(JSON.stringify(event))),
      );
      await new Promise((resolve) => feed.on("connection", ({ state }) => state === "open" && resolve()));
      return window.peers.reachable();
    });
    const got = await other.evaluate(async (name) => {
      const { connect, Peers } = window.client;
      const feed = connect(location.origin, { over: "webtransport", topics: [] });
      await new Promise((resolve) => feed.on("connection", ({ state }) => state === "open" && resolve()));
      const peers = new Peers(feed);
      const channel = await peers.call(name, "prices");
      let count = 0;
      await new Promise(
        (resolve) =>
          (channel.onmessage = ({ data }) => {
            count += JSON.parse(data).topic.startsWith("quote/") ? 1 : 0;
            if (count === 50) resolve();
          }),
      );
      peers.close();
      feed.close();
      return count;
    }, name);
    equal(got, 50, "prices that came from the other page");
  });
} finally {
  await close();
}

end();
