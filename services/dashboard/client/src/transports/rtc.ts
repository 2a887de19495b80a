/** WebRTC: an offer by HTTP, then data channels: `ticker` carries the session, `ticker-live` what may be lost. */

import { CANDIDATES_MAX, ICE_RESTARTS_MAX, ICE_RESTART_MS, TRICKLE_MS } from "../limits.js";
import { TickerError, lost, textOf } from "../failure.js";
import type { Link, Platform, Sink, Way } from "../transport.js";
import type { Clock } from "../clock.js";
import { Resource, fragmentOf, withCredentials } from "./whep.js";

export function overRtc(platform: Platform, Peer: typeof RTCPeerConnection, clock: Clock): Way {
  return { isDuplex: true, tells: false, waits: false, open: (_, sink) => new RtcLink(platform, Peer, clock, sink) };
}

class RtcLink implements Link {
  readonly #stop = new AbortController();
  readonly #peer: RTCPeerConnection;
  readonly #session: RTCDataChannel;
  #resource: Resource | null = null;
  #restarts = 0;
  #restarting = false;
  /** What names the run of ICE is being agreed on: candidates of the new one wait for it. */
  #isAsking = false;
  #candidates: string[] = [];
  #told = 0;
  #cancelTrickle: (() => void) | null = null;
  #cancelRestart: (() => void) | null = null;

  constructor(
    private readonly platform: Platform,
    Peer: typeof RTCPeerConnection,
    private readonly clock: Clock,
    private readonly sink: Sink,
  ) {
    this.#peer = new Peer({ iceServers: [...(platform.iceServers ?? [])] });
    // Both ends know the channels' numbers, which saves a round trip.
    this.#session = this.#peer.createDataChannel("ticker", { negotiated: true, id: 0 });
    const channels = [this.#session];
    if (platform.wantsDatagrams) {
      channels.push(
        this.#peer.createDataChannel("ticker-live", {
          negotiated: true,
          id: 1,
          ordered: false,
          maxRetransmits: 0,
        }),
      );
    }
    for (const channel of channels) {
      channel.onmessage = ({ data }: MessageEvent) => {
        if (!this.#stop.signal.aborted) this.sink.message(String(data));
      };
    }
    this.#session.onopen = () => !this.#stop.signal.aborted && sink.opened();
    this.#session.onclose = () => this.#end(lost("the data channel was closed"));
    this.#peer.oniceconnectionstatechange = () => this.#onIce();
    this.#peer.onicecandidate = ({ candidate }) => this.#onCandidate(candidate?.candidate || null);
    this.#offer().catch((error: unknown) => this.#end(error));
  }

  send(request: unknown): void {
    if (this.#session.readyState === "open") this.#session.send(JSON.stringify(request));
  }

  moves(): boolean {
    this.#restart();
    return this.#restarting;
  }

  close(): void {
    if (this.#stop.signal.aborted) return;
    this.#stop.abort();
    this.#cancelTrickle?.();
    this.#cancelRestart?.();
    this.#resource?.end();
    this.#peer.close();
  }

  #end(error: unknown): void {
    if (this.#stop.signal.aborted) return;
    this.close();
    this.sink.closed(error instanceof TickerError ? error : lost(textOf(error), error));
  }

  async #offer(): Promise<void> {
    const { edge, fetch, iceServers } = this.platform;
    // Without candidates: those that the other end's servers give are known only once it has answered.
    const offer = await this.#peer.createOffer();
    const resource = await Resource.create(edge, fetch, "negotiated=true", offer.sdp ?? "", this.#stop.signal);
    // Closed while the offer was on its way: the edge need not wait for a peer that never comes.
    if (this.#stop.signal.aborted) return resource.end();
    this.#resource = resource;
    if (resource.iceServers.length > 0) {
      this.#peer.setConfiguration({ iceServers: [...(iceServers ?? []), ...resource.iceServers] });
    }
    await this.#peer.setLocalDescription(offer);
    await this.#peer.setRemoteDescription({ type: "answer", sdp: resource.answer });
  }

  #onIce(): void {
    const state = this.#peer.iceConnectionState;
    if (this.#isConnected) {
      this.#cancelRestart?.();
      this.#cancelRestart = null;
      this.#restarting = false;
      this.#restarts = 0;
    } else if (state === "disconnected" || state === "failed") {
      this.#restart();
    } else if (state === "closed") {
      this.#end(lost("the connection was closed"));
    }
  }

  get #isConnected(): boolean {
    return this.#peer.iceConnectionState === "connected" || this.#peer.iceConnectionState === "completed";
  }

  /** ICE begins anew: by another address, if this one is no good any more. The session goes on. */
  #restart(): void {
    if (this.#restarting || this.#resource === null || this.#stop.signal.aborted) return;
    if (this.#restarts >= ICE_RESTARTS_MAX) return this.#end(lost("the other end does not answer any more"));
    this.#restarts += 1;
    this.#restarting = true;
    this.#cancelRestart = this.clock.after(ICE_RESTART_MS, () => {
      this.#restarting = false;
      // Whoever was connected all along has heard of no change.
      if (this.#isConnected) this.#restarts = 0;
      else this.#restart();
    });
    // Whatever the edge says to it, that it does not know us any more included, the way out is another offer.
    this.#restartIce(this.#resource).catch((error: unknown) => this.#end(lost(textOf(error), error)));
  }

  async #restartIce(resource: Resource): Promise<void> {
    this.#isAsking = true;
    this.#cancelTrickle?.();
    this.#peer.restartIce();
    const offer = await this.#peer.createOffer({ iceRestart: true });
    this.#candidates = [];
    this.#told = 0;
    const before = this.#peer.remoteDescription?.sdp ?? resource.answer;
    await this.#peer.setLocalDescription(offer);
    const fragment = await resource.restart(fragmentOf(offer.sdp ?? "", [], false), this.#stop.signal);
    this.#isAsking = false;
    if (this.#stop.signal.aborted) return;
    await this.#peer.setRemoteDescription({ type: "answer", sdp: withCredentials(before, fragment) });
  }

  /** Candidates go together, because each message is a request. Null: there are no more. */
  #onCandidate(candidate: string | null): void {
    const resource = this.#resource;
    if (resource === null || (resource.isLite && !this.platform.trickle) || this.#told >= CANDIDATES_MAX) return;
    if (candidate !== null) {
      this.#candidates.push(candidate);
      this.#told += 1;
    }
    const tell = (): void => {
      if (this.#isAsking) {
        this.#cancelTrickle = this.clock.after(TRICKLE_MS, tell);
        return;
      }
      const told = this.#candidates.splice(0);
      this.#cancelTrickle = null;
      const sdp = this.#peer.localDescription?.sdp ?? "";
      // What it does not know it may learn by our checks.
      resource.trickle(fragmentOf(sdp, told, candidate === null)).catch(() => {});
    };
    this.#cancelTrickle?.();
    this.#cancelTrickle = this.clock.after(candidate === null ? 0 : TRICKLE_MS, tell);
  }
}
