// HTTP/3 and WebTransport in a real browser: the page, a stream and its resume over HTTP/3; a WebTransport session without
// any flag, by the certificate's hash alone; datagrams; a session's end; 50 cold connections in a row.
//
//   node tests/browser/quic.mjs http://127.0.0.1:8080 127.0.0.1:8443
//
// Prints one line a check and exits 1 if one failed.

import { createHash, X509Certificate } from "node:crypto";
import { connect } from "node:tls";
import { chromium } from "playwright-core";
import { check, end, equal } from "../checks.mjs";
import { browser, launch } from "./chromium.mjs";

const [address, secure] = process.argv.slice(2);
if (!secure) {
  console.error("usage: quic.mjs ADDRESS TLS_HOST:PORT");
  process.exit(2);
}
const COLD = 50;
async function withPage(args, run) {
  const { page, close } = await browser({ args });
  try {
    await run(page);
  } finally {
    await close();
  }
}

// What the browser is to trust for this run: it looks at the public key, since nobody has signed the certificate.
function publicKeyHash() {
  const [host, port] = secure.split(":");
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port: Number(port), rejectUnauthorized: false }, () => {
      const certificate = new X509Certificate(socket.getPeerCertificate().raw);
      socket.destroy();
      const key = certificate.publicKey.export({ type: "spki", format: "der" });
      resolve(createHash("sha256").update(key).digest("base64"));
    });
    socket.on("error", reject);
  });
}

const trust = [`--origin-to-force-quic-on=${secure}`, `--ignore-certificate-errors-spki-list=${await publicKeyHash()}`];
await withPage(trust, async (page) => {
  await check("the page comes over HTTP/3", async () => {
    await page.goto(`https://${secure}/`);
    equal(await page.evaluate(() => performance.getEntriesByType("navigation")[0].nextHopProtocol), "h3", "protocol");
  });
  await check("EventSource over HTTP/3, and a streaming fetch that goes on from its cursor", async () => {
    const got = await page.evaluate(async () => {
      const topics = "topics=trade/synthetic/*";
      const cursor = await new Promise((resolve, reject) => {
        const source = new EventSource(`/v1/stream?${topics}`);
        setTimeout(() => reject(new Error("no trades in time")), 30_000);
        let count = 0;
        source.onmessage = (message) => {
          count += 1;
          if (count === 10) {
            source.close();
            resolve(message.lastEventId);
          }
        };
      });
      const abort = new AbortController();
      const headers = { accept: "application/x-ndjson" };
      const answer = await fetch(`/v1/stream?${topics}&from=${cursor}`, { headers, signal: abort.signal });
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      while (!text.includes('"kind":"update"') || !text.endsWith("\n")) text += (await reader.read()).value;
      abort.abort();
      const first = text.split("\n").map((line) => line && JSON.parse(line)).find((message) => message.seq);
      return { after: Number(cursor.split("-")[1]), seq: first.seq };
    });
    if (!(got.seq > got.after)) throw new Error(`${got.seq} is not after ${got.after}`);
  });
  await check("100 fetches at once", async () => {
    const ok = await page.evaluate(async () => {
      const all = Array.from({ length: 100 }, () => fetch("/v1/snapshot?topics=quote/synthetic/*"));
      return (await Promise.all(all)).filter((answer) => answer.ok).length;
    });
    equal(ok, 100, "answers");
  });
});

