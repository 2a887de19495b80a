// The watch list: live prices over Server-Sent Events or a WebSocket. No dependencies, no build step.
//
// Prices and sizes are text from the venue to the screen: nothing is parsed to a float for showing. Number() is used for
// one thing only, the direction of a move.
//
// layout: settings, decimals, instruments, rows, session (what every transport's messages mean), transports, page

const ROWS_MAX = 50;
const RATE_PER_TOPIC = 10; // what an eye can follow; the edge conflates the rest
const INSTRUMENTS_EVERY_MS = 10_000;
const NOTICES_KEPT = 30;
const RECONNECT_MS = [500, 1_000, 2_000, 5_000, 10_000, 20_000];
const CHANNELS = ["quote", "trade", "status"];
const CODES = ["bad_request", "unknown_topic", "unauthorized", "forbidden", "too_many_topics", "too_many_sessions",
  "rate_limited", "message_too_large", "slow_consumer", "draining", "not_implemented", "internal"];

const $ = (id) => document.getElementById(id);
const query = new URLSearchParams(location.search);
const token = query.get("token");
const calm = matchMedia("(prefers-reduced-motion: reduce)");

// ---- decimals -------------------------------------------------------------------------------------------------------

/** A decimal's text as [integer, digits after the point]. */
function scaled(text) {
  const [whole, fraction = ""] = text.split(".");
  return [BigInt(whole + fraction), fraction.length];
}

/** a - b, exactly. */
function subtract(a, b) {
  let [x, xd] = scaled(a);
  let [y, yd] = scaled(b);
  const digits = Math.max(xd, yd);
  x *= 10n ** BigInt(digits - xd);
  y *= 10n ** BigInt(digits - yd);
  const difference = x - y;
  const sign = difference < 0n ? "-" : "";
  const text = (difference < 0n ? -difference : difference).toString().padStart(digits + 1, "0");
  if (digits === 0) return sign + text;
  return sign + text.slice(0, -digits) + "." + text.slice(-digits);
}

/** Adds zeros up to the instrument's tick, so that columns stand still. Never takes a digit away. */
function padded(text, digits) {
  if (text == null) return "–";
  const point = text.indexOf(".");
  const have = point < 0 ? 0 : text.length - point - 1;
  if (have >= digits) return text;
  return text + (point < 0 ? "." : "") + "0".repeat(digits - have);
}

const decimals = (tick) => (typeof tick === "string" && tick.includes(".") ? tick.replace(/0+$/, "").split(".")[1].length : 0);

// ---- rows -----------------------------------------------------------------------------------------------------------

let instruments = []; // all that the edge knows
const rows = new Map(); // venue/symbol -> row, for those that are shown
const dirty = new Set();
let scheduled = false;

function newRow(instrument) {
  const element = $("row").content.firstElementChild.cloneNode(true);
  const cells = {};
  for (const cell of element.querySelectorAll("[data-cell]")) cells[cell.dataset.cell] = cell;
  element.querySelector(".symbol").textContent = instrument.symbol;
  element.querySelector(".venue").textContent =
    instrument.venue === "synthetic" ? "synthetic · not real prices" : instrument.venue;
  if (instrument.native) element.querySelector(".symbol").title = `at the venue: ${instrument.native}`;
  return {
    element, cells, digits: decimals(instrument.tick_size),
    quote: null, trade: null, status: instrument.status?.state ? instrument.status : null,
    invalid: null, // why the quote cannot be trusted; ended by its next snapshot
    fresh: false, // has this connection sent the quote's snapshot yet?
    at: -Infinity, shown: {}, flashed: {},
  };
}

function touch(row) {
  dirty.add(row);
  if (!scheduled) {
    scheduled = true;
    requestAnimationFrame(paint);
  }
}

function paint() {
  scheduled = false;
  for (const row of dirty) paintRow(row);
  dirty.clear();
}

function put(row, name, text) {
  if (row.shown[name] === text) return false;
  row.shown[name] = text;
  row.cells[name].textContent = text;
  return true;
}

function price(row, name, text) {
  const before = row.shown[name];
  if (!put(row, name, padded(text, row.digits)) || text == null || before == null || before === "–") return;
  const move = Math.sign(Number(text) - Number(before));
  const cell = row.cells[name];
  if (move === 0) return;
  const direction = move > 0 ? "up" : "down";
  const turned = cell.dataset.move !== direction;
  cell.dataset.move = direction;
  const now = performance.now();
  if (calm.matches || row.element.dataset.trust !== "now" || (!turned && now - (row.flashed[name]?.at ?? 0) < 200)) return;
  row.flashed[name]?.animation.cancel();
  const animation = cell.animate([{ backgroundColor: `var(--${direction}-flash)` }, { backgroundColor: "transparent" }], 600);
  row.flashed[name] = { at: now, animation };
}

