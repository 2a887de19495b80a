// The npm package in Node: over each transport, from one to the next, through cut connections and a service that is killed.
//
//   node tests/node/client.mjs BINARY http://127.0.0.1:8080 127.0.0.1:9090
//
// The service runs on the synthetic market. Prints one line a check and exits 1 if one failed.

import { spawn } from "node:child_process";
import { createServer, connect as dial } from "node:net";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import WebSocket from "ws";
import { RTCPeerConnection } from "node-datachannel/polyfill";
import nodeDataChannel from "node-datachannel";
import * as scenarios from "../client-scenarios.mjs";
import { check, end } from "../checks.mjs";
import * as client from "../../services/dashboard/client/dist/index.js";

const { ensure, within } = scenarios;
const [binary, address, admin] = process.argv.slice(2);
if (!admin) {
  console.error("usage: client.mjs BINARY ADDRESS ADMIN");
  process.exit(2);
}
const platform = { WebSocket, RTCPeerConnection };
const WAYS = ["ws", "sse", "poll", "rtc"];

/** Passes bytes on until it is told to cut everything; `refuses` says which requests are not let through. */
async function proxy(to, refuses = () => false) {
  const target = new URL(to);
  const sockets = new Set();
  const server = createServer((near) => {
    near.once("data", (first) => {
      if (refuses(first.toString("latin1")))
        return near.end("HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
      const far = dial(Number(target.port), target.hostname, () => far.write(first));
      for (const [one, other] of [
        [near, far],
        [far, near],
      ]) {
        sockets.add(one);
        one.on("error", () => {});
        one.on("close", () => {
          sockets.delete(one);
          other.destroy();
        });
        one.pipe(other);
      }
    });
    near.on("error", () => {});
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const cut = () => sockets.forEach((socket) => socket.destroy());
  return {
    address: `http://127.0.0.1:${server.address().port}`,
    cut,
    close: () => {
      server.close();
      cut();
    },
  };
}

for (const over of WAYS) {
  const options = { ...platform, over };
  await check(`prices over ${over} are those of the snapshot`, () => scenarios.prices(client, address, options));
  await check(`topics come and go over ${over}`, () => scenarios.changes(client, address, options));
  await check(`what is refused over ${over} is told`, () => scenarios.refused(client, address, options));
  await check(`a slow reader over ${over} loses no trade`, () => scenarios.slow(client, address, options));
}

await check("datagrams over rtc are whole, and right", () =>
  scenarios.datagrams(client, address, { ...platform, over: "rtc" }),
);

await check("a cursor goes on over every transport", () =>
  scenarios.carriesOn(client, address, platform, ["ws", "sse", "poll", "rtc", "ws", "rtc", "sse", "poll", "ws"]),
);

for (const over of ["ws", "sse", "poll"]) {
  await check(`a connection over ${over} that is cut goes on by itself, without loss`, async () => {
    const between = await proxy(address);
    const topics = ["trade/synthetic/*"];
    const feed = client.connect(between.address, { ...platform, over, topics, retry: { firstMs: 20 } });
    const trades = [];
    let [start, cuts, resumed] = [null, 0, 0];
    const loop = (async () => {
      for await (const message of feed) {
        ensure(message.op !== "gap", JSON.stringify(message));
        if (message.state === "open" && message.resumed) resumed += 1;
        if (start === null && scenarios.isJoined(message, feed)) start = feed.cursor;
        if (!client.isOf(message, "trade")) continue;
        trades.push(message);
        if (trades.length % 20 === 0 && cuts < 4) {
          cuts += 1;
          between.cut();
        }
        if (trades.length >= 100 && resumed >= 4) return;
      }
    })();
    await within(30_000, "four cuts", loop);
    between.close();
    const from = Number(start.split("-").at(-1));
    await scenarios.complete(
      client,
      address,
      platform,
      start,
      trades.filter(({ seq }) => seq > from),
    );
  });
}

await check("where WebSockets do not pass, it goes on over server-sent events", async () => {
  const between = await proxy(address, (head) => head.startsWith("GET /v1/ws"));
  const feed = client.connect(between.address, { ...platform, topics: ["quote/synthetic/*"], retry: { firstMs: 20 } });
  const seen = [];
  const loop = (async () => {
    for await (const message of feed) {
      if (message.op === "connection") seen.push(`${message.state} ${message.over}`);
      if (client.isEvent(message)) return;
    }
  })();
  await within(20_000, "an event", loop);
  between.close();
  ensure(seen.join() === "connecting ws,lost ws,connecting sse,open sse", seen.join());
});

await check("a service that is killed and started again is found again, over each transport", async () => {
  // Ports that stay the same.
  const ports = [];
  for (let count = 0; count < 5; count += 1) {
    const server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    ports.push(server);
  }
  const [http, tls, grpc, adminPort, rtc] = ports.map((server) => `127.0.0.1:${server.address().port}`);
  await Promise.all(
    ports.map((server) => {
      server.close();
      return once(server, "close");
    }),
  );
  const start = async () => {
    const addresses = [
      "--listen",
      http,
      "--tls-listen",
      tls,
      "--grpc",
      grpc,
      "--admin",
      adminPort,
      "--rtc-listen",
      rtc,
    ];
    // Whose end nothing tells, over UDP, is noticed by its silence.
    const env = { ...process.env, TICKER_EDGE_HEARTBEAT_MS: "500" };
    const process_ = spawn(binary, ["up", "--synthetic", "4@20", ...addresses], { stdio: "ignore", env });
    const ready = async () => {
      while (
        !(await fetch(`http://${adminPort}/readyz`).then(
          (r) => r.ok,
          () => false,
        ))
      )
        await new Promise((resolve) => setTimeout(resolve, 50));
    };
    await within(60_000, "a service", ready());
    return process_;
  };
  let service = await start();
  try {
    const feeds = WAYS.map((over) => {
      const feed = client.connect(`http://${http}`, {
        ...platform,
        over,
        topics: ["quote/synthetic/*", "trade/synthetic/*"],
        retry: { firstMs: 50, maxMs: 400 },
      });
      const state = { over, feed, events: 0, epochs: new Set(), gaps: 0, wake: () => {} };
      feed.on("message", (message) => {
        if (client.isEvent(message)) state.events += 1;
        if (message.op === "gap") state.gaps += 1;
        if (feed.cursor) state.epochs.add(feed.cursor.split("-")[0]);
        state.wake();
      });
      feed.on("end", (error) => (state.ended = error));
      return state;
    });
    const until = (what, isSo) =>
      within(
        40_000,
        what,
        Promise.all(
          feeds.map(async (state) => {
            while (!isSo(state)) {
              ensure(!("ended" in state), `${state.over} ended: ${state.ended}`);
              await new Promise((resolve) => (state.wake = resolve));
            }
          }),
        ),
      );
    await until("events", ({ events }) => events > 30);
    service.kill("SIGKILL");
    await once(service, "exit");
    service = await start();
    for (const state of feeds) state.events = 0;
    await until("events of the second life", ({ events, epochs }) => events > 30 && epochs.size === 2);
    for (const { over, gaps } of feeds) ensure(gaps > 0, `${over}: that the tape is another one was not told`);
    for (const { feed } of feeds) feed.close();
  } finally {
    service.kill("SIGKILL");
    await once(service, "exit");
  }
});

await check("the README's example prints prices", async () => {
  const root = new URL("../../services/dashboard/client/", import.meta.url);
  const [, example] = /```js\n(.*?)```/s.exec(await readFile(new URL("README.md", root), "utf8"));
  const program = example
    .replace("@ticker/client", new URL("dist/index.js", root).href)
    .replace("http://127.0.0.1:8080", address);
  const node = spawn(process.execPath, ["--input-type=module", "-e", program], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  let said = "";
  const printed = (async () => {
    for await (const text of node.stdout) {
      said += text;
      if (
        /^quote\/synthetic\/[\w-]+ [\d.]+ [\d.]+$/m.test(said) &&
        /^trade\/synthetic\/[\w-]+ [\d.]+ [\d.]+$/m.test(said)
      )
        return;
    }
    throw new Error(`it ended: ${said}`);
  })();
  await within(20_000, "prices", printed).finally(() => node.kill());
});

await check("a feed that is closed leaves nothing at the service", async () => {
  const feeds = WAYS.map((over) => client.connect(address, { ...platform, over, topics: ["quote/synthetic/*"] }));
  await within(20_000, "events", Promise.all(feeds.map((feed) => new Promise((resolve) => feed.on("event", resolve)))));
  feeds.forEach((feed) => feed.close());
  const metric = async (name) =>
    Number(new RegExp(`^${name} (\\d+)$`, "m").exec(await (await fetch(`http://${admin}/metrics`)).text())?.[1]);
  const gone = async () => {
    while ((await metric("ticker_edge_sessions")) > 0 || (await metric("ticker_edge_rtc_peers")) > 0)
      await new Promise((resolve) => setTimeout(resolve, 50));
  };
  // Sooner than silence would tell.
  await within(5_000, "no session", gone());
});

nodeDataChannel.cleanup();
end();
