// WebRTC data channels in Node, by node-datachannel (libdatachannel): nothing of ours between it and the service.
//
//   node tests/node/rtc.mjs http://127.0.0.1:8080
//
// Prints one line a check and exits 1 if one failed.

import nodeDataChannel from "node-datachannel";
import { check, end, equal, within } from "../checks.mjs";

const [address] = process.argv.slice(2);
if (!address) {
  console.error("usage: rtc.mjs ADDRESS");
  process.exit(2);
}
const WAIT_MS = 20_000;
const PEERS = 50;

// Messages of a channel, one after the other; null at its end.
function reader(channel) {
  const queue = [];
  let wake = () => {};
  const put = (item) => {
    queue.push(item);
    wake();
  };
  channel.onMessage((text) => put(JSON.parse(text)));
  channel.onClosed(() => put(null));
  return async () => {
    while (!queue.length) await within(WAIT_MS, "a message", new Promise((resolve) => (wake = resolve)));
    return queue.shift();
  };
}

async function open(live = false) {
  const peer = new nodeDataChannel.PeerConnection("reader", { iceServers: [] });
  const gathered = new Promise((resolve) => {
    peer.onGatheringStateChange((state) => state === "complete" && resolve());
  });
  const channel = peer.createDataChannel("ticker");
  const lossy = live ? peer.createDataChannel("ticker-live", { unordered: true, maxRetransmits: 0 }) : null;
  const next = reader(channel);
  const opened = new Promise((resolve) => channel.onOpen(resolve));
  await within(WAIT_MS, "candidates", gathered);
  const headers = { "content-type": "application/sdp" };
  const answer = await fetch(`${address}/v1/rtc`, { method: "POST", headers, body: peer.localDescription().sdp });
  equal(answer.status, 201, "the offer");
  peer.setRemoteDescription(await answer.text(), "answer");
  await within(WAIT_MS, "an open channel", opened);
  const send = (message) => channel.sendMessage(JSON.stringify(message));
  return { peer, lossy, next, send, resource: new URL(answer.headers.get("location"), address) };
}

await check("a session", async () => {
  const { peer, next, send } = await open();
  send({ op: "subscribe", id: 1, topics: ["quote/synthetic/*", "trade/synthetic/*"] });
  const seen = [];
  for (let updates = 0; updates < 100; ) {
    const message = await next();
    if (message.op && message.op !== "heartbeat") seen.push(message.op);
    updates += message.kind === "update" ? 1 : 0;
  }
  peer.close();
  equal(seen.join(), "welcome,subscribed", "notices");
});

await check("what may be lost comes on a channel of its own, as whole snapshots", async () => {
  const { peer, lossy, send } = await open(true);
  const next = reader(lossy);
  send({ op: "subscribe", id: 1, topics: ["quote/synthetic/*"], delivery: "datagram" });
  for (let count = 0; count < 200; count += 1) {
    const { kind, prev } = await next();
    equal(`${kind} ${prev}`, "snapshot 0", "a message");
  }
  peer.close();
});

await check("DELETE ends a session", async () => {
  const { peer, next, resource } = await open();
  equal((await next()).op, "welcome", "the first message");
  equal((await fetch(resource, { method: "DELETE" })).status, 204, "DELETE");
  while (await next());
  peer.close();
});

await check(`${PEERS} peers at once`, async () => {
  const all = await Promise.all(Array.from({ length: PEERS }, () => open()));
  for (const { next } of all) equal((await next()).op, "welcome", "the first message");
  all.forEach(({ peer }) => peer.close());
});

nodeDataChannel.cleanup();
end();
