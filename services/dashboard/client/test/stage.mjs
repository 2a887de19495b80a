// What the tests of the session stand on: a clock that is moved by hand, and transports that do what they are told.

import { Session } from "../dist/session.js";

export class FakeClock {
  time = 0;
  #timers = new Set();
  now = () => this.time;
  // Half of what may be added.
  random = () => 0.5;
  after = (ms, run) => {
    const timer = { at: this.time + ms, run };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  };
  get armed() {
    return this.#timers.size;
  }
  advance(ms) {
    const until = this.time + ms;
    for (;;) {
      const due = [...this.#timers].filter((t) => t.at <= until).sort((a, b) => a.at - b.at)[0];
      if (!due) break;
      this.time = due.at;
      this.#timers.delete(due);
      due.run();
    }
    this.time = until;
  }
}

export class Stage {
  clock = new FakeClock();
  // Every connection there was, the newest last.
  links = [];

  constructor(options = {}, { over = ["ws"] } = {}) {
    const ways = {};
    for (const name of over) {
      const isDuplex = name === "ws" || name === "webtransport" || name === "rtc";
      ways[name] = {
        isDuplex,
        tells: !isDuplex,
        waits: name !== "ws" && name !== "rtc",
        open: (subscription, sink) => this.#open(name, isDuplex, subscription, sink),
      };
    }
    const base = { topics: ["trade/x/A"], wishes: {}, ladder: over, ways, clock: this.clock, retry: {} };
    this.session = new Session({ ...base, ...options });
    this.session.start();
  }

  #open(over, isDuplex, subscription, sink) {
    const link = { over, subscription, sink, sent: [], isClosed: false, close: () => (link.isClosed = true) };
    if (isDuplex) link.send = (request) => link.sent.push(request);
    this.links.push(link);
    return link;
  }

  get link() {
    return this.links.at(-1);
  }

  say(message, cursor) {
    this.link.sink.message(JSON.stringify(message), cursor);
  }

  // A connection that is accepted.
  accept(cursor = "e-5") {
    this.link.sink.opened();
    this.say(welcome(cursor));
    for (const { op, id } of this.link.sent.filter((request) => request.op === "subscribe")) {
      if (op) this.say({ op: "subscribed", id, topics: [], cursor });
    }
  }

  take() {
    const items = [];
    for (let item = this.session.take(); item; item = this.session.take()) items.push(item);
    return items;
  }

  messages() {
    return this.take().map((item) => item.message);
  }

  // What the client said of its connection.
  states() {
    return this.messages()
      .filter(({ op }) => op === "connection")
      .map(({ state, over, retry_ms }) => [state, over, retry_ms].filter((v) => v !== undefined).join(" "));
  }
}

export const welcome = (cursor, heartbeat_ms = 1_000) => ({
  op: "welcome",
  version: "1",
  epoch: cursor.split("-")[0],
  cursor,
  heartbeat_ms,
});
export const event = (topic, seq, kind = "update", more = {}) => ({
  topic,
  seq,
  prev: 0,
  kind,
  ts: null,
  recv: 1,
  pub: 1,
  ...more,
});
export const trade = (seq, topic = "trade/x/A") =>
  event(topic, seq, "update", { price: "1", size: "1", side: null, trade_id: `${seq}` });
export const quote = (seq, kind = "update", topic = "quote/x/A") =>
  event(topic, seq, kind, { bid: `${seq}`, bid_size: "1", ask: null, ask_size: null });
