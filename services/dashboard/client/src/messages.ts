/**
 * What is said in a session: the contract's messages, as types. Prices and sizes are decimals as text, exact to the last
 * digit; times are microseconds since 1970.
 */

/** An exact decimal, as text. */
export type Decimal = string;

/** Microseconds since 1970, UTC. */
export type Micros = number;

interface Placed<Kind extends string> {
  /** Only notices have it. */
  readonly op?: undefined;
  /** `channel/venue/symbol`. */
  readonly topic: string;
  /** The event's place on the tape. */
  readonly seq: number;
  /** The topic's event before; 0 in a snapshot. */
  readonly prev: number;
  readonly kind: Kind;
  /** The venue's time; null where it gives none. */
  readonly ts: Micros | null;
  /** When it was received from the venue. */
  readonly recv: Micros;
  /** When it got its place on the tape. */
  readonly pub: Micros;
  /** A large event comes in several messages of one `seq`: which one this is, from 1 on. */
  readonly part?: number;
  readonly parts?: number;
}

/** What was shown of the topic can no longer be trusted, until its next snapshot. */
export interface Invalid extends Placed<"invalid"> {
  readonly reason: string;
}

type StateOf<Fields> = (Placed<"update" | "snapshot"> & Readonly<Fields>) | Invalid;

export interface QuoteFields {
  bid: Decimal | null;
  bid_size: Decimal | null;
  ask: Decimal | null;
  ask_size: Decimal | null;
  /** Of the venue `best` only. */
  bid_venue?: string | null;
  ask_venue?: string | null;
}

/** A price and the size there; in an update the size `"0"` removes the level. */
export type Level = readonly [price: Decimal, size: Decimal];

export interface BookFields {
  bids: readonly Level[];
  asks: readonly Level[];
  /** CRC-32 of `price:size;` over the ten best bids, then asks, after this event. */
  crc?: number;
  sum?: number;
}

export interface BarFields {
  start: Micros;
  open: Decimal;
  high: Decimal;
  low: Decimal;
  close: Decimal;
  volume: Decimal;
  vwap: Decimal | null;
  trades: number;
  closed: boolean;
}

export interface StatsFields {
  last: Decimal | null;
  open: Decimal | null;
  high: Decimal | null;
  low: Decimal | null;
  volume: Decimal;
  quote_volume: Decimal;
  vwap: Decimal | null;
  change: Decimal | null;
  change_pct: Decimal | null;
  trades: number;
}

export interface StatusFields {
  state: "live" | "connecting" | "stale" | "resyncing" | "halted" | "closed";
  integrity: "verified" | "sequenced" | "ordered" | "none";
  reason: string | null;
  last_verified: Micros | null;
}

export interface TradeFields {
  price: Decimal;
  size: Decimal;
  /** The taker's; null where the venue does not tell. */
  side: "buy" | "sell" | null;
  trade_id: string;
}

export type QuoteEvent = StateOf<QuoteFields>;
export type BookEvent = StateOf<BookFields>;
export type BarEvent = StateOf<BarFields>;
export type StatsEvent = StateOf<StatsFields>;
export type StatusEvent = StateOf<StatusFields>;
/** A correction or a cancellation names its trade by `ref`. */
export type TradeEvent =
  | (Placed<"update"> & Readonly<TradeFields>)
  | (Placed<"correction"> & Readonly<TradeFields> & { readonly ref: string })
  | (Placed<"cancel"> & { readonly ref: string })
  | Invalid;

/** The event of each channel. With `fields` asked for, what is not among them is missing. */
export interface EventOf {
  quote: QuoteEvent;
  trade: TradeEvent;
  book: BookEvent;
  "book-10": BookEvent;
  "book-50": BookEvent;
  "bar-1s": BarEvent;
  "bar-1m": BarEvent;
  "bar-5m": BarEvent;
  "bar-1h": BarEvent;
  "bar-1d": BarEvent;
  stats: StatsEvent;
  status: StatusEvent;
}

export type Channel = keyof EventOf;
export type MarketEvent = EventOf[Channel];

