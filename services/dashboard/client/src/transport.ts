/** What the ways have in common: one open connection, and whom it tells. */

import type { Over, Request } from "./messages.js";
import type { Edge, Subscription } from "./query.js";
import type { TickerError } from "./failure.js";

/** Whom a connection tells. */
export interface Sink {
  /** It is open: what is to be sent can be sent. */
  opened(): void;
  /** A message as JSON text; null for a sign of life alone. `cursor`: where the transport tells it, once that is taken. */
  message(text: string | null, cursor?: string): void;
  /** The same, read already. */
  value(value: unknown, chars: number, cursor?: string): void;
  /** It has ended; nothing is told after that. */
  closed(error: TickerError): void;
  /** Resolves when more should come: a transport that can wait does so before it reads on. */
  room(): Promise<void>;
}

/** One connection. */
export interface Link {
  /** Says something, where there is a way back. */
  send?(request: Request): void;
  /** The network has changed: goes on by another path. `false`: it cannot. */
  moves?(): boolean;
  /** Ends it and frees everything; the sink is told nothing any more. */
  close(): void;
}

/** How a way is. */
export interface Way {
  /** Has it a way back, so that subscriptions change while it runs? Otherwise the topics are asked for as it opens. */
  readonly isDuplex: boolean;
  /** Does it tell the cursor itself? */
  readonly tells: boolean;
  /** Does it wait for room, so that what is not taken waits at the edge, where it is conflated? */
  readonly waits: boolean;
  /** A connection of which nothing is heard for so long is dead, unless heartbeats say another time. */
  readonly silenceMs?: number;
  /** Begins to connect. `subscription` is for a way without a way back. */
  open(subscription: Subscription, sink: Sink): Link;
}

/** What ways are made of here; browsers have all of it. */
export interface Platform {
  readonly edge: Edge;
  readonly fetch: typeof fetch;
  readonly WebSocket?: typeof WebSocket | undefined;
  readonly WebTransport?: typeof WebTransport | undefined;
  readonly RTCPeerConnection?: typeof RTCPeerConnection | undefined;
  /** What may be lost is wanted on a channel of its own. */
  readonly wantsDatagrams: boolean;
  readonly iceServers?: readonly RTCIceServer[] | undefined;
  /** Tells candidates though the other end needs none. */
  readonly trickle: boolean;
}

export type Ways = Readonly<Partial<Record<Over, Way>>>;
