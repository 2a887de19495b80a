import assert from "node:assert/strict";
import { test } from "node:test";
import { TickerError } from "../dist/failure.js";
import { Stage, event, quote, trade, welcome } from "./stage.mjs";

const lost = () => new TickerError("cable cut");
const subscribes = (link) => link.sent.filter(({ op }) => op === "subscribe");

test("a session asks, and gives what comes, with the cursor of each", () => {
  const stage = new Stage({ wishes: { recent: 5 } });
  stage.accept();
  stage.say(trade(7));
  assert.deepEqual(subscribes(stage.link), [{ op: "subscribe", id: 1, topics: ["trade/x/A"], recent: 5 }]);
  const items = stage.take();
  assert.deepEqual(
    items.map(({ message }) => message.op ?? message.seq),
    ["connection", "connection", "welcome", "subscribed", 7],
  );
  assert.deepEqual(
    items.slice(3).map(({ cursor }) => cursor),
    ["e-5", "e-7"],
  );
});

test("after a loss it goes on from the cursor, without what is asked for once", () => {
  const stage = new Stage({ wishes: { recent: 5 } });
  stage.accept();
  stage.say(trade(7));
  stage.link.sink.closed(lost());
  assert.equal(stage.links[0].isClosed, true);
  assert.equal(stage.links.length, 1);
  stage.clock.advance(375);
  assert.equal(stage.links.length, 2, "half of 500 ms, and half of the rest");
  stage.accept("e-9");
  assert.deepEqual(subscribes(stage.link), [{ op: "subscribe", id: 2, topics: ["trade/x/A"], from: "e-7" }]);
  const notices = stage.messages().filter(({ op }) => op === "connection");
  assert.deepEqual(
    notices.map(({ state, resumed }) => [state, resumed]),
    [
      ["connecting", undefined],
      ["open", false],
      ["lost", undefined],
      ["connecting", undefined],
      ["open", true],
    ],
  );
});

test("waits double up to a limit, and begin anew once something has come", () => {
  const stage = new Stage({ retry: { firstMs: 100, maxMs: 1_000 } });
  const waits = [];
  for (let failure = 0; failure < 6; failure += 1) {
    stage.link.sink.closed(lost());
    waits.push(stage.messages().find(({ state }) => state === "lost").retry_ms);
    stage.clock.advance(waits.at(-1));
  }
  assert.deepEqual(waits, [75, 150, 300, 600, 750, 750]);
  stage.accept();
  stage.link.sink.closed(lost());
  assert.equal(stage.messages().find(({ state }) => state === "lost").retry_ms, 75);
});

test("a transport that fails twice gives way to the next, and the cursor goes with it", () => {
  const stage = new Stage({}, { over: ["webtransport", "ws", "sse", "poll"] });
  stage.accept();
  stage.say(trade(8));
  const fail = () => {
    stage.link.sink.closed(lost());
    stage.clock.advance(stage.messages().find(({ state }) => state === "lost").retry_ms);
  };
  for (let failure = 0; failure < 3; failure += 1) fail(); // twice what has worked, once what has not
  assert.deepEqual(
    stage.links.map(({ over }) => over),
    ["webtransport", "webtransport", "ws", "sse"],
  );
  assert.equal(stage.link.over, "sse");
  assert.deepEqual(stage.link.subscription, { topics: ["trade/x/A"], from: "e-8" });
  stage.link.sink.opened();
  stage.say(trade(9), "e-9");
  assert.equal(stage.session.over, "sse", "what works is kept");
  fail();
  assert.equal(stage.link.over, "sse");
  assert.equal(stage.link.subscription.from, "e-9");
});

test("a way that is not there is left at once, and not tried again", () => {
  const stage = new Stage({}, { over: ["rtc", "ws"] });
  stage.link.sink.closed(new TickerError("off here", { code: "not_implemented" }));
  stage.clock.advance(0);
  assert.equal(stage.link.over, "ws");
  for (let failure = 0; failure < 4; failure += 1) {
    stage.link.sink.closed(lost());
    stage.clock.advance(20_000);
  }
  assert.equal(stage.link.over, "ws");
});

