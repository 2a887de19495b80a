/** Of topics that come by datagram and by the ordered stream, which overtake each other, the newest wins. */

import { isOfEventChannel, type MarketEvent } from "./messages.js";
import { TOPICS_REMEMBERED_MAX } from "./limits.js";

export class Newest {
  #seqs = new Map<string, number>();

  /** Is it at least as new as what came before of its topic? */
  admits(event: MarketEvent): boolean {
    if (isOfEventChannel(event)) return true;
    const before = this.#seqs.get(event.topic) ?? 0;
    if (event.seq < before) return false;
    if (this.#seqs.size < TOPICS_REMEMBERED_MAX || this.#seqs.has(event.topic)) this.#seqs.set(event.topic, event.seq);
    return true;
  }

  /** Another tape begins: its places are its own. */
  clear(): void {
    this.#seqs.clear();
  }
}