/** What the service says besides events. */
export type Notice =
  | {
      readonly op: "welcome";
      readonly version: string;
      readonly epoch: string;
      readonly cursor: string;
      readonly heartbeat_ms: number;
    }
  | { readonly op: "subscribed"; readonly id: number; readonly topics: readonly string[]; readonly cursor: string }
  | { readonly op: "unsubscribed"; readonly id: number; readonly topics: readonly string[] }
  | {
      readonly op: "error";
      readonly id?: number;
      readonly code: string;
      readonly message: string;
      readonly cursor?: string;
    }
  /** Events are missing here; without a topic: of everything. */
  | { readonly op: "gap"; readonly topic?: string; readonly reason: string }
  /** `conflated`: how many events were left out for this reader since the last one, at the edge or here. */
  | { readonly op: "heartbeat"; readonly cursor: string; readonly conflated: number }
  | { readonly op: "pong"; readonly id: number }
  | { readonly op: "goodbye"; readonly reason: string; readonly cursor: string; readonly retry_ms: number }
  | SignalNotice;

/** From another reader (`from`, `data`), or the name by which this one can be reached (`peer`). */
export interface SignalNotice {
  readonly op: "signal";
  readonly id?: number;
  readonly peer?: string;
  readonly from?: string;
  readonly data?: unknown;
}

/** The ways of the messages. */
export type Over = "webtransport" | "ws" | "sse" | "poll" | "rtc";

/** What this client says of its connection. */
export type ConnectionNotice =
  | { readonly op: "connection"; readonly state: "connecting"; readonly over: Over }
  /** The session is open; `resumed`: it goes on from `cursor`. */
  | { readonly op: "connection"; readonly state: "open"; readonly over: Over; readonly resumed: boolean }
  /** It was lost, or could not be made; the next attempt comes after `retry_ms`, over `next`. */
  | {
      readonly op: "connection";
      readonly state: "lost";
      readonly over: Over;
      readonly error: Error;
      readonly retry_ms: number;
      readonly next: Over;
    }
  /** Nothing takes the messages, and no more fit: it goes on from the cursor once there is room. */
  | { readonly op: "connection"; readonly state: "behind"; readonly over: Over };

export type Message = MarketEvent | Notice | ConnectionNotice;

/** A reader's words, over transports with a way back. */
export type Request =
  | ({
      readonly op: "subscribe";
      readonly id: number;
      readonly topics: readonly string[];
      readonly from?: string;
    } & Wishes)
  | { readonly op: "unsubscribe"; readonly id: number; readonly topics: readonly string[] }
  | ({ readonly op: "limit"; readonly id: number } & Limits)
  | { readonly op: "ping"; readonly id: number }
  | {
      readonly op: "signal";
      readonly id: number;
      readonly reachable?: boolean;
      readonly to?: string;
      readonly data?: unknown;
    };

/** Limits of a session; 0 is none. */
export interface Limits {
  /** Updates a second of each state or book topic. */
  readonly max_rate?: number;
  /** Kilobits a second of the session. */
  readonly max_kbps?: number;
}

/** How the topics are to come. */
export interface Wishes extends Limits {
  /** So many past events of event channels first. */
  readonly recent?: number;
  /** Only these fields, besides `topic`, `seq`, `prev`, `kind`. */
  readonly fields?: readonly string[];
  /** `false`: every event of every channel. */
  readonly conflate?: boolean;
  /** `datagram`: states by an unreliable way, where the transport has one (webtransport, rtc). */
  readonly delivery?: "datagram";
}

export function isEvent(message: Message): message is MarketEvent {
  return message.op === undefined;
}

/** Is it an event of that channel? */
export function isOf<C extends Channel>(message: Message, channel: C): message is EventOf[C] {
  return isEvent(message) && channelOf(message.topic) === channel;
}

export function channelOf(topic: string): string {
  const end = topic.indexOf("/");
  return end < 0 ? topic : topic.slice(0, end);
}

/** Are its events to be had one by one? Otherwise the newest says all, or a book's next snapshot does. */
export function isOfEventChannel(event: MarketEvent): boolean {
  const channel = channelOf(event.topic);
  if (channel === "trade" || channel === "liquidation") return true;
  return channel.startsWith("bar-") && event.kind === "update" && "closed" in event && event.closed;
}

/** Does its newest event say all of the topic? */
export function isOfStateChannel(event: MarketEvent): boolean {
  const channel = channelOf(event.topic);
  if (channel === "quote" || channel === "stats" || channel === "status" || channel === "deriv") return true;
  return channel.startsWith("bar-") && !isOfEventChannel(event);
}

/** Is it the last message of its event? */
export const isWhole = (event: MarketEvent): boolean => (event.part ?? 1) === (event.parts ?? 1);
