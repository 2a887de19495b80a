/** Requests that wait for their answers. */

import { REQUESTS_MAX } from "./limits.js";
import { TickerError } from "./failure.js";

export interface Waiting {
  resolve(value: string | undefined): void;
  reject(error: TickerError): void;
}

/** What a request was for. */
export type Purpose = "join" | "subscribe" | "unsubscribe" | "limit" | "reachable";

interface Asked extends Waiting {
  readonly purpose: Purpose;
  readonly topics: readonly string[];
}

export class Requests {
  #asked = new Map<number, Asked>();
  // 0 is the id of what has none.
  #last = 0;

  id(): number {
    this.#last += 1;
    return this.#last;
  }

  ask(id: number, purpose: Purpose, topics: readonly string[] = [], waiting?: Waiting): void {
    if (this.#asked.size >= REQUESTS_MAX)
      throw new TickerError(`${REQUESTS_MAX} requests wait for their answers already`);
    this.#asked.set(id, { purpose, topics, resolve: () => {}, reject: () => {}, ...waiting });
  }

  /** Takes what was asked with that id. */
  take(id: number): Asked | undefined {
    const asked = this.#asked.get(id);
    this.#asked.delete(id);
    return asked;
  }

  has(purpose: Purpose): boolean {
    for (const asked of this.#asked.values()) if (asked.purpose === purpose) return true;
    return false;
  }

  /** Takes them all: their connection is gone. */
  takeAll(): Asked[] {
    const all = [...this.#asked.values()];
    this.#asked.clear();
    return all;
  }
}
