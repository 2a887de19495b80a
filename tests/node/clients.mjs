// Readers in Node, built on `ws` and the built-in fetch: nothing of ours between them and the service.
//
//   node tests/node/clients.mjs http://127.0.0.1:8080
//
// The service runs on the synthetic market. Prints one line a check and exits 1 if one failed.

import WebSocket from "ws";
import { check as untimed, end, within } from "../checks.mjs";

const [address] = process.argv.slice(2);
if (!address) {
  console.error("usage: clients.mjs ADDRESS");
  process.exit(2);
}
const WAIT_MS = 60_000;
const TRADES = "trade/synthetic/*";
const EACH = 60; // trades that each transport brings before the next takes over

const check = (name, run) => untimed(name, () => within(WAIT_MS, "all of it", run()));

function ensure(condition, what) {
  if (!condition) throw new Error(what);
}

const seqOf = (cursor) => Number(cursor.slice(cursor.lastIndexOf("-") + 1));

/** Each of these yields `{event, notice, cursor}`: one of the first two, and the cursor where it is certain. */
async function* overWebSocket(topics, from, onOpen = () => {}) {
  const socket = new WebSocket(`${address.replace("http", "ws")}/v1/ws`, ["ticker.v1.json"]);
  const waiting = [];
  let wake = () => {};
  let ended = false;
  socket.on("message", (data) => { waiting.push(JSON.parse(data)); wake(); });
  socket.on("close", () => { ended = true; wake(); });
  await new Promise((resolve, reject) => { socket.once("open", resolve); socket.once("error", reject); });
  socket.send(JSON.stringify({ op: "subscribe", id: 1, topics, from }));
  onOpen(socket);
  let [epoch, seq, joined] = [null, 0, false];
  try {
    for (;;) {
      while (waiting.length === 0 && !ended) await new Promise((resolve) => { wake = resolve; });
      if (waiting.length === 0) return;
      const message = waiting.shift();
      if (message.op === "subscribed") joined = true;
      if (message.cursor) {
        epoch = message.cursor.slice(0, message.cursor.lastIndexOf("-"));
        if (joined) seq = Math.max(seq, seqOf(message.cursor));
      } else if (!message.op && message.kind !== "snapshot") {
        seq = Math.max(seq, message.seq);
      }
      const cursor = joined ? `${epoch}-${seq}` : null;
      yield message.op ? { notice: message, cursor } : { event: message, cursor };
    }
  } finally {
    socket.terminate();
  }
}

/** Server-Sent Events, as the HTML standard says. */
async function* overSse(topics, from) {
  const stop = new AbortController();
  const query = new URLSearchParams({ topics: topics.join(","), ...(from && { from }) });
  const response = await fetch(`${address}/v1/stream?${query}`, { signal: stop.signal, headers: { accept: "text/event-stream" } });
  ensure(response.status === 200, `status ${response.status}`);
  let [text, data, id, kind] = ["", [], null, "message"];
  try {
    for await (const chunk of response.body.pipeThrough(new TextDecoderStream())) {
      const lines = (text + chunk).split("\n");
      text = lines.pop();
      for (const line of lines) {
        const [, field, value] = /^([^:]*):? ?(.*)$/.exec(line);
        if (field === "data") data.push(value);
        else if (field === "id") id = value;
        else if (field === "event") kind = value;
        else if (line === "" && data.length > 0) {
          const message = JSON.parse(data.join("\n"));
          yield kind === "notice" ? { notice: message, cursor: id } : { event: message, cursor: id };
          [data, kind] = [[], "message"];
        }
      }
    }
  } finally {
    stop.abort();
  }
}

