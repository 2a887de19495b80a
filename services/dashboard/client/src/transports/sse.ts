/**
 * Server-sent events, read with `fetch`: an `EventSource` hides the status of a refusal, connects again by rules of its own, and
 * cannot wait for a slow reader.
 */

import { TickerError, fromResponse, lost, textOf } from "../failure.js";
import { EventParser } from "../lines.js";
import { queryOf } from "../query.js";
import type { Platform, Way } from "../transport.js";

export function overSse({ edge, fetch }: Platform): Way {
  return {
    isDuplex: false,
    tells: true,
    waits: true,
    open(subscription, sink) {
      const stop = new AbortController();
      const read = async (): Promise<void> => {
        const headers = edge.headers({ accept: "text/event-stream" });
        const url = edge.at("/v1/stream", queryOf(subscription, "from"));
        const response = await fetch(url, { headers, signal: stop.signal, cache: "no-store" });
        if (!response.ok) throw await fromResponse(response);
        const kind = response.headers.get("content-type") ?? "nothing";
        if (!kind.startsWith("text/event-stream") || !response.body)
          throw lost(`an answer of ${kind} where events were expected`);
        sink.opened();
        const [reader, decoder, parser] = [response.body.getReader(), new TextDecoder(), new EventParser()];
        for (;;) {
          const { value, done } = await reader.read();
          if (done || stop.signal.aborted) return;
          const events = parser.push(decoder.decode(value, { stream: true }));
          // Comments are signs of life.
          if (events.length === 0) sink.message(null);
          for (const { data, id } of events) sink.message(data === "" ? null : data, id);
          await sink.room();
        }
      };
      const end = (error: TickerError): void => {
        if (!stop.signal.aborted) {
          stop.abort();
          sink.closed(error);
        }
      };
      read().then(
        () => end(lost("the stream ended")),
        (error: unknown) => end(error instanceof TickerError ? error : lost(textOf(error), error)),
      );
      return { close: () => stop.abort() };
    },
  };
}
