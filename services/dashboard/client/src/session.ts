/**
 * A reader's session over whichever transport: topics, cursor, going on after a loss. Without I/O: connections come from its
 * ways, time and randomness from its clock.
 */

import { Inbox, type InboxLimits, type Item } from "./inbox.js";
import { Ladder, type Retry } from "./ladder.js";
import { Newest } from "./newest.js";
import { Requests, type Waiting } from "./requests.js";
import { Tracker } from "./cursor.js";
import { TickerError, againstContract, isCode, lost, textOf } from "./failure.js";
import type { Clock } from "./clock.js";
import type { Link, Sink, Way, Ways } from "./transport.js";
import type { ConnectionNotice, Limits, MarketEvent, Message, Notice, Over, Wishes } from "./messages.js";
import { CONNECT_TIMEOUT_MS, REQUEST_TOPICS_MAX, SILENCE_MS_MIN, SILENT_HEARTBEATS_MAX, TOPICS_MAX } from "./limits.js";

export interface SessionOptions {
  readonly topics: readonly string[];
  readonly from?: string | undefined;
  readonly wishes: Wishes;
  /** What is tried, in that order; each is among the ways. */
  readonly ladder: readonly Over[];
  readonly ways: Ways;
  readonly clock: Clock;
  /** Null: a lost connection is the end. */
  readonly retry: Retry | null;
  readonly inbox?: InboxLimits;
}

export type Phase = "idle" | "connecting" | "open" | "waiting" | "behind" | "closed";

export class Session {
  /** Something can be taken, or the session has ended. */
  onNews: () => void = () => {};
  #phase: Phase = "idle";
  readonly #topics: Set<string>;
  #wishes: Wishes;
  readonly #tracker: Tracker;
  readonly #inbox: Inbox;
  readonly #newest = new Newest();
  readonly #ladder: Ladder;
  readonly #requests = new Requests();
  /** Subscriptions that are to be answered by the next connection. */
  #added: { topics: readonly string[]; waiting: Waiting }[] = [];
  #link: Link | null = null;
  #way: Way | null = null;
  /** What an earlier connection still tells is not heard. */
  #generation = 0;
  #cancelPhase: () => void = () => {};
  #cancelWatch: () => void = () => {};
  #room: (() => void)[] = [];
  #heard = 0;
  #silenceMs = SILENCE_MS_MIN;
  /** Has this session ever been accepted? Has this connection been asked for the topics, and has it said a word? */
  #isEstablished = false;
  #hasAsked = false;
  #hasSpoken = false;
  #error: TickerError | null = null;
  conflated = 0;

