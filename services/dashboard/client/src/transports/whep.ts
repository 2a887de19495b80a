/**
 * What an offer and its later words look like in HTTP: the form of WHEP (draft-ietf-wish-whep) and WHIP (RFC 9725), with SDP
 * fragments (RFC 8840).
 */

import { fromResponse, againstContract } from "../failure.js";
import type { Edge } from "../query.js";

const FRAGMENT = "application/trickle-ice-sdpfrag";

/** ICE servers from a `Link` header (RFC 9725 §4.6). */
export function iceServersOf(link: string | null): RTCIceServer[] {
  const servers: RTCIceServer[] = [];
  // Of a link: its URL, then its parameters, whose quoted values may hold anything.
  for (const [, url = "", parameters = ""] of (link ?? "").matchAll(
    /<([^>]*)>((?:\s*;\s*[\w-]+(?:=(?:"(?:[^"\\]|\\.)*"|[^\s",;]*))?)*)/g,
  )) {
    const values = new Map<string, string>();
    for (const [, name = "", quoted, plain] of parameters.matchAll(
      /;\s*([\w-]+)(?:=(?:"((?:[^"\\]|\\.)*)"|([^\s",;]*)))?/g,
    )) {
      values.set(name.toLowerCase(), quoted?.replace(/\\(.)/g, "$1") ?? plain ?? "");
    }
    if (values.get("rel") !== "ice-server") continue;
    const [username, credential] = [values.get("username"), values.get("credential")];
    servers.push({
      urls: url,
      ...(username !== undefined && { username }),
      ...(credential !== undefined && { credential }),
    });
  }
  return servers;
}

/** The lines of a description that say how ICE goes, with those candidates. */
export function fragmentOf(sdp: string, candidates: readonly string[], isLast: boolean): string {
  const lines = sdp.split(/\r?\n/);
  const find = (start: string) => lines.find((line) => line.startsWith(start));
  const parts = [find("a=ice-ufrag:"), find("a=ice-pwd:"), find("m="), find("a=mid:")];
  parts.push(...candidates.map((candidate) => `a=${candidate}`), isLast ? "a=end-of-candidates" : undefined);
  return parts.filter((line) => line !== undefined).join("\r\n") + "\r\n";
}

/** A description with the credentials of a fragment: what the other end says now that ICE begins anew. */
export function withCredentials(sdp: string, fragment: string): string {
  let changed = sdp;
  for (const name of ["ice-ufrag", "ice-pwd"]) {
    const line = fragment.split(/\r?\n/).find((line) => line.startsWith(`a=${name}:`));
    if (line === undefined) throw againstContract(`an answer without ${name}`);
    changed = changed.replace(new RegExp(`^a=${name}:.*$`, "gm"), () => line);
  }
  return changed;
}

/** The edge's side of one peer connection. */
export class Resource {
  #tag: string | null;

  private constructor(
    readonly answer: string,
    readonly iceServers: readonly RTCIceServer[],
    private readonly url: URL,
    private readonly edge: Edge,
    private readonly fetch_: typeof fetch,
    tag: string | null,
  ) {
    this.#tag = tag;
  }

  /** Offers. */
  static async create(
    edge: Edge,
    fetch_: typeof fetch,
    query: string,
    sdp: string,
    signal: AbortSignal,
  ): Promise<Resource> {
    const headers = edge.headers({ "content-type": "application/sdp" });
    const asked = edge.at("/v1/rtc", query);
    const response = await fetch_(asked, { method: "POST", headers, body: sdp, signal });
    if (response.status !== 201) throw await fromResponse(response);
    const location = response.headers.get("location");
    if (location === null) throw againstContract("an answer that does not say where it is");
    // A path from the edge's root; a proxy may have put that below another.
    const url = location.startsWith("/v1/") ? edge.at(location) : new URL(location, asked);
    const servers = iceServersOf(response.headers.get("link"));
    return new Resource(await response.text(), servers, url, edge, fetch_, response.headers.get("etag"));
  }

  /** Does the other end learn of our addresses by our checks, so that candidates need not be told (RFC 8445 §2.5)? */
  get isLite(): boolean {
    return /^a=ice-lite\r?$/m.test(this.answer);
  }

  /** Tells more candidates. */
  async trickle(fragment: string): Promise<void> {
    const response = await this.#patch(fragment, this.#tag ?? "*", null);
    if (!response.ok) throw await fromResponse(response);
  }

  /** Begins ICE anew: the other end's fragment. */
  async restart(fragment: string, signal: AbortSignal): Promise<string> {
    const response = await this.#patch(fragment, "*", signal);
    if (response.status !== 200) throw await fromResponse(response);
    this.#tag = response.headers.get("etag");
    return response.text();
  }

  /** The peer is gone, and need not be waited for. */
  end(): void {
    this.fetch_(this.url, { method: "DELETE", headers: this.edge.headers(), keepalive: true }).catch(() => {
      // The edge sees it by the silence.
    });
  }

  #patch(body: string, match: string, signal: AbortSignal | null): Promise<Response> {
    const headers = this.edge.headers({ "content-type": FRAGMENT, "if-match": match });
    return this.fetch_(this.url, { method: "PATCH", headers, body, signal });
  }
}