test("the service's own no is the end, over whichever transport", () => {
  const stage = new Stage({}, { over: ["ws", "sse"] });
  stage.link.sink.opened();
  stage.say(welcome("e-5"));
  stage.say({ op: "error", id: 1, code: "unknown_topic", message: "no instrument x:A" });
  assert.equal(stage.session.phase, "closed");
  assert.equal(stage.session.error.code, "unknown_topic");
  assert.equal(stage.clock.armed, 0, "no timer is left");
});

test("a topic that was known is waited for, because a service that starts may not know it yet", () => {
  const stage = new Stage();
  stage.accept();
  stage.link.sink.closed(lost());
  stage.clock.advance(1_000);
  stage.link.sink.opened();
  stage.say({ op: "error", id: 2, code: "unknown_topic", message: "no instrument x:A" });
  assert.equal(stage.session.phase, "waiting");
});

test("a goodbye is followed at its time", () => {
  const stage = new Stage();
  stage.accept();
  stage.say({ op: "goodbye", reason: "draining", cursor: "e-12", retry_ms: 3_712 });
  assert.equal(stage.link.isClosed, true);
  stage.clock.advance(3_711);
  assert.equal(stage.links.length, 1);
  stage.clock.advance(1);
  assert.equal(stage.links.length, 2);
  stage.accept("e-20");
  assert.equal(subscribes(stage.link)[0].from, "e-12");
});

test("a connection that is mute is left after three heartbeats", () => {
  const stage = new Stage();
  stage.accept();
  stage.clock.advance(2_000);
  stage.say({ op: "heartbeat", cursor: "e-6", conflated: 0 });
  stage.clock.advance(2_999);
  assert.equal(stage.session.phase, "open");
  stage.clock.advance(1);
  assert.equal(stage.session.phase, "waiting");
});

test("a connection that does not answer is left after its time, sooner where there is another way", () => {
  for (const [over, ms] of [
    [["ws"], 10_000],
    [["webtransport", "ws"], 4_000],
  ]) {
    const stage = new Stage({}, { over });
    stage.link.sink.opened();
    stage.clock.advance(ms - 1);
    assert.equal(stage.session.phase, "connecting");
    stage.clock.advance(1);
    assert.equal(stage.session.phase, "waiting");
  }
});

test("an event that comes again after a loss is not given twice", () => {
  const stage = new Stage({ from: "e-5" });
  stage.link.sink.opened();
  stage.say(welcome("e-100"));
  stage.say(trade(50));
  stage.link.sink.closed(lost());
  stage.clock.advance(1_000);
  assert.equal(stage.links.length, 2);
  stage.link.sink.opened();
  assert.equal(subscribes(stage.link)[0].from, "e-5", "the backfill was not over");
  stage.say(welcome("e-100"));
  stage.say(trade(50));
  stage.say(trade(51));
  stage.say({ op: "subscribed", id: 2, topics: [], cursor: "e-101" });
  const items = stage.take().filter(({ message }) => message.topic);
  assert.deepEqual(
    items.map(({ message }) => message.seq),
    [50, 51],
  );
});

test("nobody takes anything: it waits, and goes on from the cursor without a hole", () => {
  const stage = new Stage({ inbox: { messagesMax: 8 } });
  stage.accept();
  for (let seq = 6; !stage.link.isClosed; seq += 1) stage.say(trade(seq));
  assert.equal(stage.session.phase, "behind");
  stage.clock.advance(60_000);
  assert.equal(stage.links.length, 1, "while nothing is taken nothing is asked for");
  const items = stage.take();
  assert.equal(stage.links.length, 2);
  stage.accept("e-50");
  const last = items.filter(({ message }) => message.topic).at(-1).message.seq;
  assert.equal(subscribes(stage.link)[0].from, `e-${last}`);
  assert.ok(
    items.some(({ message }) => message.state === "behind"),
    "it is told",
  );
});

