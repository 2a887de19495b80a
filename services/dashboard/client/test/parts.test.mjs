import assert from "node:assert/strict";
import { test } from "node:test";
import { Book, compareDecimals } from "../dist/index.js";
import { Tracker } from "../dist/cursor.js";
import { EventParser, LineParser } from "../dist/lines.js";
import { inOrder } from "../dist/transports/poll.js";
import { fragmentOf, iceServersOf, withCredentials } from "../dist/transports/whep.js";
import { Edge, queryOf } from "../dist/query.js";
import { fromClose, fromResponse } from "../dist/failure.js";
import { event, trade, welcome } from "./stage.mjs";

test("updates move the cursor, snapshots do not", () => {
  const tracker = new Tracker(null, false);
  tracker.notice(welcome("e-5"));
  tracker.event(event("quote/x/A", 9, "snapshot"));
  assert.equal(tracker.text, "e-5");
  tracker.event(event("quote/x/A", 11));
  tracker.event(trade(10));
  assert.equal(tracker.text, "e-11");
  tracker.notice({ op: "heartbeat", cursor: "e-20", conflated: 0 });
  tracker.notice({ op: "heartbeat", cursor: "e-19", conflated: 0 });
  assert.equal(tracker.text, "e-20", "it never goes back");
});

test("where topics share a place the cursor waits until it is whole", () => {
  const tracker = new Tracker(null, true);
  tracker.notice(welcome("e-5"));
  tracker.event(event("book/x/A", 11));
  assert.equal(tracker.text, "e-5", "what is derived from it may be to come");
  tracker.event(event("book-10/x/A", 11));
  tracker.event(event("book/x/A", 12));
  assert.equal(tracker.text, "e-11");
  tracker.lost();
  assert.equal(tracker.event(event("book/x/A", 12)), false, "had before");
  assert.equal(tracker.event(event("book-10/x/A", 12)), true);
});

test("a cursor that is told follows only what is told, and goes on over what does not tell", () => {
  const tracker = new Tracker(null, false);
  tracker.begins(true);
  tracker.event(trade(50));
  assert.equal(tracker.text, null);
  tracker.set("e-49");
  tracker.lost();
  tracker.begins(false);
  tracker.joins(1);
  assert.equal(tracker.event(trade(50)), false, "a told cursor may be behind what was had");
  assert.equal(tracker.event(trade(51)), true);
  assert.equal(tracker.text, "e-49");
  tracker.notice({ op: "subscribed", id: 1, topics: [], cursor: "e-60" });
  assert.equal(tracker.text, "e-60");
});

test("another epoch begins anew, and earliest gives way to the first place", () => {
  const other = new Tracker("old-500", false);
  other.notice(welcome("e-3"));
  assert.equal(other.text, "e-3");
  const earliest = new Tracker("earliest", false);
  earliest.joins(1);
  earliest.notice(welcome("e-3"));
  assert.equal(earliest.text, "earliest");
  earliest.notice({ op: "subscribed", id: 1, topics: [], cursor: "e-4" });
  assert.equal(earliest.text, "e-4");
});

test("server-sent events and lines are found wherever the text is cut", () => {
  const stream =
    ': hello\r\n\r\nretry: 1000\n\nevent: notice\nid: e-5\ndata: {"op":"x"}\n\ndata: {"a":1}\n\nid: e-7\ndata: {"ü":\ndata:2}\n\nid: e-8\n\ndata: cut';
  const expected = [
    ["e-5", '{"op":"x"}'],
    [undefined, '{"a":1}'],
    ["e-7", '{"ü":\n2}'],
    ["e-8", ""],
  ];
  for (let size = 1; size < stream.length; size += 1) {
    const parser = new EventParser();
    const events = [];
    for (let at = 0; at < stream.length; at += size) events.push(...parser.push(stream.slice(at, at + size)));
    assert.deepEqual(
      events.map(({ id, data }) => [id, data]),
      expected,
      `in pieces of ${size}`,
    );
  }
  const lines = new LineParser();
  assert.deepEqual([...lines.push("a\r\n\nb"), ...lines.push("c\nd")], ["a", "", "bc"]);
  assert.throws(() => lines.push("x".repeat(2 * 1024 * 1024)), /does not end/);
  assert.throws(() => new EventParser().push("data: 0123456789\n".repeat(200_000)), /does not end/);
});

test("an answer of a poll becomes messages in order, each with its cursor", () => {
  const cursors = (...events) => inOrder({ cursor: "e-5", events, notices: [] }).map(([, cursor]) => cursor);
  assert.deepEqual(cursors(trade(1), trade(2)), ["e-1", "e-5"]);
  assert.deepEqual(cursors(trade(2), trade(1)), [undefined, "e-5"]);
  assert.deepEqual(cursors(trade(4), trade(9)), [undefined, "e-5"]);
  assert.deepEqual(cursors(), ["e-5"]);
  const notices = [welcome("f-1"), { op: "subscribed", id: 0, topics: [], cursor: "f-1" }];
  const ops = inOrder({ cursor: "f-1", events: [trade(1)], notices }).map(([message]) => message.op);
  assert.deepEqual(ops, ["welcome", undefined, "subscribed"]);
});

