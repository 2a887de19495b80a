/** When a reader's cursor moves: the contract's second promise, as a state machine without I/O. */

import { isOfEventChannel, isWhole, type MarketEvent, type Notice } from "./messages.js";
import { TOPICS_REMEMBERED_MAX } from "./limits.js";

interface Place {
  readonly epoch: string;
  readonly seq: number;
}

/** A cursor's parts; null for `earliest`, and for what is none. */
export function placeOf(cursor: string): Place | null {
  const dash = cursor.lastIndexOf("-");
  const digits = cursor.slice(dash + 1);
  return dash > 0 && /^\d+$/.test(digits) ? { epoch: cursor.slice(0, dash), seq: Number(digits) } : null;
}

/** The place from which a reader can go on without loss. */
export class Tracker {
  #text: string | null;
  #place: Place | null;
  /** Requests that `subscribed` has not closed yet: until then older events may come, and the cursor stays. */
  #joining = new Set<number>();
  /** What came while it stayed: the last of each topic whose events are resumed one by one. */
  #ahead = new Map<string, number>();
  /** The same of connections that were lost: going on from the cursor brings it again, and the caller has had it. */
  #had = new Map<string, number>();
  /** With `every`, the place of the newest event: another topic's event of that place may still be to come. */
  #newest = 0;
  #told = false;

  /** `every`: no channel is conflated, so the events of each are resumed one by one. */
  constructor(
    from: string | null,
    private readonly every: boolean,
  ) {
    this.#text = from;
    this.#place = from === null ? null : placeOf(from);
  }

  get text(): string | null {
    return this.#text;
  }

  /** A connection begins; `told`: its transport tells the cursor itself. */
  begins(told: boolean): void {
    this.#told = told;
  }

  /** A request for topics goes out: until it is answered the cursor stays. */
  joins(id: number): void {
    this.#joining.add(id);
  }

  /** The connection was lost: what was not answered never will be. */
  lost(): void {
    this.#joining.clear();
    for (const [topic, seq] of this.#ahead) remember(this.#had, topic, seq);
    this.#ahead.clear();
    this.#newest = 0;
  }

  /** The transport said so. */
  set(cursor: string): void {
    if (this.#text === cursor) return;
    this.#text = cursor;
    this.#place = placeOf(cursor);
    this.#forget();
  }

  /** An event arrives. `false`: the caller has had it, before the connection was lost. */
  event(event: MarketEvent): boolean {
    const { topic, seq } = event;
    const stays = this.#told || this.#joining.size > 0;
    // A part that is not the last must come again with the whole.
    if (event.kind === "snapshot" || !isWhole(event)) return true;
    if (this.every || isOfEventChannel(event)) {
      const had = this.#had.get(topic);
      if (had !== undefined && seq <= had) return false;
      this.#had.delete(topic);
      if (stays) remember(this.#ahead, topic, seq);
    }
    if (stays) return true;
    if (!this.every) {
      this.#advance(seq);
      return true;
    }
    if (seq > this.#newest) {
      this.#advance(this.#newest);
      this.#ahead.clear();
      this.#newest = seq;
    }
    remember(this.#ahead, topic, seq);
    return true;
  }

  /** A notice arrives. */
  notice(notice: Notice): void {
    switch (notice.op) {
      case "subscribed":
      case "error":
        // Where there is only one subscription its answer has no id.
        if (notice.id === 0) this.#joining.clear();
        else if (notice.id !== undefined) this.#joining.delete(notice.id);
        break;
      case "gap":
        if (notice.topic === undefined && notice.reason === "epoch_changed") this.#beginAnew();
        break;
      case "welcome": {
        // The head of the tape, not a place that this reader has reached: it counts only for who has none yet, or when
        // older places mean nothing any more.
        const isOther = this.#place !== null && this.#place.epoch !== placeOf(notice.cursor)?.epoch;
        if (isOther) this.#beginAnew();
        if (!this.#told && (this.#text === null || isOther)) this.set(notice.cursor);
        return;
      }
      default:
    }
    const cursor = "cursor" in notice ? notice.cursor : undefined;
    if (this.#told || this.#joining.size > 0 || cursor === undefined) return;
    const place = placeOf(cursor);
    if (place === null) return;
    if (this.#place?.epoch === place.epoch) this.#advance(place.seq);
    else this.set(cursor);
    this.#forget();
  }

  #beginAnew(): void {
    this.#ahead.clear();
    this.#had.clear();
    this.#newest = 0;
  }

  #forget(): void {
    const reached = this.#place?.seq ?? 0;
    for (const [topic, seq] of this.#ahead) if (seq <= reached) this.#ahead.delete(topic);
  }

  #advance(seq: number): void {
    if (this.#place === null || seq <= this.#place.seq) return;
    this.#place = { epoch: this.#place.epoch, seq };
    this.#text = `${this.#place.epoch}-${seq}`;
  }
}

function remember(places: Map<string, number>, topic: string, seq: number): void {
  places.delete(topic);
  places.set(topic, seq);
  if (places.size <= TOPICS_REMEMBERED_MAX) return;
  const [oldest] = places.keys();
  if (oldest !== undefined) places.delete(oldest);
}
