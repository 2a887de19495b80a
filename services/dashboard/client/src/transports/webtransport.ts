/** WebTransport: one bidirectional stream carries the session, one JSON object a line; datagrams carry what may be lost. */

import { TickerError, fromClose, fromResponse, lost, textOf } from "../failure.js";
import { LineParser } from "../lines.js";
import type { Edge } from "../query.js";
import type { Link, Platform, Sink, Way } from "../transport.js";

/** Where the session is, and what its certificate is known by. */
async function addressOf(
  edge: Edge,
  fetch: Platform["fetch"],
  signal: AbortSignal,
): Promise<[URL, WebTransportHash[]]> {
  const response = await fetch(edge.at("/v1/certificate-hashes"), { headers: edge.headers(), signal });
  if (!response.ok) throw await fromResponse(response);
  type Told = { port: number | null; hashes: { algorithm: string; value: string }[] };
  const { port, hashes } = (await response.json()) as Told;
  if (port === null) throw new TickerError("WebTransport is off at this edge", { code: "not_implemented" });
  const url = edge.withToken(edge.at("/v1/wt"));
  // A page that came without TLS finds it at another port of the same host.
  if (url.protocol === "http:") {
    url.protocol = "https:";
    url.port = String(port);
  }
  const bytes = (text: string) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
  return [url, hashes.map(({ algorithm, value }) => ({ algorithm, value: bytes(value) }))];
}

export function overWebTransport({ edge, fetch, wantsDatagrams }: Platform, Transport: typeof WebTransport): Way {
  return { isDuplex: true, tells: false, waits: true, open };

  function open(_: unknown, sink: Sink): Link {
    const stop = new AbortController();
    let transport: WebTransport | null = null;
    let writer: WritableStreamDefaultWriter<Uint8Array> | null = null;

    const write = (text: string): void => {
      // If it cannot be written the session is over, and says so.
      writer?.write(new TextEncoder().encode(text)).catch(() => {});
    };
    const end = (error: unknown): void => {
      if (stop.signal.aborted) return;
      stop.abort();
      transport?.close();
      sink.closed(error instanceof TickerError ? error : lost(textOf(error), error));
    };
    const run = async (): Promise<void> => {
      const [url, serverCertificateHashes] = await addressOf(edge, fetch, stop.signal);
      if (stop.signal.aborted) return;
      const session = (transport = new Transport(url, { serverCertificateHashes }));
      // The stream's end comes with the session's, and the session's says why.
      const over = session.closed.then(
        ({ closeCode = 0, reason = "" }) => fromClose(closeCode, reason),
        (error: unknown) => lost(textOf(error), error),
      );
      await session.ready;
      const stream = await session.createBidirectionalStream();
      if (stop.signal.aborted) return session.close();
      writer = stream.writable.getWriter() as WritableStreamDefaultWriter<Uint8Array>;
      // The edge sees a stream once something comes on it; a blank line is nothing.
      write("\n");
      sink.opened();
      if (wantsDatagrams) datagrams(session).catch(() => {});
      try {
        await lines(stream.readable as ReadableStream<Uint8Array>);
      } catch (error) {
        if (error instanceof TickerError) throw error;
      }
      throw await over;
    };
    const lines = async (readable: ReadableStream<Uint8Array>): Promise<void> => {
      const [reader, decoder, parser] = [readable.getReader(), new TextDecoder(), new LineParser()];
      for (;;) {
        const { value, done } = await reader.read();
        if (done || stop.signal.aborted) return;
        for (const line of parser.push(decoder.decode(value, { stream: true }))) if (line !== "") sink.message(line);
        await sink.room();
      }
    };
    const datagrams = async (session: WebTransport): Promise<void> => {
      const [reader, decoder] = [session.datagrams.readable.getReader(), new TextDecoder()];
      for (;;) {
        const { value, done } = await reader.read();
        if (done || stop.signal.aborted) return;
        sink.message(decoder.decode(value as Uint8Array));
        // Meanwhile the browser keeps the newest few of what comes, and each is a whole state.
        await sink.room();
      }
    };
    run().catch(end);
    return {
      send: (request) => write(`${JSON.stringify(request)}\n`),
      close: () => {
        stop.abort();
        transport?.close();
      },
    };
  }
}
