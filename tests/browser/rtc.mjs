// WebRTC data channels in a real browser: the session, what may be lost, an end, ICE anew, two browsers with each other.
//
//   node tests/browser/rtc.mjs http://127.0.0.1:8080
//
// Prints one line a check and exits 1 if one failed.

import { check, end, equal } from "../checks.mjs";
import { browser } from "./chromium.mjs";

const [address] = process.argv.slice(2);
if (!address) {
  console.error("usage: rtc.mjs ADDRESS");
  process.exit(2);
}
// What a page of ours would have as a library.
function install() {
  const within = (what, promise) => {
    const late = new Promise((_, reject) => setTimeout(() => reject(new Error(`${what}: not in time`)), 20_000));
    return Promise.race([promise, late]);
  };
  window.within = within;

  // Messages of a channel, one after the other; null at its end.
  window.reader = (channel) => {
    const queue = [];
    let wake = () => {};
    const put = (item) => {
      queue.push(item);
      wake();
    };
    channel.onmessage = ({ data }) => put(JSON.parse(data));
    channel.onclose = () => put(null);
    return async () => {
      while (!queue.length) await within("a message", new Promise((resolve) => (wake = resolve)));
      return queue.shift();
    };
  };

  // The page knows of addresses that are reached by UDP only, or by TCP.
  window.openRtc = async ({ query = "", live = false, negotiated = false, tcp = false } = {}) => {
    const peer = new RTCPeerConnection();
    const ids = negotiated ? [{ negotiated, id: 0 }, { negotiated, id: 1 }] : [{}, {}];
    const channel = peer.createDataChannel("ticker", ids[0]);
    const unreliable = { ordered: false, maxRetransmits: 0, ...ids[1] };
    const lossy = live ? peer.createDataChannel("ticker-live", unreliable) : null;
    const next = window.reader(channel);
    const open = (c) => c && c.readyState !== "open" && new Promise((resolve) => (c.onopen = resolve));
    await peer.setLocalDescription();
    const headers = { "content-type": "application/sdp" };
    const answer = await fetch(`/v1/rtc${query}`, { method: "POST", headers, body: peer.localDescription.sdp });
    if (answer.status !== 201) throw new Error(`${answer.status}: ${await answer.text()}`);
    const resource = answer.headers.get("location");
    const tag = answer.headers.get("etag");
    const sdp = (await answer.text()).replace(tcp ? /a=candidate:\S+ 1 udp .*\r\n/g : /a=candidate:\S+ 1 tcp .*\r\n/g, "");
    await peer.setRemoteDescription({ type: "answer", sdp });
    await within("an open channel", Promise.all([open(channel), open(lossy)]));
    const send = (message) => channel.send(JSON.stringify(message));
    return { peer, channel, lossy, next, send, resource, tag };
  };
}

const { context, close } = await browser();
const openPage = async () => {
  const page = await context.newPage();
  await page.goto(`${address}/`);
  await page.evaluate(install);
  return page;
};