/** Long polls: the cursor is that of the whole answer, so it comes with the answer's last message. */
async function* overPoll(topics, cursor) {
  for (;;) {
    const query = new URLSearchParams({ topics: topics.join(","), ...(cursor && { cursor, wait: "20" }) });
    const response = await fetch(`${address}/v1/poll?${query}`);
    ensure(response.status === 200, `status ${response.status}`);
    const answer = await response.json();
    cursor = answer.cursor;
    const all = [...answer.events.map((event) => ({ event })), ...answer.notices.map((notice) => ({ notice }))];
    if (all.length === 0) all.push({ notice: { op: "nothing" } });
    for (const [i, item] of all.entries()) yield { ...item, cursor: i === all.length - 1 ? cursor : null };
  }
}

const WAYS = { ws: overWebSocket, sse: overSse, poll: overPoll };

const listed = await (await fetch(`${address}/v1/instruments?venue=synthetic`)).json();
const quote = `quote/synthetic/${listed.instruments[0].symbol}`;

for (const [name, way] of Object.entries(WAYS)) {
  await check(`a snapshot, then updates, over ${name}`, async () => {
    const events = [];
    for await (const { event } of way([quote])) {
      if (event) events.push(event);
      if (events.length === 8) break;
    }
    ensure(events[0].kind === "snapshot" && events[0].prev === 0, `it begins with ${JSON.stringify(events[0])}`);
    ensure(events.every((e, i) => e.topic === quote && (i === 0 || e.seq > events[i - 1].seq)), "order");
    ensure(events.slice(1).some((e) => e.kind === "update"), "no update");
  });
}

await check("a cursor goes on over every transport", async () => {
  async function take(way, from) {
    const events = [];
    for await (const { event, notice, cursor } of way([TRADES], from)) {
      ensure(notice?.op !== "gap", JSON.stringify(notice));
      if (event) events.push(event);
      if (cursor && events.length >= EACH) return [cursor, events];
    }
    throw new Error("the stream ended");
  }
  const [start] = await take(overWebSocket);
  let cursor = start;
  const chain = [];
  for (const name of ["sse", "poll", "ws", "poll", "sse", "ws"]) {
    const [next, events] = await take(WAYS[name], cursor);
    chain.push(...events);
    cursor = next;
  }
  const last = Math.max(...chain.map((e) => e.seq));
  const whole = [];
  for await (const { event, cursor: at } of overWebSocket([TRADES], start)) {
    if (event && event.seq <= last) whole.push(event);
    if (at && seqOf(at) >= last) break;
  }
  const key = (e) => `${e.topic} ${e.seq} ${e.trade_id} ${e.price} ${e.size}`;
  const keys = chain.map(key);
  ensure(new Set(keys).size === keys.length, "something came twice");
  ensure(JSON.stringify(keys.toSorted()) === JSON.stringify(whole.map(key).toSorted()), "something was lost");
});

await check("a paused WebSocket gets the newest, is told how much was left out, and loses no trade", async () => {
  const topics = ["*/synthetic/*"];
  let socket;
  const last = new Map();
  const conflated = { told: 0, seen: 0 };
  let paused = false;
  for await (const { event, notice } of overWebSocket(topics, undefined, (s) => { socket = s; })) {
    if (notice?.op === "heartbeat") conflated.told += notice.conflated;
    if (notice?.op === "subscribed" && !paused) {
      paused = true;
      socket.pause();
      let others = 0;
      for await (const other of overWebSocket(topics)) {
        if (other.event && (others += 1) === 30_000) break;
      }
      socket.resume();
    }
    if (event && event.kind !== "snapshot" && last.has(event.topic)) {
      const follows = event.prev === last.get(event.topic);
      const isState = /^(quote|status|stats|bar-\w+)\//.test(event.topic);
      ensure(follows || isState, `${event.topic}: ${event.seq} follows ${event.prev}, not ${last.get(event.topic)}`);
      if (!follows) conflated.seen += 1;
    }
    if (event) last.set(event.topic, event.seq);
    if (conflated.told > 0 && conflated.seen > 0) break;
  }
  ensure(conflated.told >= conflated.seen, `${conflated.seen} breaks, and ${conflated.told} were told`);
});

end();
