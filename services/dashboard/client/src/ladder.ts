/** Which transport is tried next, and how long to wait before: a state machine without I/O. */

import {
  ATTEMPTS_PER_TRANSPORT_MAX,
  CONNECT_TIMEOUT_MS,
  FALLBACK_TIMEOUT_MS,
  RETRY_FIRST_MS,
  RETRY_MAX_MS,
} from "./limits.js";
import type { TickerError } from "./failure.js";
import type { Over } from "./messages.js";

export interface Retry {
  /** The first wait; it doubles with each failure in a row. */
  readonly firstMs?: number;
  readonly maxMs?: number;
  /** Failures in a row before it is given up. Without it, never. */
  readonly attemptsMax?: number;
}

export class Ladder {
  readonly #rungs: Over[];
  #at = 0;
  /** Failures in a row: on this rung, and in all. */
  #here = 0;
  #failures = 0;
  /** What has worked before. */
  #proven = new Set<Over>();
  /** What has failed for good since something last worked. */
  #hopeless = new Set<Over>();

  constructor(
    rungs: readonly Over[],
    private readonly retry: Retry | null,
    private readonly random: () => number,
  ) {
    this.#rungs = [...rungs];
  }

  get over(): Over {
    const over = this.#rungs[this.#at];
    if (over === undefined) throw new Error("a ladder has a rung");
    return over;
  }

  /** How long `over` may take to say its first word. */
  get timeoutMs(): number {
    return this.#rungs.length === 1 || this.#proven.has(this.over) ? CONNECT_TIMEOUT_MS : FALLBACK_TIMEOUT_MS;
  }

  /** Something came: the next failure is a new one. */
  works(): void {
    this.#here = 0;
    this.#failures = 0;
    this.#proven.add(this.over);
    this.#hopeless.clear();
  }

  /** How many milliseconds to wait before `over` is tried again; null: it is given up. */
  fails(error: TickerError, mayComeBack: boolean): number | null {
    if (this.retry === null) return null;
    this.#failures += 1;
    this.#here += 1;
    const { firstMs = RETRY_FIRST_MS, maxMs = RETRY_MAX_MS, attemptsMax = Infinity } = this.retry;
    if (this.#failures > attemptsMax) return null;
    if (!error.isTransient && !mayComeBack) {
      // The service's own no is the same over any transport; that a way is not there, or not as it should be, is not.
      if (!error.isProtocol && error.code !== "not_implemented") return null;
      this.#hopeless.add(this.over);
      if (this.#rungs.every((rung) => this.#hopeless.has(rung))) return null;
      this.#next();
      return 0;
    }
    if (this.#here >= (this.#proven.has(this.over) ? ATTEMPTS_PER_TRANSPORT_MAX : 1)) this.#next();
    if (error.retryMs !== undefined) return error.retryMs;
    const most = Math.min(firstMs * 2 ** Math.min(this.#failures - 1, 16), maxMs);
    // From half to whole, so that many readers do not come back at once.
    return Math.round(most / 2 + (most / 2) * this.random());
  }

  #next(): void {
    this.#here = 0;
    for (let step = 1; step <= this.#rungs.length; step += 1) {
      const at = (this.#at + step) % this.#rungs.length;
      const over = this.#rungs[at];
      if (over !== undefined && !this.#hopeless.has(over)) {
        this.#at = at;
        return;
      }
    }
  }
}
