// The form of WHEP, against an edge and a peer connection that are made up.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Edge } from "../dist/query.js";
import { overRtc } from "../dist/transports/rtc.js";
import { FakeClock } from "./stage.mjs";

const sdpOf = (ufrag) =>
  `v=0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=ice-ufrag:${ufrag}\r\na=ice-pwd:pwd-of-${ufrag}\r\na=mid:0\r\n`;
const soon = () => new Promise((resolve) => setImmediate(resolve));

class FakePeer {
  static last;
  channels = [];
  calls = [];
  runs = 1;
  iceConnectionState = "new";
  constructor(configuration) {
    this.configuration = configuration;
    FakePeer.last = this;
  }
  createDataChannel(label, options) {
    const channel = { label, options, readyState: "connecting", sent: [], send: (text) => channel.sent.push(text) };
    this.channels.push(channel);
    return channel;
  }
  createOffer = async () => ({ type: "offer", sdp: sdpOf(`reader${this.runs}`) });
  setConfiguration = (configuration) => this.calls.push(["configuration", configuration.iceServers.length]);
  setLocalDescription = async (description) => {
    this.localDescription = description;
    this.calls.push(["local", description.type]);
  };
  setRemoteDescription = async (description) => {
    this.remoteDescription = description;
    this.calls.push(["remote", /ice-ufrag:(\w+)/.exec(description.sdp)[1]]);
  };
  restartIce = () => (this.runs += 1);
  close = () => this.calls.push(["close"]);
  ice(state) {
    this.iceConnectionState = state;
    this.oniceconnectionstatechange();
  }
}

function stage({
  isLite = false,
  patch = () => new Response("a=ice-ufrag:edge2\r\na=ice-pwd:other\r\n", { status: 200, headers: { etag: '"2"' } }),
} = {}) {
  const requests = [];
  const fetch = async (url, { method, headers, body }) => {
    requests.push({ method, path: url.pathname + url.search, match: headers["if-match"], body });
    if (method === "POST") {
      const link = '<turn:turn.example.org>; rel="ice-server"; username="u"; credential="c"';
      return new Response((isLite ? "a=ice-lite\r\n" : "") + sdpOf("edge1"), {
        status: 201,
        headers: { location: "/v1/rtc/abc", etag: '"1"', link },
      });
    }
    if (method === "PATCH") return body.includes("candidate") ? new Response(null, { status: 204 }) : patch();
    return new Response(null, { status: 204 });
  };
  const clock = new FakeClock();
  const told = [];
  const sink = {
    opened: () => told.push("opened"),
    message: (text) => told.push(text),
    closed: (error) => told.push(error),
  };
  const platform = {
    edge: new Edge("http://edge.example:8080/base", "secret"),
    fetch,
    wantsDatagrams: true,
    iceServers: [{ urls: "stun:x" }],
    trickle: false,
  };
  const link = overRtc(platform, FakePeer, clock).open(undefined, sink);
  return { requests, clock, told, link, peer: FakePeer.last };
}

test("an offer, the servers that the answer names, the channels, an end", async () => {
  const { requests, told, link, peer } = stage({ isLite: true });
  await soon();
  assert.equal(requests[0].path, "/base/v1/rtc?negotiated=true");
  assert.deepEqual(peer.calls, [
    ["configuration", 2],
    ["local", "offer"],
    ["remote", "edge1"],
  ]);
  assert.deepEqual(
    peer.channels.map(({ label, options }) => [label, options.id, options.maxRetransmits]),
    [
      ["ticker", 0, undefined],
      ["ticker-live", 1, 0],
    ],
  );
  const [session, live] = peer.channels;
  session.readyState = "open";
  session.onopen();
  link.send({ op: "ping", id: 1 });
  session.onmessage({ data: "a" });
  live.onmessage({ data: "b" });
  assert.deepEqual([session.sent, told], [['{"op":"ping","id":1}'], ["opened", "a", "b"]]);
  link.close();
  link.close();
  session.onclose();
  session.onmessage({ data: "c" });
  assert.deepEqual(
    requests.slice(1).map(({ method, path }) => [method, path]),
    [["DELETE", "/base/v1/rtc/abc"]],
  );
  assert.equal(told.length, 3, "nothing is told after that");
});

