/**
 * What has come and was not taken yet. States give way to newer ones of their topic, which is counted; events and books wait
 * in order. It never holds more than its limits: whoever fills it asks before.
 */

import { isOfStateChannel, isWhole, type MarketEvent, type Message } from "./messages.js";
import { INBOX_CHARS_MAX, INBOX_CONFLATE_ABOVE, INBOX_MESSAGES_MAX, INBOX_PAUSE_ABOVE } from "./limits.js";

/** A message, and the cursor once it is taken. */
export interface Item {
  readonly message: Message;
  readonly cursor: string | null;
  readonly chars: number;
}

export interface InboxLimits {
  readonly messagesMax?: number;
  readonly charsMax?: number;
  readonly conflateAbove?: number;
}

export class Inbox {
  /** By number, in the order of arrival. */
  #items = new Map<number, Item>();
  /** The number of the state that waits, of each topic. */
  #states = new Map<string, number>();
  #next = 0;
  #chars = 0;
  #conflated = 0;
  readonly #messagesMax: number;
  readonly #charsMax: number;
  readonly #conflateAbove: number;

  /** `conflates`: may states give way at all? */
  constructor(
    private readonly conflates: boolean,
    limits: InboxLimits = {},
  ) {
    this.#messagesMax = limits.messagesMax ?? INBOX_MESSAGES_MAX;
    this.#charsMax = limits.charsMax ?? INBOX_CHARS_MAX;
    this.#conflateAbove = limits.conflateAbove ?? INBOX_CONFLATE_ABOVE;
  }

  get size(): number {
    return this.#items.size;
  }

  get isFull(): boolean {
    return this.#items.size >= this.#messagesMax || this.#chars >= this.#charsMax;
  }

  /** Should a transport that can wait do so? */
  get isBusy(): boolean {
    return this.#items.size >= Math.min(INBOX_PAUSE_ABOVE, this.#messagesMax / 2) || this.#chars >= this.#charsMax / 2;
  }

  /** How many states have given way since this was last asked. */
  takeConflated(): number {
    const count = this.#conflated;
    this.#conflated = 0;
    return count;
  }

  put(item: Item): void {
    let { message } = item;
    if (this.conflates && message.op === undefined) {
      const event = message;
      const waiting = this.#states.get(event.topic);
      if (isOfStateChannel(event) && isWhole(event)) {
        if (waiting !== undefined && this.#items.size > this.#conflateAbove) message = this.#replace(waiting, event);
        this.#states.set(event.topic, this.#next);
      } else {
        // What waits before something that must come in order keeps its place.
        this.#states.delete(event.topic);
      }
    }
    this.#items.set(this.#next, { ...item, message });
    this.#next += 1;
    this.#chars += item.chars;
  }

  take(): Item | undefined {
    for (const [number, item] of this.#items) {
      this.#remove(number, item);
      return item;
    }
    return undefined;
  }

  clear(): void {
    this.#items.clear();
    this.#states.clear();
    this.#chars = 0;
  }

  /** The newer one goes to the end: before events that came between, its cursor would be ahead of them. */
  #replace(number: number, event: MarketEvent): MarketEvent {
    const old = this.#items.get(number);
    if (old === undefined) return event;
    this.#remove(number, old);
    this.#conflated += 1;
    // What ended a time of distrust must still end it.
    const begins = (old.message as MarketEvent).kind === "snapshot" && event.kind === "update";
    return begins ? ({ ...event, kind: "snapshot", prev: 0 } as MarketEvent) : event;
  }

  #remove(number: number, { message, chars }: Item): void {
    this.#items.delete(number);
    this.#chars -= chars;
    if ("topic" in message && message.topic !== undefined && this.#states.get(message.topic) === number) {
      this.#states.delete(message.topic);
    }
  }
}