  constructor(private readonly options: SessionOptions) {
    this.#topics = new Set(options.topics);
    if (this.#topics.size > TOPICS_MAX)
      throw new TickerError(`more than ${TOPICS_MAX} topics`, { code: "too_many_topics" });
    this.#wishes = options.wishes;
    this.#tracker = new Tracker(options.from ?? null, options.wishes.conflate === false);
    this.#inbox = new Inbox(options.wishes.conflate !== false, options.inbox);
    this.#ladder = new Ladder(options.ladder, options.retry, () => options.clock.random());
  }

  get phase(): Phase {
    return this.#phase;
  }

  /** The transport in use, or tried next. */
  get over(): Over {
    return this.#ladder.over;
  }

  get topics(): string[] {
    return [...this.#topics];
  }

  /** Why it has ended, unless it was closed. */
  get error(): TickerError | null {
    return this.#error;
  }

  start(): void {
    if (this.#phase === "idle") this.#connect();
  }

  /** The next message, if there is one. */
  take(): Item | undefined {
    const item = this.#inbox.take();
    if (!this.#inbox.isBusy) {
      for (const go of this.#room.splice(0)) go();
      if (this.#phase === "behind") this.#connect();
    }
    return item;
  }

  subscribe(topics: readonly string[]): Promise<void> {
    const fresh = topics.filter((topic) => !this.#topics.has(topic));
    if (this.#topics.size + fresh.length > TOPICS_MAX) {
      return Promise.reject(new TickerError(`more than ${TOPICS_MAX} topics`, { code: "too_many_topics" }));
    }
    return this.#asking((waiting) => {
      if (fresh.length === 0) return waiting.resolve(undefined);
      for (const topic of fresh) this.#topics.add(topic);
      if (this.#phase === "open" && this.#way?.isDuplex) {
        for (const some of inChunks(fresh))
          this.#join("subscribe", some, some.at(-1) === fresh.at(-1) ? waiting : undefined);
        return;
      }
      this.#added.push({ topics: fresh, waiting });
      // A way with a way back asks for everything once it is open.
      const willAsk = this.#phase === "connecting" && this.#way?.isDuplex && !this.#hasAsked;
      if (!willAsk && this.#phase !== "waiting" && this.#phase !== "behind") this.#reopen();
    }).then(() => {});
  }

  unsubscribe(topics: readonly string[]): Promise<void> {
    return this.#asking((waiting) => {
      const gone = topics.filter((topic) => this.#topics.delete(topic));
      if (gone.length === 0 || (this.#phase !== "open" && this.#phase !== "connecting"))
        return waiting.resolve(undefined);
      if (this.#phase === "connecting" || !this.#way?.isDuplex) {
        this.#reopen();
        return waiting.resolve(undefined);
      }
      for (const some of inChunks(gone)) {
        const id = this.#requests.id();
        this.#requests.ask(id, "unsubscribe", some, some.at(-1) === gone.at(-1) ? waiting : undefined);
        this.#link?.send?.({ op: "unsubscribe", id, topics: some });
      }
    }).then(() => {});
  }

  /** Changes the session's limits; what is left out stays. */
  limit(limits: Limits): void {
    this.#wishes = { ...this.#wishes, ...limits };
    if (this.#phase !== "open") return;
    if (!this.#way?.isDuplex) return this.#reopen();
    this.#link?.send?.({ op: "limit", id: this.#requests.id(), ...limits });
  }

  /** Agrees to be reached by others: the name for that, good as long as this connection; or no longer agrees. */
  reachable(isReachable: boolean): Promise<string | undefined> {
    return this.#asking((waiting) => {
      const id = this.#requests.id();
      this.#requests.ask(id, "reachable", [], waiting);
      this.#send({ op: "signal", id, reachable: isReachable });
    });
  }

  /** Says something to another reader; the id with which an `error` would answer. */
  signal(to: string, data: unknown): number {
    const id = this.#requests.id();
    this.#send({ op: "signal", id, to, data });
    return id;
  }

  /** The network is another: goes on by another path, or connects again without waiting. */
  networkChanged(): void {
    if (this.#phase === "open" && this.#link?.moves?.()) return;
    if (this.#phase === "open" || this.#phase === "waiting") this.#reopen();
  }

  close(): void {
    this.#inbox.clear();
    this.#end(null);
  }

  // ---- connections -------------------------------------------------------------------------------------------------

  #connect(): void {
    this.#drop();
    this.#phase = "connecting";
    const way = this.options.ways[this.over];
    if (!way) throw new Error("each rung of the ladder is a way");
    if (this.#topics.size === 0 && !way.isDuplex) {
      // A way without a way back has nothing to ask for.
      this.#phase = "idle";
      return;
    }
    this.#way = way;
    this.#silenceMs = way.silenceMs ?? CONNECT_TIMEOUT_MS;
    this.#hasSpoken = this.#hasAsked = false;
    this.#tracker.begins(way.tells);
    const { timeoutMs } = this.#ladder;
    this.#cancelPhase = this.options.clock.after(timeoutMs, () => this.#lost(lost(`no answer in ${timeoutMs} ms`)));
    const generation = this.#generation;
    this.#tell({ op: "connection", state: "connecting", over: this.over });
    if (generation !== this.#generation) return;
    const subscription = { topics: this.topics, ...this.#asked() };
    let link: Link;
    try {
      link = way.open(subscription, this.#sink(generation));
    } catch (error) {
      return this.#lost(new TickerError(textOf(error), { isProtocol: true, cause: error }));
    }
    if (generation === this.#generation) this.#link = link;
    else link.close();
  }

  #sink(generation: number): Sink {
    const isCurrent = () => generation === this.#generation;
    const take = (read: () => unknown, chars: number, cursor: string | undefined): void => {
      if (!isCurrent()) return;
      try {
        this.#take(read(), chars, cursor);
      } catch (error) {
        this.#lost(error instanceof TickerError ? error : againstContract(textOf(error)));
      }
    };
    return {
      opened: () => isCurrent() && this.#opened(),
      message: (text, cursor) => take(() => (text === null ? null : JSON.parse(text)), text?.length ?? 0, cursor),
      value: (value, chars, cursor) => take(() => value, chars, cursor),
      closed: (error) => isCurrent() && this.#lost(error),
      room: () =>
        isCurrent() && this.#inbox.isBusy ? new Promise((resolve) => this.#room.push(resolve)) : Promise.resolve(),
    };
  }

  /** What every topic is asked with: going on from the cursor, where there is one. */
  #asked(): Wishes & { from?: string } {
    const from = this.#tracker.text;
    if (from === null) return this.#wishes;
    const { recent: _, ...wishes } = this.#wishes;
    return { ...wishes, from };
  }

  #opened(): void {
    // Without a way back, that it is open is the first word.
    if (!this.#way?.isDuplex) return this.#speaks();
    this.#hasAsked = true;
    for (const topics of inChunks([...this.#topics])) this.#join("join", topics);
  }

  #join(purpose: "join" | "subscribe", topics: readonly string[], waiting?: Waiting): void {
    const id = this.#requests.id();
    this.#requests.ask(id, purpose, topics, waiting);
    this.#tracker.joins(id);
    // What joins while it runs begins with what is, not with what was.
    const wishes = purpose === "join" ? this.#asked() : this.#wishes;
    this.#link?.send?.({ op: "subscribe", id, topics, ...wishes });
  }

  /** Ends the connection and goes on with another one at once. */
  #reopen(): void {
    this.#forget(lost("the connection is made anew"));
    this.#connect();
  }

  /** Lets go of the connection. */
  #drop(): void {
    this.#generation += 1;
    this.#cancelPhase();
    this.#cancelWatch();
    this.#link?.close();
    this.#link = null;
    for (const go of this.#room.splice(0)) go();
  }

  /** What was asked over a connection that is gone. */
  #forget(error: TickerError): void {
    this.#tracker.lost();
    for (const { purpose, topics, ...waiting } of this.#requests.takeAll()) {
      if (purpose === "subscribe") this.#added.push({ topics, waiting });
      else if (purpose === "reachable") waiting.reject(error);
      else waiting.resolve(undefined);
    }
  }

  #lost(error: TickerError): void {
    if (this.#phase === "closed") return;
    this.#drop();
    this.#forget(error);
    const over = this.over;
    // What was added may be what is refused; without it all else goes on.
    if (!error.isTransient && !error.isProtocol && this.#added.length > 0 && this.#isEstablished) {
      this.#refuseAdded(error);
      return this.#connect();
    }
    // After a restart a service may not know its instruments yet.
    const mayComeBack = this.#isEstablished && error.code === "unknown_topic";
    const wait = this.#ladder.fails(error, mayComeBack);
    if (wait === null) return this.#end(error);
    this.#phase = "waiting";
    this.#cancelPhase = this.options.clock.after(wait, () => this.#connect());
    this.#tell({ op: "connection", state: "lost", over, error, retry_ms: wait, next: this.over });
  }

  #refuseAdded(error: TickerError): void {
    for (const { topics, waiting } of this.#added.splice(0)) {
      for (const topic of topics) this.#topics.delete(topic);
      waiting.reject(error);
    }
  }

  #end(error: TickerError | null): void {
    if (this.#phase === "closed") return;
    this.#drop();
    this.#phase = "closed";
    this.#error = error;
    const why = error ?? lost("closed");
    for (const { reject } of this.#requests.takeAll()) reject(why);
    for (const { waiting } of this.#added.splice(0)) waiting.reject(why);
    this.onNews();
  }

  // ---- messages ----------------------------------------------------------------------------------------------------

  #take(value: unknown, chars: number, cursor: string | undefined): void {
    this.#heard = this.options.clock.now();
    if (value === null) {
      if (cursor !== undefined) this.#tracker.set(cursor);
      return;
    }
    const generation = this.#generation;
    if (!this.#hasSpoken) this.#speaks();
    // Whoever is told of something may close the session, or have it made anew.
    if (generation !== this.#generation) return;
    if (isNotice(value)) this.#onNotice(value, chars, cursor);
    else if (isMarketEvent(value)) this.#onEvent(value, chars, cursor);
    else throw againstContract("a message that is neither event nor notice");
  }

  /** The first word of a connection. */
  #speaks(): void {
    this.#hasSpoken = true;
    this.#cancelPhase();
    this.#phase = "open";
    this.#silenceMs = this.#way?.silenceMs ?? SILENCE_MS_MIN;
    this.#watch(this.#silenceMs);
    this.#tell({ op: "connection", state: "open", over: this.over, resumed: this.#tracker.text !== null });
  }

  #onEvent(event: MarketEvent, chars: number, cursor: string | undefined): void {
    this.#accepted();
    const isNewest = this.#wishes.delivery !== "datagram" || this.#newest.admits(event);
    const isWanted = this.#tracker.event(event);
    if (cursor !== undefined) this.#tracker.set(cursor);
    if (isNewest && isWanted) this.#put(event, chars);
  }

  #onNotice(notice: Notice, chars: number, cursor: string | undefined): void {
    this.#tracker.notice(notice);
    if (cursor !== undefined) this.#tracker.set(cursor);
    switch (notice.op) {
      case "welcome":
        this.#newest.clear();
        this.#silenceMs = this.#way?.silenceMs ?? Math.max(SILENT_HEARTBEATS_MAX * notice.heartbeat_ms, SILENCE_MS_MIN);
        break;
      case "subscribed":
        this.#requests.take(notice.id)?.resolve(undefined);
        this.#accepted();
        break;
      case "unsubscribed":
        this.#requests.take(notice.id)?.resolve(undefined);
        break;
      case "signal":
        if (notice.id !== undefined) this.#requests.take(notice.id)?.resolve(notice.peer);
        break;
      case "heartbeat": {
        // To whoever takes the messages this client is part of the way.
        const here = this.#inbox.takeConflated();
        this.conflated += here + notice.conflated;
        return this.#put({ ...notice, conflated: notice.conflated + here }, chars);
      }
      case "goodbye":
        return this.#ends(
          notice,
          chars,
          new TickerError(notice.reason, { code: "draining", retryMs: notice.retry_ms }),
        );
      case "error":
        return this.#onError(notice, chars);
      default:
    }
    this.#put(notice, chars);
  }

  #onError(notice: Extract<Notice, { op: "error" }>, chars: number): void {
    const code = isCode(notice.code) ? notice.code : "internal";
    const error = new TickerError(notice.message, { code });
    const asked = this.#requests.take(notice.id ?? 0);
    // Without id the session ends.
    if (!notice.id || asked?.purpose === "join") return this.#ends(notice, chars, error);
    if (asked?.purpose === "subscribe") for (const topic of asked.topics) this.#topics.delete(topic);
    asked?.reject(error);
    this.#put(notice, chars);
  }

  /** The last word of a connection. */
  #ends(notice: Notice, chars: number, error: TickerError): void {
    const generation = this.#generation;
    this.#put(notice, chars);
    if (generation === this.#generation) this.#lost(error);
  }

  /** The service gives what was asked for. */
  #accepted(): void {
    this.#ladder.works();
    this.#isEstablished = true;
    if (this.#added.length > 0 && !this.#requests.has("join")) {
      for (const { waiting } of this.#added.splice(0)) waiting.resolve(undefined);
    }
  }

  #put(message: Message, chars: number): void {
    if (this.#phase === "closed") return;
    this.#inbox.put({ message, chars, cursor: this.#tracker.text });
    this.onNews();
    // Whoever was told may have closed it, or taken everything.
    if (!this.#inbox.isFull || this.#way?.waits || this.#phase !== "open") return;
    this.#drop();
    this.#forget(lost("nothing takes the messages"));
    this.#phase = "behind";
    this.#tell({ op: "connection", state: "behind", over: this.over });
  }

  #tell(notice: ConnectionNotice): void {
    if (this.#phase === "closed") return;
    this.#inbox.put({ message: notice, chars: 0, cursor: this.#tracker.text });
    this.onNews();
  }

  /** Connected but mute is the worst failure: the heartbeat's absence shows it. */
  #watch(ms: number): void {
    this.#cancelWatch = this.options.clock.after(ms, () => {
      const now = this.options.clock.now();
      // Where nothing is read nothing is heard.
      if (this.#room.length > 0) this.#heard = now;
      const silent = now - this.#heard;
      if (silent >= this.#silenceMs) this.#lost(lost(`nothing heard for ${Math.round(silent)} ms`));
      else this.#watch(this.#silenceMs - silent);
    });
  }

  #send(request: Parameters<NonNullable<Link["send"]>>[0]): void {
    if (this.#phase !== "open") throw lost("there is no connection now");
    if (!this.#link?.send) throw new TickerError(`${this.over} has no way back`, { code: "not_implemented" });
    this.#link.send(request);
  }

  #asking(ask: (waiting: Waiting) => void): Promise<string | undefined> {
    if (this.#phase === "closed") return Promise.reject(this.#error ?? lost("closed"));
    return new Promise((resolve, reject) => ask({ resolve, reject }));
  }
}

function* inChunks(topics: readonly string[]): Generator<readonly string[]> {
  for (let at = 0; at < topics.length; at += REQUEST_TOPICS_MAX) yield topics.slice(at, at + REQUEST_TOPICS_MAX);
}

const isObject = (value: unknown): value is Record<string, unknown> => typeof value === "object" && value !== null;

const isNotice = (value: unknown): value is Notice =>
  isObject(value) && typeof value.op === "string" && value.op !== "connection";

const isMarketEvent = (value: unknown): value is MarketEvent =>
  isObject(value) &&
  typeof value.topic === "string" &&
  Number.isSafeInteger(value.seq) &&
  typeof value.kind === "string";
