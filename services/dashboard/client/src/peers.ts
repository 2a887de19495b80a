/**
 * Readers with each other: data channels between two browsers, for which the edge carries the descriptions and candidates
 * (`signal`). Who agrees to be reached has a name, and tells it to whom it likes.
 */

import { PEERS_MAX } from "./limits.js";
import { TickerError, againstContract } from "./failure.js";
import type { Feed } from "./client.js";
import type { Message } from "./messages.js";

export interface PeersOptions {
  /** For platforms that lack it. */
  readonly RTCPeerConnection?: unknown;
  readonly iceServers?: readonly RTCIceServer[];
  /** Another reader has opened a channel. Without this, nobody is let in. */
  readonly onChannel?: (channel: RTCDataChannel, from: string) => void;
}

interface Said {
  readonly description?: RTCSessionDescriptionInit;
  readonly candidate?: RTCIceCandidateInit;
}

interface Pair {
  readonly connection: RTCPeerConnection;
  /** What the other says is taken in the order in which it comes. */
  done: Promise<void>;
}

/** Listens to the feed's notices (`on`), so the feed's messages are taken by listeners, not by a loop. */
export class Peers {
  readonly #pairs = new Map<string, Pair>();
  readonly #asked = new Map<number, string>();
  readonly #forget: () => void;
  #name: Promise<string> | null = null;

  constructor(
    private readonly feed: Feed,
    private readonly options: PeersOptions = {},
  ) {
    this.#forget = feed.on("message", (message) => this.#onMessage(message));
  }

  /** Agrees to be reached: the name to give to others. Another connection of the feed has another name. */
  reachable(): Promise<string> {
    if (this.#name === null) {
      const name = this.feed.reachable().then((name) => {
        if (name === undefined) throw againstContract("an answer without a name");
        return name;
      });
      name.catch(() => (this.#name = null));
      this.#name = name;
    }
    return this.#name;
  }

  /** Opens a channel to a reader who agreed to be reached; it opens once they have found a path, and closes if there is none. */
  async call(name: string, label = "ticker-peer", init?: RTCDataChannelInit): Promise<RTCDataChannel> {
    // Whoever wants to reach others must be reached by their answers.
    await this.reachable();
    const pair = this.#pairs.get(name) ?? this.#pair(name);
    const channel = pair.connection.createDataChannel(label, init);
    await pair.connection.setLocalDescription();
    this.#say(name, { description: pair.connection.localDescription?.toJSON() as RTCSessionDescriptionInit });
    return channel;
  }

  /** Ends the connection to one reader. */
  hangUp(name: string): void {
    this.#pairs.get(name)?.connection.close();
    this.#pairs.delete(name);
    for (const [id, to] of this.#asked) if (to === name) this.#asked.delete(id);
  }

  close(): void {
    this.#forget();
    for (const name of [...this.#pairs.keys()]) this.hangUp(name);
  }

  #pair(name: string): Pair {
    if (this.#pairs.size >= PEERS_MAX) throw new TickerError(`connected with ${PEERS_MAX} readers already`);
    const Peer = (this.options.RTCPeerConnection ?? globalThis.RTCPeerConnection) as typeof RTCPeerConnection;
    const connection = new Peer({ iceServers: [...(this.options.iceServers ?? [])] });
    connection.onicecandidate = ({ candidate }) => candidate && this.#say(name, { candidate: candidate.toJSON() });
    connection.ondatachannel = ({ channel }) => this.options.onChannel?.(channel, name);
    connection.onconnectionstatechange = () => {
      if (connection.connectionState === "failed" || connection.connectionState === "closed") this.hangUp(name);
    };
    const pair = { connection, done: Promise.resolve() };
    this.#pairs.set(name, pair);
    return pair;
  }

  #say(to: string, said: Said): void {
    try {
      this.#asked.set(this.feed.signal(to, said), to);
      // The last few are enough to know whom a refusal is about.
      const [oldest] = this.#asked.keys();
      if (this.#asked.size > PEERS_MAX * 8 && oldest !== undefined) this.#asked.delete(oldest);
    } catch {
      // Without a session nothing can be said; what is connected stays so.
    }
  }

  #onMessage(message: Message): void {
    if (message.op === undefined) return;
    if (message.op === "connection" && message.state === "lost") this.#name = null;
    if (message.op === "error" && message.id !== undefined) {
      const name = this.#asked.get(message.id);
      if (name !== undefined) this.hangUp(name);
    } else if (message.op === "signal" && message.from !== undefined) {
      this.#onSignal(message.from, (message.data ?? {}) as Said);
    }
  }

  #onSignal(from: string, said: Said): void {
    if (!this.#pairs.has(from) && (!this.options.onChannel || !said.description || this.#pairs.size >= PEERS_MAX))
      return;
    const pair = this.#pairs.get(from) ?? this.#pair(from);
    // What cannot be taken, such as a candidate of another run, is no end.
    pair.done = pair.done.then(() => this.#take(from, pair, said)).catch(() => {});
  }

  async #take(from: string, { connection }: Pair, { description, candidate }: Said): Promise<void> {
    if (candidate) return connection.addIceCandidate(candidate);
    if (!description) return;
    await connection.setRemoteDescription(description);
    if (description.type !== "offer") return;
    await connection.setLocalDescription();
    this.#say(from, { description: connection.localDescription?.toJSON() as RTCSessionDescriptionInit });
  }
}