test("candidates are told together, to whoever needs them", async () => {
  for (const isLite of [false, true]) {
    const { requests, clock, peer } = stage({ isLite });
    await soon();
    peer.onicecandidate({ candidate: { candidate: "candidate:1 x" } });
    peer.onicecandidate({ candidate: { candidate: "candidate:2 y" } });
    clock.advance(50);
    peer.onicecandidate({ candidate: null });
    clock.advance(0);
    const patches = requests.filter(({ method }) => method === "PATCH");
    if (isLite) assert.equal(patches.length, 0);
    else {
      assert.deepEqual(
        patches.map(({ match }) => match),
        ['"1"', '"1"'],
      );
      assert.match(patches[0].body, /a=candidate:1 x\r\na=candidate:2 y\r\n$/);
      assert.match(patches[1].body, /a=end-of-candidates\r\n$/);
    }
  }
});

test("candidates of a new run wait until it has its name", async () => {
  const answers = [];
  const { requests, clock, link, peer } = stage({ patch: () => new Promise((resolve) => answers.push(resolve)) });
  await soon();
  peer.ice("connected");
  link.moves();
  await soon();
  peer.onicecandidate({ candidate: { candidate: "candidate:1 x" } });
  clock.advance(500);
  const patches = () => requests.filter(({ method }) => method === "PATCH");
  assert.equal(patches().length, 1);
  const headers = { etag: '"2"' };
  answers[0](new Response("a=ice-ufrag:edge2\r\na=ice-pwd:other\r\n", { status: 200, headers }));
  await soon();
  clock.advance(50);
  assert.deepEqual(
    patches().map(({ match }) => match),
    ["*", '"2"'],
  );
});

test("a path that is lost: ICE begins anew, and what is connected again has all its tries again", async () => {
  const { requests, clock, told, peer } = stage({ isLite: true });
  await soon();
  for (let turn = 0; turn < 4; turn += 1) {
    peer.ice("connected");
    peer.ice("disconnected");
    peer.ice("failed");
    await soon();
  }
  peer.ice("connected");
  const patches = requests.filter(({ method }) => method === "PATCH");
  assert.equal(patches.length, 4, "one at a time");
  assert.match(patches[0].body, /a=ice-ufrag:reader2\r\n/);
  assert.deepEqual(peer.calls.at(-1), ["remote", "edge2"]);
  clock.advance(60_000);
  assert.deepEqual(told, []);
});

test("a path that stays lost is given up after two runs, and an edge that knows us no more at once", async () => {
  const stays = stage({ isLite: true });
  await soon();
  stays.peer.ice("disconnected");
  await soon();
  for (let turn = 0; turn < 3; turn += 1) {
    stays.clock.advance(5_000);
    await soon();
  }
  assert.equal(stays.requests.filter(({ method }) => method === "PATCH").length, 2);
  assert.deepEqual([stays.told.length, stays.told[0].isTransient], [1, true]);
  const gone = stage({ isLite: true, patch: () => new Response('{"code":"bad_request"}', { status: 404 }) });
  await soon();
  gone.peer.ice("disconnected");
  await soon();
  await soon();
  assert.deepEqual([gone.told.length, gone.told[0].isTransient], [1, true], "it is offered again");
  assert.equal(gone.clock.armed, 0);
});

test("who was connected all along needs no second run", async () => {
  const { requests, clock, link, peer } = stage({ isLite: true });
  await soon();
  peer.ice("connected");
  assert.equal(link.moves(), true);
  await soon();
  clock.advance(60_000);
  await soon();
  assert.equal(requests.filter(({ method }) => method === "PATCH").length, 1);
});