function paintRow(row) {
  const { quote, trade, status } = row;
  let state = status?.state ?? (quote ? "unknown" : "waiting");
  let why = state === "live" ? (status.integrity ?? "") : (status?.reason ?? "");
  let trust = state === "live" || state === "unknown" ? "now" : "old";
  if (row.invalid) [state, why, trust] = ["invalid", row.invalid, "invalid"];
  else if (!session.live || !row.fresh) trust = "old";
  row.element.dataset.trust = trust;
  row.cells.state.dataset.state = state;
  put(row, "state", state);
  put(row, "why", why);
  if (quote) {
    price(row, "bid", quote.bid);
    price(row, "ask", quote.ask);
    put(row, "bidSize", quote.bid_size ?? "–");
    put(row, "askSize", quote.ask_size ?? "–");
    put(row, "spread", quote.bid != null && quote.ask != null ? padded(subtract(quote.ask, quote.bid), row.digits) : "–");
  }
  if (trade) {
    price(row, "last", trade.price);
    put(row, "lastSize", trade.size);
    row.cells.last.title = trade.side ? `taker: ${trade.side}` : "";
  }
}

function ages() {
  const now = performance.now();
  for (const row of rows.values()) {
    if (row.at !== -Infinity) put(row, "age", age((now - row.at) / 1000));
  }
}

