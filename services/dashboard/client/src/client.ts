/** One API for every transport. */

import { Edge } from "./query.js";
import { Session, type Phase } from "./session.js";
import type { TickerError } from "./failure.js";
import { realClock } from "./clock.js";
import { overPoll } from "./transports/poll.js";
import { overRtc } from "./transports/rtc.js";
import { overSse } from "./transports/sse.js";
import { overWebSocket } from "./transports/ws.js";
import { overWebTransport } from "./transports/webtransport.js";
import { isEvent } from "./messages.js";
import type { InboxLimits } from "./inbox.js";
import type { Retry } from "./ladder.js";
import type { Platform, Ways } from "./transport.js";
import type { ConnectionNotice, Limits, MarketEvent, Message, Notice, Over, Wishes } from "./messages.js";

/** What `auto` tries, best first, as far as it is there. */
export const AUTO: readonly Over[] = ["webtransport", "ws", "sse", "poll"];

export interface ConnectOptions extends Wishes {
  /** Topics or patterns, such as `quote/kraken/*`. */
  readonly topics: readonly string[];
  /** The transport, or several in the order in which they are tried. `auto`: webtransport, ws, sse, poll. */
  readonly over?: Over | "auto" | readonly Over[];
  /** Goes on from a cursor; or `earliest`. */
  readonly from?: string;
  readonly token?: string;
  /** `false`: a lost connection is the end. */
  readonly retry?: Retry | false;
  /** What may wait to be taken. */
  readonly inbox?: InboxLimits;
  /** For platforms that lack them, such as Node: `ws`, `node-datachannel/polyfill`. */
  readonly WebSocket?: unknown;
  readonly WebTransport?: unknown;
  readonly RTCPeerConnection?: unknown;
  readonly fetch?: typeof fetch;
  /** Besides those that the edge names. */
  readonly iceServers?: readonly RTCIceServer[];
  /** Tells candidates to an edge that needs none (ICE-lite), too. */
  readonly trickle?: boolean;
}

interface Listeners {
  message: (message: Message) => void;
  event: (event: MarketEvent) => void;
  notice: (notice: Notice) => void;
  connection: (notice: ConnectionNotice) => void;
  /** It has ended: by `close()` (null), or for good. */
  end: (error: TickerError | null) => void;
}

/** Begins to follow topics. What goes wrong is told by the feed. */
export function connect(url: string | URL, options: ConnectOptions): Feed {
  return new Feed(url, options);
}

/**
 * What is followed: an async iterable of its messages, or `on(…)` for each kind of them. One of the two: what a listener has been
 * told does not wait for a loop.
 */
export class Feed implements AsyncIterable<Message> {
  readonly #session: Session;
  readonly #listeners = new Map<string, Set<(value: never) => void>>();
  #cursor: string | null;
  #wake: (() => void) | null = null;
  #isPumping = false;
  #hasEnded = false;
  #isLooped = false;
  readonly #forgetNetwork: () => void;