// Each context has no connection, no ticket and no cache of another.
await check(`${COLD} cold connections in a row, HTTP/3 and WebTransport, none hangs`, async () => {
  const cold = await chromium.launch({ ...launch, args: [...launch.args, ...trust] });
  const times = [];
  try {
    for (let turn = 0; turn < COLD; turn += 1) {
      const context = await cold.newContext({ ignoreHTTPSErrors: false });
      const page = await context.newPage();
      const began = performance.now();
      await page.goto(`https://${secure}/favicon.svg`, { timeout: 10_000 });
      times.push(performance.now() - began);
      const got = await page.evaluate(async () => {
        const protocol = performance.getEntriesByType("navigation")[0].nextHopProtocol;
        const { hashes } = await (await fetch("/v1/certificate-hashes")).json();
        const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
        const serverCertificateHashes = hashes.map((h) => ({ algorithm: h.algorithm, value: bytes(h.value) }));
        const session = new WebTransport(`https://${location.host}/v1/wt`, { serverCertificateHashes });
        const late = new Promise((_, reject) => setTimeout(() => reject(new Error("it hangs")), 10_000));
        await Promise.race([session.ready, late]);
        session.close();
        return protocol;
      });
      equal(got, "h3", `protocol of connection ${turn}`);
      await context.close();
    }
  } finally {
    await cold.close();
  }
  times.sort((a, b) => a - b);
  console.log(`     first byte of ${COLD}: median ${times[COLD >> 1].toFixed(0)} ms, slowest ${times.at(-1).toFixed(0)} ms`);
});

// No flag of any kind: by the certificate's hash.
await withPage([], async (page) => {
  await page.goto(`${address}/`);
  await page.evaluate(() => {
    window.openSession = async () => {
      const { port, hashes } = await (await fetch("/v1/certificate-hashes")).json();
      const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
      const serverCertificateHashes = hashes.map((h) => ({ algorithm: h.algorithm, value: bytes(h.value) }));
      const session = new WebTransport(`https://${location.hostname}:${port}/v1/wt`, { serverCertificateHashes });
      await session.ready;
      const stream = await session.createBidirectionalStream();
      const writer = stream.writable.getWriter();
      const send = (text) => writer.write(new TextEncoder().encode(text));
      const reader = stream.readable.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      const next = async () => {
        while (!rest.includes("\n")) {
          const { value, done } = await reader.read();
          if (done) return null;
          rest += value;
        }
        const end = rest.indexOf("\n");
        const message = JSON.parse(rest.slice(0, end));
        rest = rest.slice(end + 1);
        return message;
      };
      return { session, send, next };
    };
  });
  await check("a WebTransport session on localhost with no flag", async () => {
    const ops = await page.evaluate(async () => {
      const { session, send, next } = await window.openSession();
      await send('{"op":"subscribe","id":1,"topics":["quote/synthetic/*"]}\n');
      const seen = [];
      for (let updates = 0; updates < 30; ) {
        const message = await next();
        if (message.op) seen.push(message.op);
        updates += message.kind === "update" ? 1 : 0;
      }
      session.close();
      return seen;
    });
    equal(ops.join(), "welcome,subscribed", "notices");
  });
  await check("200 datagrams, each a whole snapshot", async () => {
    const got = await page.evaluate(async () => {
      const { session, send } = await window.openSession();
      await send('{"op":"subscribe","id":1,"topics":["quote/synthetic/*"],"delivery":"datagram"}\n');
      const reader = session.datagrams.readable.getReader();
      let snapshots = 0;
      for (let count = 0; count < 200; count += 1) {
        const message = JSON.parse(new TextDecoder().decode((await reader.read()).value));
        snapshots += message.kind === "snapshot" && message.prev === 0 ? 1 : 0;
      }
      session.close();
      return snapshots;
    });
    equal(got, 200, "snapshots");
  });
  await check("the end of a session has the contract's code and a cursor", async () => {
    const end = await page.evaluate(async () => {
      const { session, send, next } = await window.openSession();
      // The session may end before all of it is written, or before its last words are read.
      await send("x".repeat(70_000)).catch(() => {});
      for (let more = true; more; ) more = await next().catch(() => false);
      const { closeCode, reason } = await session.closed;
      return `${closeCode} ${reason}`;
    });
    if (!/^4007 message_too_large \w+-\d+$/.test(end)) throw new Error(end);
  });
  await check("20 sessions one after the other", async () => {
    const opened = await page.evaluate(async () => {
      let count = 0;
      for (; count < 20; count += 1) {
        const { session, next } = await window.openSession();
        if ((await next()).op !== "welcome") break;
        session.close();
      }
      return count;
    });
    equal(opened, 20, "sessions");
  });
});

end();
