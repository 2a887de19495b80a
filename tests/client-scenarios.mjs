// What the npm package promises, over whichever transport: the same in Node and in a browser. Each takes the package, an address
// and what to connect with, and throws if something is not so.

const WAIT_MS = 30_000;

export function ensure(condition, what) {
  if (!condition) throw new Error(what);
}

export function within(ms, what, promise) {
  let timer;
  const late = new Promise(
    (_, reject) => (timer = setTimeout(() => reject(new Error(`${what}: not within ${ms} ms`)), ms)),
  );
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

const get = async (address, path) => {
  const response = await fetch(`${address}${path}`);
  ensure(response.ok, `${path}: status ${response.status}`);
  return response.json();
};

export async function symbols(address) {
  return (await get(address, "/v1/instruments?venue=synthetic")).instruments.map(({ symbol }) => symbol);
}

/** What identifies an event, but for when it was sent to whom. */
const keyOf = ({ topic, seq, trade_id, price, size }) => `${topic} ${seq} ${trade_id} ${price} ${size}`;

/** Takes messages until one of them is the last. */
async function take(feed, isLast) {
  const taken = [];
  const all = (async () => {
    for await (const message of feed) {
      taken.push(message);
      if (isLast(message, taken)) return;
    }
    throw new Error("the feed ended");
  })();
  const kinds = () =>
    taken
      .slice(-3)
      .map((m) => m.op ?? m.topic)
      .join(", ");
  await within(WAIT_MS, `what is waited for, after ${taken.length} messages`, all).catch((error) => {
    feed.close();
    throw new Error(
      `${error.message}; last: ${kinds()}; ${taken.filter((m) => m.state === "lost").map((m) => m.error.message)}`,
    );
  });
  return taken;
}

/** Quotes and whole books, gathered event by event, are at each place what the snapshot says of it. */
export async function prices({ connect, Book, isEvent, isOf }, address, options) {
  const [first, second] = await symbols(address);
  const topics = ["quote/synthetic/*", `book/synthetic/${first}`, `book/synthetic/${second}`];
  const feed = connect(address, { ...options, topics, conflate: false });
  // What was shown at which place.
  const shown = new Map();
  const books = new Map();
  const show = (topic, seq, value) => shown.set(`${topic} ${seq}`, JSON.stringify(value));
  const quoteOf = ({ bid, bid_size, ask, ask_size }) => [bid, bid_size, ask, ask_size];
  const reached = new Map();
  let snapshot = null;
  const isMet = () => snapshot?.events.every(({ topic, seq }) => (reached.get(topic) ?? 0) >= seq);
  await take(feed, (message, taken) => {
    if (isEvent(message) && message.kind !== "invalid") {
      if (isOf(message, "quote")) show(message.topic, message.seq, quoteOf(message));
      if (isOf(message, "book")) {
        if (!books.has(message.topic)) books.set(message.topic, new Book());
        const book = books.get(message.topic);
        if (book.apply(message)) show(message.topic, book.seq, [book.bids, book.asks]);
      }
      reached.set(message.topic, message.seq);
    }
    if (taken.length === 150) {
      get(address, `/v1/snapshot?topics=${topics.join()}`).then((whole) => (snapshot = whole));
    }
    return isMet();
  });
  let compared = 0;
  const whole = new Map();
  for (const event of snapshot.events) {
    const key = `${event.topic} ${event.seq}`;
    if (event.topic.startsWith("quote")) {
      ensure(
        shown.get(key) === JSON.stringify(quoteOf(event)),
        `${key}: ${shown.get(key)}, the snapshot says ${JSON.stringify(quoteOf(event))}`,
      );
      compared += 1;
    } else {
      if (!whole.has(event.topic)) whole.set(event.topic, new Book());
      const book = whole.get(event.topic);
      if (!book.apply(event)) continue;
      ensure(shown.get(key) === JSON.stringify([book.bids, book.asks]), `${key}: not the book of the snapshot`);
      compared += 1;
    }
  }
  ensure(compared >= 4, `only ${compared} were compared`);
}

/** Each transport takes over at the cursor of the one before: every trade, once. */
export async function carriesOn({ connect, isOf }, address, options, ways) {
  const topics = ["trade/synthetic/*"];
  const chain = [];
  let start = null;
  let cursor = null;
  for (const over of ways) {
    const feed = connect(address, { ...options, over, topics, ...(cursor && { from: cursor }) });
    let trades = 0;
    const taken = await take(feed, (message) => {
      ensure(message.op !== "gap", JSON.stringify(message));
      if (isOf(message, "trade")) trades += 1;
      // Polls and events tell the cursor after some of the messages only, which are then what has been had.
      return trades >= 30 && (start === null || feed.cursor !== cursor);
    });
    const until = Number(feed.cursor.split("-").at(-1));
    if (start === null) start = feed.cursor;
    else chain.push(...taken.filter((m) => isOf(m, "trade") && m.seq <= until));
    cursor = feed.cursor;
  }
  await complete({ connect, isOf }, address, options, start, chain);
}

/** These are all trades after a place, each once: as one connection says. */
export async function complete({ connect, isOf }, address, options, start, chain) {
  const last = Math.max(...chain.map(({ seq }) => seq));
  const feed = connect(address, { ...options, over: "sse", topics: ["trade/synthetic/*"], from: start });
  const taken = await take(feed, () => Number(feed.cursor.split("-").at(-1)) >= last);
  const whole = taken.filter((m) => isOf(m, "trade") && m.seq <= last).map(keyOf);
  const keys = chain.map(keyOf);
  ensure(new Set(keys).size === keys.length, "something came twice");
  const lost = whole.filter((key) => !keys.includes(key));
  ensure(
    lost.length === 0 && keys.length === whole.length,
    `${keys.length} of ${whole.length} trades came; missing: ${lost.slice(0, 3)}`,
  );
}

/** Topics come and go; what is refused is told, and the others go on. */
export async function changes({ connect, isEvent }, address, options) {
  const [first, second, third] = await symbols(address);
  const topic = (symbol) => `quote/synthetic/${symbol}`;
  const feed = connect(address, { ...options, topics: [topic(first), topic(third)] });
  const counts = new Map();
  let wake = () => {};
  feed.on("event", (event) => {
    counts.set(event.topic, (counts.get(event.topic) ?? 0) + 1);
    wake();
  });
  let ended = null;
  feed.on("end", (error) => (ended = { error }));
  const comes = (symbol) => {
    counts.clear();
    const enough = async () => {
      while ((counts.get(topic(symbol)) ?? 0) < 3) await new Promise((resolve) => (wake = resolve));
    };
    return within(WAIT_MS, `${topic(symbol)} comes (${[...counts.keys()]})`, enough());
  };
  try {
    await comes(first);
    await within(WAIT_MS, "subscribe", feed.subscribe([topic(second)]));
    await comes(second);
    const refused = await within(
      WAIT_MS,
      "a refusal",
      feed.subscribe(["quote/synthetic/NO-SUCH"]).then(
        () => null,
        (error) => error,
      ),
    );
    ensure(refused?.code === "unknown_topic", `refused with ${refused?.code}`);
    await comes(first);
    await within(WAIT_MS, "unsubscribe", feed.unsubscribe([topic(first)]));
    await comes(third);
    await comes(second);
    ensure(!counts.has(topic(first)), "what was left still comes");
    ensure(feed.topics.join() === [topic(third), topic(second)].join(), feed.topics.join());
  } finally {
    feed.close();
  }
  ensure(ended !== null && ended.error === null, `it ended with ${ended?.error}`);
}

/** The service's no is the end, with its code, for a loop and for listeners. */
export async function refused({ connect }, address, options) {
  const topics = ["quote/synthetic/NO-SUCH"];
  const loop = async () => {
    for await (const message of connect(address, { ...options, topics })) ensure("op" in message, "an event");
  };
  const thrown = await within(
    WAIT_MS,
    "an error",
    loop().then(
      () => null,
      (error) => error,
    ),
  );
  ensure(thrown?.code === "unknown_topic", `it throws ${thrown}`);
  const feed = connect(address, { ...options, topics });
  const end = await within(WAIT_MS, "an end", new Promise((resolve) => feed.on("end", resolve)));
  ensure(end?.code === "unknown_topic", `it ended with ${end}`);
}

/** From here on every trade comes: where topics are asked for over the connection itself, once that is answered. */
export const isJoined = (message, feed) =>
  feed.cursor !== null && (feed.over === "sse" || feed.over === "poll" || message.op === "subscribed");

/** Whoever takes nothing for a while has every trade all the same; where the transport cannot wait it is told that it was behind. */
export async function slow({ connect, isOf }, address, options) {
  const topics = ["trade/synthetic/*", "book/synthetic/*"];
  const feed = connect(address, { ...options, topics, inbox: { messagesMax: 64 } });
  const trades = [];
  const waits = options.over === "sse" || options.over === "poll" || options.over === "webtransport";
  let [start, pauses, behind] = [null, 0, 0];
  const pause = async () => {
    // As long as it takes to fall behind; what can wait does so for a moment.
    for (let turn = 0; waits ? turn < 30 : feed.state !== "behind"; turn += 1)
      await new Promise((resolve) => setTimeout(resolve, 10));
  };
  const loop = (async () => {
    for await (const message of feed) {
      if (start === null && isJoined(message, feed)) start = feed.cursor;
      if (message.state === "behind") behind += 1;
      ensure(message.op !== "gap", JSON.stringify(message));
      if (!isOf(message, "trade")) continue;
      trades.push(message);
      if (pauses < 3 && trades.length > pauses * 15) {
        pauses += 1;
        await pause();
      } else if (pauses === 3 && trades.length > 80 && (waits || behind > 0)) return;
    }
  })();
  await within(WAIT_MS, "80 trades", loop);
  ensure(!waits || behind === 0, `${behind} times behind`);
  const from = Number(start.split("-").at(-1));
  await complete(
    { connect, isOf },
    address,
    options,
    start,
    trades.filter(({ seq }) => seq > from),
  );
}

/** States by an unreliable way: whole, never going back, and right. */
export async function datagrams({ connect, isEvent, isOf }, address, options) {
  const topics = ["quote/synthetic/*", "trade/synthetic/*"];
  const feed = connect(address, { ...options, topics, delivery: "datagram" });
  const last = new Map();
  const shown = new Map();
  let [quotes, trades, snapshot] = [0, 0, null];
  const quoteOf = ({ bid, bid_size, ask, ask_size }) => JSON.stringify([bid, bid_size, ask, ask_size]);
  await take(feed, (message) => {
    if (isOf(message, "trade")) trades += 1;
    if (isEvent(message) && isOf(message, "quote")) {
      ensure(message.kind === "snapshot" && message.prev === 0, `${message.kind} after ${message.prev}`);
      ensure(message.seq >= (last.get(message.topic) ?? 0), "it goes back");
      last.set(message.topic, message.seq);
      shown.set(`${message.topic} ${message.seq}`, quoteOf(message));
      quotes += 1;
      if (quotes === 100) get(address, "/v1/snapshot?topics=quote/synthetic/*").then((whole) => (snapshot = whole));
    }
    return trades > 0 && snapshot?.events.every(({ topic, seq }) => last.get(topic) >= seq);
  });
  for (const event of snapshot.events) {
    const value = shown.get(`${event.topic} ${event.seq}`);
    ensure(
      value === undefined || value === quoteOf(event),
      `${event.topic}: ${value}, the snapshot says ${quoteOf(event)}`,
    );
  }
}