try {
  const page = await openPage();

  for (const [how, negotiated] of [["in-band", false], ["agreed on", true]]) {
    await check(`a session on a channel that is ${how}`, async () => {
      const ops = await page.evaluate(async (negotiated) => {
        const { peer, next, send } = await window.openRtc({ query: `?negotiated=${negotiated}`, negotiated });
        send({ op: "subscribe", id: 1, topics: ["quote/synthetic/*"] });
        const seen = [];
        for (let updates = 0; updates < 30; ) {
          const message = await next();
          if (message.op && message.op !== "heartbeat") seen.push(message.op);
          updates += message.kind === "update" ? 1 : 0;
        }
        peer.close();
        return seen;
      }, negotiated);
      equal(ops.join(), "welcome,subscribed", "notices");
    });

    await check(`what may be lost comes on a channel of its own (${how}), as whole snapshots`, async () => {
      const got = await page.evaluate(async (negotiated) => {
        const live = true;
        const { peer, lossy, send } = await window.openRtc({ query: `?negotiated=${negotiated}`, negotiated, live });
        const next = window.reader(lossy);
        send({ op: "subscribe", id: 1, topics: ["quote/synthetic/*"], delivery: "datagram" });
        let snapshots = 0;
        for (let count = 0; count < 200; count += 1) {
          const message = await next();
          snapshots += message.kind === "snapshot" && message.prev === 0 ? 1 : 0;
        }
        peer.close();
        return snapshots;
      }, negotiated);
      equal(got, 200, "snapshots");
    });
  }

  await check("over TCP, where no UDP comes through", async () => {
    const got = await page.evaluate(async () => {
      const { peer, lossy, next, send } = await window.openRtc({ tcp: true, live: true });
      const live = window.reader(lossy);
      send({ op: "subscribe", id: 1, topics: ["quote/synthetic/*"], delivery: "datagram" });
      for (let count = 0; count < 100; count += 1) await live();
      send({ op: "ping", id: 9 });
      while ((await next()).op !== "pong");
      const stats = [...(await peer.getStats()).values()];
      const pair = stats.find((s) => s.type === "candidate-pair" && s.nominated && s.state === "succeeded");
      const { protocol } = stats.find((s) => s.id === pair.localCandidateId);
      peer.close();
      return protocol;
    });
    equal(got, "tcp", "the protocol of the pair in use");
  });

  await check("topics of the query, and DELETE ends the session", async () => {
    const ended = await page.evaluate(async () => {
      const { peer, next, resource } = await window.openRtc({ query: "?topics=quote/synthetic/*" });
      const first = await next();
      const { status } = await fetch(resource, { method: "DELETE" });
      let message = first;
      while (message) message = await next();
      const { status: again } = await fetch(resource, { method: "DELETE" });
      peer.close();
      return [first.op, status, again];
    });
    equal(ended.join(), "welcome,204,404", "welcome, DELETE, DELETE again");
  });

  await check("ICE begins anew, and the session goes on", async () => {
    const got = await page.evaluate(async () => {
      const { peer, next, send, resource, tag } = await window.openRtc();
      send({ op: "subscribe", id: 1, topics: ["quote/synthetic/*"] });
      while ((await next()).kind !== "update");
      peer.restartIce();
      const before = peer.currentRemoteDescription.sdp;
      await peer.setLocalDescription();
      const lines = peer.localDescription.sdp.split("\r\n");
      const wanted = /^a=(ice-ufrag|ice-pwd|candidate|mid)|^m=/;
      const body = lines.filter((line) => wanted.test(line)).join("\r\n") + "\r\n";
      const type = "application/trickle-ice-sdpfrag";
      const patch = (match) => fetch(resource, { method: "PATCH", headers: { "content-type": type, "if-match": match }, body });
      const stale = await patch('"of-another-run"');
      const answer = await patch("*");
      const fragment = await answer.text();
      let sdp = before;
      for (const name of ["ice-ufrag", "ice-pwd"]) {
        const line = fragment.split("\r\n").find((l) => l.startsWith(`a=${name}:`));
        sdp = sdp.replace(new RegExp(`a=${name}:.*`), line);
      }
      await peer.setRemoteDescription({ type: "answer", sdp });
      send({ op: "ping", id: 9 });
      while ((await next()).op !== "pong");
      for (let updates = 0; updates < 30; ) updates += (await next()).kind === "update" ? 1 : 0;
      const news = answer.headers.get("etag") !== tag;
      peer.close();
      return [stale.status, answer.status, news, peer.iceConnectionState];
    });
    equal(got.join(), "412,200,true,closed", "answers");
  });

  await check("candidates that come later are taken; what is no offer is refused", async () => {
    const got = await page.evaluate(async () => {
      const { peer, resource, tag } = await window.openRtc();
      const body = "a=candidate:1 1 udp 1 192.0.2.1 5 typ host\r\n";
      const headers = { "content-type": "application/trickle-ice-sdpfrag", "if-match": tag };
      const trickled = await fetch(resource, { method: "PATCH", headers, body });
      const post = (type, body) => fetch("/v1/rtc", { method: "POST", headers: { "content-type": type }, body });
      const wrong = [await post("application/json", "{}"), await post("application/sdp", "v=0\r\n"),
        await post("application/sdp", "x".repeat(20_000)), await fetch("/v1/rtc")];
      peer.close();
      return [trickled.status, ...wrong.map((r) => r.status)];
    });
    equal(got.join(), "204,415,400,413,405", "answers");
  });

  await check("20 connections one after the other, each in 3 s", async () => {
    const slowest = await page.evaluate(async () => {
      let slowest = 0;
      for (let count = 0; count < 20; count += 1) {
        const began = performance.now();
        const { peer, next } = await window.openRtc();
        if ((await next()).op !== "welcome") throw new Error("no welcome");
        slowest = Math.max(slowest, performance.now() - began);
        peer.close();
      }
      return slowest;
    });
    if (slowest > 3_000) throw new Error(`the slowest took ${slowest} ms`);
  });

  await check("two pages reach each other through the edge, and one passes its prices on", async () => {
    await page.evaluate(() => {
      // A session on a WebSocket: signals go over any.
      window.reach = async (onPeer) => {
        const socket = new WebSocket(`ws://${location.host}/v1/ws`);
        await new Promise((resolve) => (socket.onopen = resolve));
        const send = (message) => socket.send(JSON.stringify(message));
        const handlers = new Map();
        const prices = [];
        const named = new Promise((resolve, reject) => {
          socket.onmessage = async ({ data }) => {
            const message = JSON.parse(data);
            if (message.op === "error") reject(new Error(message.message));
            if (message.op !== "signal") prices.forEach((price) => price(message));
            else if (message.peer) resolve(message.peer);
            else {
              const handler = handlers.get(message.from) ?? onPeer(message.from);
              await (await handler)(message.data);
            }
          };
        });
        send({ op: "signal", id: 1, reachable: true });
        return { name: await named, send, handlers, prices };
      };
      // Both ends trickle: what the other says is taken in the order in which it comes.
      window.join = (session, to, peer) => {
        let done = Promise.resolve();
        peer.onicecandidate = ({ candidate }) => candidate && session.send({ op: "signal", id: 2, to, data: { candidate } });
        const take = async ({ description, candidate }) => {
          if (candidate) return peer.addIceCandidate(candidate);
          await peer.setRemoteDescription(description);
          if (description.type !== "offer") return;
          await peer.setLocalDescription();
          session.send({ op: "signal", id: 3, to, data: { description: peer.localDescription } });
        };
        const handler = (data) => (done = done.then(() => take(data)));
        session.handlers.set(to, handler);
        return handler;
      };
    });
    const other = await openPage();
    for (const name of ["reach", "join"]) {
      const source = await page.evaluate((name) => window[name].toString(), name);
      await other.evaluate(([name, source]) => (window[name] = eval(`(${source})`)), [name, source]);
    }
    // One that has the prices, and gives them to whoever comes.
    const name = await page.evaluate(async () => {
      const session = await window.reach((from) => {
        const peer = new RTCPeerConnection();
        peer.ondatachannel = ({ channel }) => session.prices.push((price) => channel.readyState === "open" && channel.send(JSON.stringify(price)));
        return window.join(session, from, peer);
      });
      session.send({ op: "subscribe", id: 4, topics: ["quote/synthetic/*"] });
      return session.name;
    });
    const got = await other.evaluate(async (to) => {
      const session = await window.reach(() => null);
      const peer = new RTCPeerConnection();
      window.join(session, to, peer);
      const next = window.reader(peer.createDataChannel("prices"));
      await peer.setLocalDescription();
      session.send({ op: "signal", id: 2, to, data: { description: peer.localDescription } });
      let updates = 0;
      while (updates < 50) updates += (await next()).kind === "update" ? 1 : 0;
      // Of its own session it has had no prices.
      return updates;
    }, name);
    equal(got, 50, "prices that came from the other page");
  });

  await check("nobody is reached by a wrong name, or without having agreed", async () => {
    const codes = await page.evaluate(async () => {
      const { peer, next, send } = await window.openRtc();
      const refused = async (message) => {
        send(message);
        for (;;) {
          const answer = await next();
          if (answer.op === "error") return answer.code;
          if (answer.op === "signal") return "named";
        }
      };
      const all = [];
      all.push(await refused({ op: "signal", id: 1, to: "x", data: {} }));
      all.push(await refused({ op: "signal", id: 2, reachable: true }));
      all.push(await refused({ op: "signal", id: 3, to: "x", data: {} }));
      peer.close();
      return all;
    });
    equal(codes.join(), "forbidden,named,bad_request", "answers");
  });
} finally {
  await close();
}

end();