function age(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.floor(seconds)} s`;
  if (seconds < 7_200) return `${Math.floor(seconds / 60)} min`;
  return seconds < 172_800 ? `${Math.floor(seconds / 3_600)} h` : `${Math.floor(seconds / 86_400)} days`;
}

// ---- instruments ----------------------------------------------------------------------------------------------------

async function get(path) {
  const response = await fetch(token ? `${path}?token=${encodeURIComponent(token)}` : path, { headers: { accept: "application/json" } });
  if (response.ok) return response.json();
  const problem = await response.json().catch(() => ({}));
  throw new Error(problem.detail ?? problem.title ?? `HTTP ${response.status}`);
}

async function loadInstruments() {
  const [listed, venues] = await Promise.all([get("/v1/instruments"), get("/v1/venues")]);
  instruments = listed.instruments.toSorted((a, b) => a.venue.localeCompare(b.venue) || a.symbol.localeCompare(b.symbol));
  const names = new Set(venues.venues.map((v) => (typeof v === "string" ? v : (v.venue ?? v.name))));
  for (const instrument of instruments) names.add(instrument.venue);
  names.delete("best"); // its instruments are listed by its name alone, so it has no rows here
  $("synthetic").hidden = !names.has("synthetic");
  const select = $("venue");
  const wanted = select.value || query.get("venue") || "";
  const options = [...names].filter(Boolean).sort();
  if (options.join() !== [...select.options].slice(1).map((o) => o.value).join()) {
    select.replaceChildren(new Option("all venues", ""), ...options.map((name) => new Option(name, name)));
    select.value = options.includes(wanted) ? wanted : "";
  }
  choose();
}

/** Decides which instruments are shown, and follows them. */
function choose() {
  const text = $("filter").value.trim().toUpperCase();
  const venue = $("venue").value;
  const matching = instruments.filter((i) => (!venue || i.venue === venue) &&
    (!text || text.split(/[\s,]+/).some((part) => i.symbol.includes(part) || (i.native ?? "").toUpperCase().includes(part))));
  const shown = matching.slice(0, ROWS_MAX);
  const keys = shown.map((i) => `${i.venue}/${i.symbol}`);
  $("count").textContent = instruments.length === 0 ? "No instruments yet: the service has not heard from a venue."
    : matching.length > shown.length ? `The first ${shown.length} of ${matching.length} instruments: narrow them down with the filter.`
    : `${shown.length} of ${instruments.length} instruments.`;
  if (keys.join() === [...rows.keys()].join()) return;

  const old = new Map(rows);
  rows.clear();
  shown.forEach((instrument, i) => rows.set(keys[i], old.get(keys[i]) ?? newRow(instrument)));
  $("rows").replaceChildren(...[...rows.values()].map((row) => row.element));
  follow(topicsOf(shown));
}

/** Topics, or one pattern where all of a venue's instruments are shown. */
function topicsOf(shown) {
  const gives = (i, channel) => channel === "status" || !i.channels?.length || i.channels.includes(channel);
  const topics = [];
  for (const channel of CHANNELS) {
    for (const venue of new Set(shown.map((i) => i.venue))) {
      const all = instruments.filter((i) => i.venue === venue && gives(i, channel));
      const some = shown.filter((i) => i.venue === venue && gives(i, channel));
      if (some.length === all.length && some.length > 1) topics.push(`${channel}/${venue}/*`);
      else topics.push(...some.map((i) => `${channel}/${venue}/${i.symbol}`));
    }
  }
  return topics;
}

// ---- session: what the messages mean, whichever transport brings them -----------------------------------------------

const session = {
  live: false, topics: [], cursor: null, epoch: null, heartbeatMs: 10_000, heard: 0, joining: false,
  events: 0, heartbeats: 0, conflated: 0, reconnects: 0,
};

function onEvent(event) {
  session.heard = performance.now();
  session.events += 1;
  const [channel, venue, symbol] = event.topic.split("/");
  const row = rows.get(`${venue}/${symbol}`);
  if (!row) return;
  if (channel === "quote") {
    if (event.kind === "invalid") row.invalid = event.reason ?? "unknown reason";
    if (event.kind === "snapshot") [row.invalid, row.fresh] = [null, true];
    if (!row.invalid) row.quote = event; // only a snapshot ends what `invalid` began
  } else if (channel === "trade") {
    // A correction names an earlier trade; this page shows only the last one.
    if (event.kind === "update") row.trade = event;
    else if (event.kind === "correction" && event.ref === row.trade?.trade_id) row.trade = { ...event, trade_id: event.ref };
    else if (event.kind === "cancel" && event.ref === row.trade?.trade_id) {
      row.trade = null;
      delete row.cells.last.dataset.move;
      put(row, "last", "–");
      put(row, "lastSize", "–");
    }
  } else if (channel === "status" && event.kind !== "invalid") {
    row.status = event;
  }
  if (channel !== "status") {
    // A snapshot, or a trade from before, says what is, not that something happened just now.
    const before = event.kind === "snapshot" || session.joining ? Math.max(0, Date.now() - event.recv / 1000) : 0;
    row.at = Math.max(row.at, session.heard - before);
  }
  touch(row);
}

function onNotice(notice) {
  session.heard = performance.now();
  switch (notice.op) {
    case "welcome":
      if (session.epoch && session.epoch !== notice.epoch) session.cursor = notice.cursor;
      session.epoch = notice.epoch;
      session.heartbeatMs = notice.heartbeat_ms ?? session.heartbeatMs;
      note(`welcome: epoch ${notice.epoch}`);
      break;
    case "subscribed":
      session.joining = false;
      attempts = 0; // it worked: the next failure is a new one
      note(`subscribed at ${notice.cursor}`);
      break;
    case "heartbeat":
      session.heartbeats += 1;
      session.conflated += notice.conflated ?? 0;
      break;
    case "gap":
      note(`gap: ${notice.reason} on ${notice.topic ?? "everything"}: events are missing here`);
      break;
    case "error":
      note(`error: ${notice.code}: ${notice.message}`);
      break;
    case "goodbye":
      if (notice.cursor) session.cursor = notice.cursor;
      note(`goodbye: ${notice.reason}, back in ${((notice.retry_ms ?? 1000) / 1000).toFixed(1)} s`);
      reconnect(notice.retry_ms ?? 1000, `the edge said goodbye (${notice.reason})`);
      return;
    default:
  }
  if (notice.cursor) session.cursor = notice.cursor;
}

function note(text) {
  const item = document.createElement("li");
  const time = document.createElement("time");
  time.textContent = new Date().toLocaleTimeString();
  item.append(time, text);
  $("notices").prepend(item);
  while ($("notices").childElementCount > NOTICES_KEPT) $("notices").lastElementChild.remove();
}

// ---- transports -----------------------------------------------------------------------------------------------------

let connection = null; // { close() }
let retry = null;
let attempts = 0;

function follow(topics) {
  session.topics = topics;
  session.cursor = null; // other topics: begin with their snapshots
  attempts = 0;
  connect();
}

function connect() {
  clearTimeout(retry);
  connection?.close();
  connection = null;
  setLive(false, "connecting");
  if (session.topics.length === 0) return;
  for (const row of rows.values()) row.fresh = false;
  session.heard = performance.now();
  session.joining = true;
  const params = new URLSearchParams({ max_rate: RATE_PER_TOPIC });
  if (session.cursor) params.set("from", session.cursor);
  else params.set("recent", "1"); // the last trade, so that the column is not empty
  if (token) params.set("token", token);
  // Slashes and stars stay readable in the address.
  const topics = session.topics.map((t) => encodeURIComponent(t).replaceAll("%2F", "/")).join(",");
  const over = document.querySelector("input[name=over]:checked").value;
  connection = (over === "ws" ? openSocket : openStream)(`topics=${topics}&${params}`);
  $("over").textContent = over === "ws" ? "WebSocket" : "Server-Sent Events";
}

function reconnect(delayMs, why) {
  connection?.close();
  connection = null;
  clearTimeout(retry);
  session.reconnects += 1;
  setLive(false, "lost", `${why}; trying again`);
  retry = setTimeout(connect, delayMs);
}

function backoff() {
  const step = RECONNECT_MS[Math.min(attempts++, RECONNECT_MS.length - 1)];
  return step * (0.5 + Math.random() / 2); // spread out, so that a thousand pages do not come back at once
}

function openStream(parameters) {
  const source = new EventSource(`/v1/stream?${parameters}`);
  const id = (message) => { if (message.lastEventId) session.cursor = message.lastEventId; };
  source.onopen = () => setLive(true, "live", "connected");
  source.onmessage = (message) => { onEvent(JSON.parse(message.data)); id(message); };
  source.addEventListener("notice", (message) => { onNotice(JSON.parse(message.data)); id(message); });
  source.onerror = () => {
    // The browser reconnects by itself after a broken stream, with Last-Event-ID, but not after an HTTP error. One way
    // for both is simpler: always our own, with the cursor.
    reconnect(backoff(), "the stream ended");
  };
  return { close: () => source.close() };
}

function openSocket(parameters) {
  const socket = new WebSocket(`${location.origin.replace(/^http/, "ws")}/v1/ws?${parameters}`, "ticker.v1.json");
  let current = true;
  socket.onopen = () => setLive(true, "live", "connected");
  socket.onmessage = (message) => {
    if (!current) return;
    const value = JSON.parse(message.data);
    if (value.op) onNotice(value);
    else {
      onEvent(value);
      // Until `subscribed` older trades may still be on their way: the cursor stays where it was.
      if (!session.joining && value.kind === "update" && session.epoch) advance(value.seq);
    }
  };
  socket.onclose = (event) => {
    if (!current) return;
    const code = CODES[event.code - 4000];
    reconnect(backoff(), code ? `closed: ${code} ${event.reason}` : "the connection ended");
  };
  return { close: () => { current = false; socket.close(); } };
}

/** The cursor is the greatest seq of the updates: a conflated event may come after a later one. */
function advance(seq) {
  const at = session.cursor?.startsWith(`${session.epoch}-`) ? Number(session.cursor.slice(session.epoch.length + 1)) : 0;
  if (seq > at) session.cursor = `${session.epoch}-${seq}`;
}

