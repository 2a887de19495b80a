/** Long polling: one request after the other, joined by the cursor. */

import { ANSWER_CHARS_MAX, POLL_GRACE_MS, POLL_WAIT_S } from "../limits.js";
import { TickerError, againstContract, fromResponse, lost, textOf } from "../failure.js";
import { isWhole, type MarketEvent, type Notice } from "../messages.js";
import { placeOf } from "../cursor.js";
import { queryOf, type Subscription } from "../query.js";
import type { Platform, Way } from "../transport.js";

export interface Answer {
  readonly cursor: string;
  readonly events: readonly MarketEvent[];
  readonly notices: readonly Notice[];
}

type Told = readonly [message: MarketEvent | Notice | null, cursor: string | undefined];

/**
 * An answer's messages in the order of a session, each with the cursor that holds after it. `welcome` and `gap` come before the
 * events of which they tell, all other notices after those that they close. An answer holds everything between two cursors, so
 * where its updates are in the order of the tape each is a place to go on from; otherwise only the end is.
 */
export function inOrder({ cursor, events, notices }: Answer): Told[] {
  const goesBefore = ({ op }: Notice): boolean => op === "welcome" || op === "gap";
  const messages = [...notices.filter(goesBefore), ...events, ...notices.filter((notice) => !goesBefore(notice))];
  const seqOf = (message: MarketEvent | Notice): number | undefined =>
    "op" in message || message.kind === "snapshot" || !isWhole(message) ? undefined : message.seq;
  const end = placeOf(cursor);
  const seqs = messages.map(seqOf).filter((seq) => seq !== undefined);
  const isSorted = end !== null && seqs.every((seq, i) => seq <= (seqs[i + 1] ?? end.seq));
  const told: Told[] = messages.map((message) => {
    const seq = seqOf(message);
    return [message, isSorted && seq !== undefined ? `${end.epoch}-${seq}` : undefined];
  });
  const last = told.pop();
  told.push([last?.[0] ?? null, cursor]);
  return told;
}

export function overPoll({ edge, fetch }: Platform): Way {
  return {
    isDuplex: false,
    tells: true,
    waits: true,
    silenceMs: POLL_WAIT_S * 1_000 + POLL_GRACE_MS,
    open(subscription, sink) {
      const stop = new AbortController();
      const ask = async (asked: Subscription, waitS: number): Promise<Answer> => {
        const wait = asked.from === undefined ? "" : `&wait=${waitS}`;
        const url = edge.at("/v1/poll", queryOf(asked, "cursor") + wait);
        const headers = edge.headers({ accept: "application/json" });
        const response = await fetch(url, { headers, signal: stop.signal, cache: "no-store" });
        if (!response.ok) throw await fromResponse(response);
        const text = await response.text();
        if (text.length > ANSWER_CHARS_MAX) throw againstContract(`an answer of ${text.length} characters`);
        const answer = JSON.parse(text) as Partial<Answer> | null;
        if (typeof answer?.cursor !== "string" || !Array.isArray(answer.events) || !Array.isArray(answer.notices)) {
          throw againstContract("an answer without cursor, events or notices");
        }
        return answer as Answer;
      };
      const run = async (): Promise<void> => {
        let asked = subscription;
        // The first answer comes at once, and tells whether the service accepts what is asked.
        for (let isFirst = true; !stop.signal.aborted; isFirst = false) {
          const answer = await ask(asked, isFirst ? 0 : POLL_WAIT_S);
          if (stop.signal.aborted) return;
          if (isFirst) sink.opened();
          for (const [message, cursor] of inOrder(answer)) {
            if (message === null) sink.message(null, cursor);
            else sink.value(message, JSON.stringify(message).length, cursor);
          }
          await sink.room();
          // Past events are asked for once.
          const { recent: _, ...rest } = asked;
          asked = { ...rest, from: answer.cursor };
        }
      };
      run().catch((error: unknown) => {
        if (stop.signal.aborted) return;
        stop.abort();
        sink.closed(error instanceof TickerError ? error : lost(textOf(error), error));
      });
      return { close: () => stop.abort() };
    },
  };
}