  constructor(url: string | URL, options: ConnectOptions) {
    const { topics, over = "auto", from, token, retry, inbox, iceServers, trickle = false } = options;
    const { recent, max_rate, max_kbps, fields, conflate, delivery } = options;
    const given = { recent, max_rate, max_kbps, fields, conflate, delivery };
    const wishes = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)) as Wishes;
    const platform = {
      edge: new Edge(url, token),
      fetch: options.fetch ?? globalThis.fetch.bind(globalThis),
      WebSocket: (options.WebSocket ?? globalThis.WebSocket) as typeof WebSocket | undefined,
      WebTransport: (options.WebTransport ?? globalThis.WebTransport) as typeof WebTransport | undefined,
      RTCPeerConnection: (options.RTCPeerConnection ?? globalThis.RTCPeerConnection) as
        typeof RTCPeerConnection | undefined,
      wantsDatagrams: delivery === "datagram",
      iceServers,
      trickle,
    };
    const ways = waysOf(platform);
    const wanted = over === "auto" ? AUTO : typeof over === "string" ? [over] : over;
    const ladder = wanted.filter((name) => ways[name]);
    if (ladder.length === 0) {
      throw new TypeError(`there is no ${wanted.join(", ")} here: give it as an option (see ConnectOptions)`);
    }
    this.#cursor = from ?? null;
    this.#session = new Session({
      topics,
      from,
      wishes,
      ladder,
      ways,
      clock: realClock,
      retry: retry === false ? null : (retry ?? {}),
      ...(inbox && { inbox }),
    });
    this.#session.onNews = () => this.#news();
    this.#forgetNetwork = onNetworkChange(() => this.#session.networkChanged());
    this.#session.start();
  }

  /** From here any reader, over any transport, can go on without loss: the place of what has been taken. */
  get cursor(): string | null {
    return this.#cursor;
  }

  /** The transport in use, or tried now. */
  get over(): Over {
    return this.#session.over;
  }

  /** `idle`: there is nothing to ask for. `waiting`: for the next attempt. `behind`: until what has come is taken. */
  get state(): Phase {
    return this.#session.phase;
  }

  get topics(): string[] {
    return this.#session.topics;
  }

  /** How many events were left out, at the edge or here, because something newer came before they could be taken. */
  get conflated(): number {
    return this.#session.conflated;
  }

  /** Follows more topics. Rejects if the service refuses them; the others go on. */
  subscribe(topics: readonly string[]): Promise<void> {
    return this.#session.subscribe(topics);
  }

  unsubscribe(topics: readonly string[]): Promise<void> {
    return this.#session.unsubscribe(topics);
  }

  limit(limits: Limits): void {
    this.#session.limit(limits);
  }

  /** Agrees to be reached by other readers: the name to give them. Good as long as the connection. */
  reachable(isReachable = true): Promise<string | undefined> {
    return this.#session.reachable(isReachable);
  }

  /** Says something to another reader. If it fails an `error` notice with the returned id comes. */
  signal(to: string, data: unknown): number {
    return this.#session.signal(to, data);
  }

  /** Goes on by another path now (ICE anew, or a new connection), where the platform does not tell by itself. */
  networkChanged(): void {
    this.#session.networkChanged();
  }

  /** Ends it and frees everything. */
  close(): void {
    this.#forgetNetwork();
    this.#session.close();
  }

  /** Calls back for each message of a kind; the returned function ends that. */
  on<Kind extends keyof Listeners>(kind: Kind, listener: Listeners[Kind]): () => void {
    if (this.#isLooped) throw new TypeError("the messages are taken by a loop already");
    let listeners = this.#listeners.get(kind);
    if (!listeners) this.#listeners.set(kind, (listeners = new Set()));
    listeners.add(listener as (value: never) => void);
    // All that are added now hear it from the beginning.
    queueMicrotask(() => this.#news());
    return () => listeners.delete(listener as (value: never) => void);
  }

  /** Leaving the loop closes the feed. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Message, void, undefined> {
    if (this.#listeners.size > 0 || this.#isLooped) throw new TypeError("the messages are taken by others already");
    this.#isLooped = true;
    try {
      for (;;) {
        const item = this.#session.take();
        if (item) {
          this.#cursor = item.cursor ?? this.#cursor;
          yield item.message;
        } else if (this.#session.phase === "closed") {
          if (this.#session.error) throw this.#session.error;
          return;
        } else {
          await new Promise<void>((resolve) => (this.#wake = resolve));
        }
      }
    } finally {
      this.close();
    }
  }

  #news(): void {
    this.#wake?.();
    this.#wake = null;
    if (this.#listeners.size === 0 || this.#isPumping) return;
    // A listener may do what brings more news.
    this.#isPumping = true;
    try {
      for (let item = this.#session.take(); item; item = this.#session.take()) {
        this.#cursor = item.cursor ?? this.#cursor;
        const { message } = item;
        this.#call("message", message);
        if (isEvent(message)) this.#call("event", message);
        else this.#call(message.op === "connection" ? "connection" : "notice", message);
      }
    } finally {
      this.#isPumping = false;
    }
    if (this.#session.phase === "closed" && !this.#hasEnded) {
      this.#hasEnded = true;
      this.#forgetNetwork();
      this.#call("end", this.#session.error);
    }
  }

  #call(kind: string, value: unknown): void {
    for (const listener of [...(this.#listeners.get(kind) ?? [])]) {
      try {
        listener(value as never);
      } catch (error) {
        // One listener's fault is not another's: it surfaces where nobody else is in the way.
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }
}

/** The ways that there are here. */
function waysOf(platform: Platform): Ways {
  const { WebSocket, WebTransport, RTCPeerConnection } = platform;
  return {
    sse: overSse(platform),
    poll: overPoll(platform),
    ...(WebSocket && { ws: overWebSocket(platform, WebSocket) }),
    ...(WebTransport && { webtransport: overWebTransport(platform, WebTransport) }),
    ...(RTCPeerConnection && { rtc: overRtc(platform, RTCPeerConnection, realClock) }),
  };
}

/** Browsers tell when there is a network again. */
function onNetworkChange(run: () => void): () => void {
  const target = globalThis as Partial<EventTarget>;
  if (typeof document === "undefined" || !target.addEventListener) return () => {};
  target.addEventListener("online", run);
  return () => target.removeEventListener?.("online", run);
}