function setLive(live, state, text = state) {
  session.live = live;
  $("connection").dataset.state = state;
  if ($("connection-text").textContent !== text) $("connection-text").textContent = text;
  for (const row of rows.values()) touch(row);
}

// ---- page -----------------------------------------------------------------------------------------------------------

let eventsBefore = 0;
let tickedAt = performance.now();

setInterval(() => {
  ages();
  const now = performance.now();
  // Connected but mute is the worst failure: the heartbeat's absence shows it. A page in the background is not told of
  // messages in time, so it is not judged.
  const silent = now - session.heard;
  if (session.live && !document.hidden && silent > 3 * session.heartbeatMs) {
    reconnect(backoff(), `nothing heard for ${Math.round(silent / 1000)} s`);
  }
  if (now - tickedAt < 950) return;
  $("rate").textContent = Math.round(((session.events - eventsBefore) * 1000) / (now - tickedAt)).toString();
  [eventsBefore, tickedAt] = [session.events, now];
  $("cursor").textContent = session.cursor ?? "–";
  for (const name of ["events", "heartbeats", "conflated", "reconnects"]) $(name).textContent = session[name].toLocaleString("en");
}, 250);

/** Keeps what was chosen in the address, so that it can be shared and survives a reload. */
function remember() {
  const chosen = { q: $("filter").value.trim(), venue: $("venue").value, over: document.querySelector("input[name=over]:checked").value };
  for (const [name, value] of Object.entries(chosen)) {
    if (value && !(name === "over" && value === "sse")) query.set(name, value);
    else query.delete(name);
  }
  history.replaceState(null, "", query.size ? `?${query}` : location.pathname);
}

let typing = null;
$("filter").value = query.get("q") ?? "";
if (query.get("over") === "ws") document.querySelector("input[name=over][value=ws]").checked = true;
$("filter").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => { remember(); choose(); }, 250);
});
$("venue").addEventListener("change", () => { remember(); choose(); });
$("controls").addEventListener("submit", (event) => event.preventDefault());
for (const radio of document.querySelectorAll("input[name=over]")) {
  radio.addEventListener("change", () => { remember(); attempts = 0; connect(); });
}

async function refresh() {
  try {
    await loadInstruments();
  } catch (error) {
    if (instruments.length === 0) setLive(false, "lost", `cannot list the instruments (${error.message}); trying again`);
  }
  setTimeout(refresh, instruments.length ? INSTRUMENTS_EVERY_MS : 1_000);
}
refresh();