test("states that wait give way to newer ones, and the next heartbeat tells how many", () => {
  const stage = new Stage({ topics: ["quote/x/A", "trade/x/A"], inbox: { conflateAbove: 0 } });
  stage.accept();
  stage.take();
  stage.say(quote(6, "snapshot"));
  stage.say(quote(7));
  stage.say(trade(8));
  stage.say(quote(9));
  stage.say({ op: "heartbeat", cursor: "e-9", conflated: 3 });
  const items = stage.take();
  assert.deepEqual(
    items.map(({ message }) => message.seq ?? message.conflated),
    [8, 9, 5],
  );
  assert.equal(items[1].message.kind, "snapshot", "it stands for the snapshot that gave way");
  assert.deepEqual(
    items.map(({ cursor }) => cursor),
    ["e-8", "e-9", "e-9"],
  );
  assert.equal(stage.session.conflated, 5);
});

test("with conflate: false nothing gives way", () => {
  const stage = new Stage({ topics: ["quote/x/A"], wishes: { conflate: false }, inbox: { conflateAbove: 0 } });
  stage.accept();
  stage.take();
  for (let seq = 6; seq < 10; seq += 1) stage.say(quote(seq));
  assert.equal(stage.messages().length, 4);
});

test("closed bars are events, running ones states", () => {
  const stage = new Stage({ topics: ["bar-1s/x/A"], inbox: { conflateAbove: 0 } });
  stage.accept();
  stage.take();
  const bar = (seq, closed) => stage.say(event("bar-1s/x/A", seq, "update", { closed }));
  bar(6, false);
  bar(7, true);
  bar(8, false);
  bar(9, false);
  bar(10, true);
  assert.deepEqual(
    stage.messages().map(({ seq }) => seq),
    [6, 7, 9, 10],
  );
});

test("topics come and go while it runs", async () => {
  const stage = new Stage();
  stage.accept();
  const good = stage.session.subscribe(["trade/x/B"]);
  const bad = stage.session.subscribe(["trade/x/NO"]);
  assert.deepEqual(
    stage.link.sent.slice(1).map(({ id, topics, from }) => [id, topics[0], from]),
    [
      [2, "trade/x/B", undefined],
      [3, "trade/x/NO", undefined],
    ],
  );
  stage.say({ op: "subscribed", id: 2, topics: ["trade/x/B"], cursor: "e-6" });
  stage.say({ op: "error", id: 3, code: "unknown_topic", message: "no" });
  await good;
  await assert.rejects(bad, { code: "unknown_topic" });
  assert.deepEqual(stage.session.topics, ["trade/x/A", "trade/x/B"]);
  const gone = stage.session.unsubscribe(["trade/x/A"]);
  stage.say({ op: "unsubscribed", id: 4, topics: ["trade/x/A"] });
  await gone;
  stage.link.sink.closed(lost());
  stage.clock.advance(1_000);
  stage.accept("e-9");
  assert.deepEqual(subscribes(stage.link)[0].topics, ["trade/x/B"]);
});

test("without a way back, other topics are another connection from the cursor", async () => {
  const stage = new Stage({}, { over: ["sse"] });
  stage.link.sink.opened();
  stage.say(trade(7), "e-7");
  const more = stage.session.subscribe(["trade/x/B"]);
  assert.equal(stage.links[0].isClosed, true);
  assert.deepEqual(stage.link.subscription, { topics: ["trade/x/A", "trade/x/B"], from: "e-7" });
  stage.link.sink.opened();
  stage.say(trade(8), "e-8");
  await more;
  const bad = stage.session.subscribe(["trade/x/NO"]);
  stage.link.sink.closed(new TickerError("no", { code: "unknown_topic" }));
  await assert.rejects(bad, { code: "unknown_topic" });
  assert.deepEqual(stage.link.subscription.topics, ["trade/x/A", "trade/x/B"], "the others go on");
});