test("decimals compare exactly", () => {
  const sorted = [
    "-10",
    "-1.5",
    "-1.05",
    "0",
    "0.1",
    "0.11",
    "2",
    "10.000000000000000000000001",
    "10.00000000000000000000001",
    "67123.45",
  ];
  for (let i = 0; i < sorted.length; i += 1) {
    for (let j = 0; j < sorted.length; j += 1)
      assert.equal(Math.sign(compareDecimals(sorted[i], sorted[j])), Math.sign(i - j), `${sorted[i]} ${sorted[j]}`);
  }
  assert.equal(compareDecimals("1.50", "01.5"), 0);
  assert.equal(compareDecimals("-0", "0.0"), 0);
});

test("a book is its snapshot and what changes, applied when whole", () => {
  const book = new Book();
  const at = (seq, kind, bids, asks, more) => book.apply(event("book/x/A", seq, kind, { bids, asks, ...more }));
  assert.equal(at(3, "update", [["1", "1"]], []), false);
  assert.equal(
    at(
      5,
      "snapshot",
      [
        ["9.5", "1"],
        ["10", "2"],
      ],
      [],
      { part: 1, parts: 2 },
    ),
    false,
  );
  assert.notEqual(book.invalid, null);
  assert.equal(at(5, "snapshot", [], [["11", "1"]], { part: 2, parts: 2 }), true);
  assert.equal(
    at(
      6,
      "update",
      [
        ["9.5", "0"],
        ["9.75", "3"],
      ],
      [["10.5", "1"]],
    ),
    true,
  );
  assert.deepEqual(
    [book.bids, book.asks, book.seq, book.invalid],
    [
      [
        ["10", "2"],
        ["9.75", "3"],
      ],
      [
        ["10.5", "1"],
        ["11", "1"],
      ],
      6,
      null,
    ],
  );
  book.apply(event("book/x/A", 7, "invalid", { reason: "checksum" }));
  assert.equal(book.invalid, "checksum");
  at(8, "snapshot", [["1", "1"]], []);
  assert.deepEqual([book.bids, book.asks, book.invalid], [[["1", "1"]], [], null]);
});

test("ICE servers are read from links, whatever their values hold", () => {
  const link =
    '<stun:stun.example.org>; rel="ice-server", <turn:turn.example.org:3478?transport=udp>; rel="ice-server"; ' +
    'username="17:a,b;c"; credential="x\\"y,z="; credential-type="password", <https://example.org/>; rel=help';
  assert.deepEqual(iceServersOf(link), [
    { urls: "stun:stun.example.org" },
    { urls: "turn:turn.example.org:3478?transport=udp", username: "17:a,b;c", credential: 'x"y,z=' },
  ]);
  assert.deepEqual(iceServersOf(null), []);
});

test("fragments say how ICE goes, and change only that in a description", () => {
  const sdp =
    "v=0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=ice-ufrag:old\r\na=ice-pwd:oldpwd\r\na=mid:0\r\na=setup:active\r\n";
  assert.equal(
    fragmentOf(sdp, ["candidate:1 1 udp 1 192.0.2.1 5 typ host"], true),
    "a=ice-ufrag:old\r\na=ice-pwd:oldpwd\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:0\r\na=candidate:1 1 udp 1 192.0.2.1 5 typ host\r\na=end-of-candidates\r\n",
  );
  const changed = withCredentials(sdp, "a=ice-lite\r\na=ice-ufrag:n$&w\r\na=ice-pwd:newpwd\r\n");
  assert.equal(changed, sdp.replace(":old\r", ":n$$&w\r").replace("oldpwd", "newpwd"));
  assert.throws(() => withCredentials(sdp, "a=ice-ufrag:x\r\n"), /ice-pwd/);
});

test("a subscription becomes the contract's query, a token goes where it may", () => {
  const subscription = {
    topics: ["quote/kraken/BTC-USD", "trade/*/A b&c"],
    from: "k3f9-7",
    max_rate: 4,
    fields: ["bid", "ask"],
    conflate: false,
  };
  assert.equal(
    queryOf(subscription, "from"),
    "topics=quote/kraken/BTC-USD,trade/*/A%20b%26c&from=k3f9-7&max_rate=4&fields=bid,ask&conflate=false",
  );
  const edge = new Edge("wss://example.org/base/", "secret");
  assert.equal(edge.at("/v1/poll", "a=b").href, "https://example.org/base/v1/poll?a=b");
  assert.deepEqual(edge.headers({ accept: "x" }), { accept: "x", authorization: "Bearer secret" });
  assert.equal(edge.withToken(edge.at("/v1/ws")).href, "https://example.org/base/v1/ws?token=secret");
  assert.throws(() => new Edge("ftp://example.org", undefined), /expected http/);
});

test("errors keep the contract's code, and say whether to try again", async () => {
  assert.equal(fromClose(4008, "too slow").code, "slow_consumer");
  assert.equal(fromClose(1001, "").code, "draining");
  assert.equal(fromClose(1006, "").isTransient, true);
  const told = async (status, body, headers) => fromResponse(new Response(body, { status, headers }));
  const unknown = await told(404, '{"code":"unknown_topic","detail":"no instrument"}');
  assert.deepEqual([unknown.code, unknown.message, unknown.isTransient], ["unknown_topic", "no instrument", false]);
  const draining = await told(503, "null", { "retry-after": "3" });
  assert.deepEqual([draining.code, draining.retryMs, draining.isTransient], ["draining", 3_000, true]);
  const other = await told(404, "<html>not ours</html>");
  assert.deepEqual([other.code, other.isProtocol, other.isTransient], [undefined, true, false]);
});
