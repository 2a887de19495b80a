/** A book as its events say: the snapshot, then the levels that change. */

import { compareDecimals } from "./decimal.js";
import { isWhole, type BookEvent, type Decimal, type Level } from "./messages.js";

export class Book {
  #bids = new Map<Decimal, Decimal>();
  #asks = new Map<Decimal, Decimal>();
  #isSnapshotOpen = false;
  /** The place that the book shows; 0 before there is one. */
  seq = 0;
  /** Why it can not be trusted, until the next snapshot; null while it can. */
  invalid: string | null = "no snapshot yet";

  /** An event in several messages is applied with its last one: until it is whole, `apply` says `false`. */
  apply(event: BookEvent): boolean {
    if (event.kind === "invalid") {
      this.invalid = event.reason;
      this.#isSnapshotOpen = false;
      return true;
    }
    if (event.kind === "snapshot" && !this.#isSnapshotOpen) {
      this.#bids.clear();
      this.#asks.clear();
      this.invalid = "the snapshot is not whole yet";
    }
    if (event.kind === "update" && this.seq === 0) return false;
    set(this.#bids, event.bids);
    set(this.#asks, event.asks);
    const isDone = isWhole(event);
    if (event.kind === "snapshot") this.#isSnapshotOpen = !isDone;
    if (!isDone) return false;
    this.seq = event.seq;
    if (event.kind === "snapshot") this.invalid = null;
    return true;
  }

  /** Best first. */
  get bids(): Level[] {
    return [...this.#bids].sort(([a], [b]) => compareDecimals(b, a));
  }

  get asks(): Level[] {
    return [...this.#asks].sort(([a], [b]) => compareDecimals(a, b));
  }
}

function set(side: Map<Decimal, Decimal>, levels: readonly Level[]): void {
  for (const [price, size] of levels) {
    if (size === "0") side.delete(price);
    else side.set(price, size);
  }
}