test("a subscription that was not answered is asked for again", async () => {
  const stage = new Stage();
  stage.accept();
  const more = stage.session.subscribe(["trade/x/B"]);
  stage.link.sink.closed(lost());
  stage.clock.advance(1_000);
  stage.accept("e-9");
  await more;
  assert.deepEqual(subscribes(stage.link)[0].topics, ["trade/x/A", "trade/x/B"]);
});

test("topics that are named at once go with the first request", async () => {
  const stage = new Stage();
  const more = stage.session.subscribe(["trade/x/B"]);
  stage.accept();
  await more;
  assert.equal(stage.links.length, 1);
  assert.deepEqual(subscribes(stage.link)[0].topics, ["trade/x/A", "trade/x/B"]);
});

test("what may be lost never goes back", () => {
  const stage = new Stage({ topics: ["quote/x/A"], wishes: { delivery: "datagram" } });
  stage.accept();
  stage.take();
  for (const seq of [7, 9, 8, 9, 10]) stage.say(quote(seq, "snapshot"));
  assert.deepEqual(
    stage.messages().map(({ seq }) => seq),
    [7, 9, 9, 10],
  );
  assert.equal(stage.session.phase, "open");
});

test("what is not as the contract says is the end, where there is no other way", () => {
  for (const text of ["{", "[]", "7", '{"topic":1}', '{"topic":"a/b/c","seq":1.5,"kind":"update"}']) {
    const stage = new Stage();
    stage.link.sink.opened();
    stage.link.sink.message(text);
    assert.equal(stage.session.phase, "closed", text);
    assert.equal(stage.session.error.isProtocol, true);
  }
});

test("a new network is tried without waiting", () => {
  const stage = new Stage();
  stage.link.sink.closed(lost());
  stage.session.networkChanged();
  assert.equal(stage.links.length, 2);
  stage.accept();
  stage.link.moves = () => true;
  stage.session.networkChanged();
  assert.equal(stage.links.length, 2, "this one moves");
});

test("close frees everything, and what was asked is told", async () => {
  const stage = new Stage();
  stage.accept();
  const more = stage.session.subscribe(["trade/x/B"]);
  stage.session.close();
  await assert.rejects(more);
  assert.equal(stage.clock.armed, 0);
  assert.equal(stage.link.isClosed, true);
  stage.say(trade(7));
  stage.link.sink.closed(lost());
  assert.equal(stage.session.take(), undefined);
  assert.equal(stage.links.length, 1);
  await assert.rejects(stage.session.subscribe(["trade/x/C"]));
});

test("whoever is told of something may close the session there and then", () => {
  for (const until of ["connecting", "open", "lost", "welcome", "goodbye"]) {
    const stage = new Stage();
    stage.session.onNews = () => {
      for (const { op, state } of stage.messages()) if (op === until || state === until) stage.session.close();
    };
    stage.session.onNews();
    stage.accept();
    stage.say({ op: "goodbye", reason: "draining", cursor: "e-9", retry_ms: 5 });
    stage.clock.advance(60_000);
    assert.equal(stage.session.phase, "closed", until);
    assert.equal(stage.clock.armed, 0, until);
    assert.ok(
      stage.links.every(({ isClosed }) => isClosed),
      until,
    );
  }
});

test("with so many attempts and no more", () => {
  const stage = new Stage({ retry: { attemptsMax: 2 } });
  for (let failure = 0; failure < 3; failure += 1) {
    stage.link.sink.closed(lost());
    stage.clock.advance(60_000);
  }
  assert.equal(stage.session.phase, "closed");
  assert.equal(stage.links.length, 3);
});
