/** A subscription as a query, and the addresses of the edge. */

import type { Wishes } from "./messages.js";

export interface Subscription extends Wishes {
  readonly topics: readonly string[];
  /** A cursor, or `earliest`. */
  readonly from?: string;
}

/** Slashes, stars and commas stay readable. */
const encode = (value: string): string =>
  encodeURIComponent(value).replaceAll("%2F", "/").replaceAll("%2C", ",").replaceAll("%3A", ":");

/** `start` names where to go on from: `from` or, for polls, `cursor`. */
export function queryOf(subscription: Subscription, start: "from" | "cursor"): string {
  const { topics, from, recent, max_rate, max_kbps, fields, conflate } = subscription;
  const pairs: [string, string | undefined][] = [
    ["topics", topics.join(",")],
    [start, from],
    ["recent", recent?.toString()],
    ["max_rate", max_rate?.toString()],
    ["max_kbps", max_kbps?.toString()],
    ["fields", fields?.join(",")],
    ["conflate", conflate?.toString()],
  ];
  return pairs.flatMap(([name, value]) => (value === undefined ? [] : `${name}=${encode(value)}`)).join("&");
}

/** Where an edge is, and who asks. */
export class Edge {
  readonly base: URL;

  constructor(
    url: string | URL,
    private readonly token: string | undefined,
  ) {
    this.base = new URL(url, (globalThis as { location?: { href: string } }).location?.href);
    this.base.protocol = this.base.protocol.replace(/^ws/, "http");
    if (!/^https?:$/.test(this.base.protocol)) throw new TypeError(`${this.base}: expected http[s]://HOST:PORT`);
    this.base.hash = this.base.search = "";
  }

  /** A path of the edge, behind whatever path its proxy has. A browser's WebSocket cannot set a header, and a page of
   * another origin should not need to: the token goes into the query. */
  at(path: string, query = "", withToken = true): URL {
    const url = new URL(this.base);
    url.pathname = this.base.pathname.replace(/\/$/, "") + path;
    url.search = query;
    if (withToken && this.token !== undefined && !this.sendsHeaders) url.searchParams.set("token", this.token);
    return url;
  }

  /** A header keeps a token out of logs; to another origin a browser would ask first whether it may send it. */
  get sendsHeaders(): boolean {
    const { location } = globalThis as { location?: { origin: string } };
    return location === undefined || location.origin === this.base.origin;
  }

  headers(more: Record<string, string> = {}): Record<string, string> {
    return this.token !== undefined && this.sendsHeaders ? { ...more, authorization: `Bearer ${this.token}` } : more;
  }

  /** For what cannot set headers. */
  withToken(url: URL): URL {
    if (this.token !== undefined) url.searchParams.set("token", this.token);
    return url;
  }
}
