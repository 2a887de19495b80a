/** What can go wrong, and whether it may go better later. */

/** The contract's codes; as a WebSocket's close code each is 4000 and its place here. */
export const CODES = [
  "bad_request",
  "unknown_topic",
  "unauthorized",
  "forbidden",
  "too_many_topics",
  "too_many_sessions",
  "rate_limited",
  "message_too_large",
  "slow_consumer",
  "draining",
  "not_implemented",
  "internal",
] as const;

export type Code = (typeof CODES)[number];

const TRANSIENT: readonly Code[] = ["too_many_sessions", "rate_limited", "slow_consumer", "draining", "internal"];

/** HTTP statuses of answers that name no code. */
const OF_STATUS: Readonly<Record<number, Code>> = {
  401: "unauthorized",
  403: "forbidden",
  413: "message_too_large",
  414: "message_too_large",
  429: "rate_limited",
  431: "message_too_large",
  501: "not_implemented",
  503: "draining",
};

export interface FailureDetails {
  readonly code?: Code | undefined;
  readonly retryMs?: number | undefined;
  readonly isProtocol?: boolean | undefined;
  readonly cause?: unknown;
}

/** Why there is no connection, or an answer is no. */
export class TickerError extends Error {
  override readonly name = "TickerError";
  /** The contract's code, where the service gave one; none where the connection was lost. */
  readonly code: Code | undefined;
  /** How long to wait, where the service said so. */
  readonly retryMs: number | undefined;
  /** What came is not as the contract says. */
  readonly isProtocol: boolean;

  constructor(message: string, { code, retryMs, isProtocol = false, cause }: FailureDetails = {}) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
    this.retryMs = retryMs;
    this.isProtocol = isProtocol;
  }

  /** May the same succeed later? */
  get isTransient(): boolean {
    return this.code === undefined ? !this.isProtocol : TRANSIENT.includes(this.code);
  }
}

export const lost = (why: string, cause?: unknown): TickerError => new TickerError(why, { cause });

export const againstContract = (why: string): TickerError =>
  new TickerError(`not as the contract says: ${why}`, { isProtocol: true });

export const isCode = (name: unknown): name is Code => CODES.includes(name as Code);

export function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** From a close code, of a WebSocket or a WebTransport session. */
export function fromClose(close: number, reason: string): TickerError {
  const code = CODES[close - 4000];
  if (code) return new TickerError(reason || "the session was closed", { code });
  // RFC 6455 §7.4.1: the server goes away.
  if (close === 1001) return new TickerError("the server goes away", { code: "draining" });
  return lost(`the connection ended (${close}${reason && ` ${reason}`})`);
}

/** From an answer that is no good: problem details (RFC 9457), or whatever else came. */
export async function fromResponse(response: Response): Promise<TickerError> {
  const text = await response.text().catch(() => "");
  let problem: { code?: unknown; detail?: unknown; title?: unknown } = {};
  try {
    problem = (JSON.parse(text) as typeof problem | null) ?? {};
  } catch {
    // A proxy's page, for example.
  }
  const { status } = response;
  const code = isCode(problem.code) ? problem.code : (OF_STATUS[status] ?? (status < 500 ? undefined : "internal"));
  const told = problem.detail ?? problem.title ?? text.trim().slice(0, 200);
  const seconds = Number(response.headers.get("retry-after") ?? NaN);
  const retryMs = Number.isFinite(seconds) ? seconds * 1_000 : undefined;
  // Whoever else answers there does not know our paths.
  const isProtocol = code === undefined;
  return new TickerError(told ? String(told) : `HTTP status ${status}`, { code, retryMs, isProtocol });
}
