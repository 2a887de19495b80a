/** Everything that could grow or last has a limit here. */

/** Messages that wait for whoever takes them, and what they may weigh, in characters of JSON. */
export const INBOX_MESSAGES_MAX = 8_192;
export const INBOX_CHARS_MAX = 8 * 1024 * 1024;

/** Above this many, a state that waits gives way to a newer one of its topic. */
export const INBOX_CONFLATE_ABOVE = 256;

/** Where the transport can wait, it is asked to when this many messages do. */
export const INBOX_PAUSE_ABOVE = 1_024;

/** A line, an event or an answer is no longer: far above the contract's 64 KiB a message. */
export const LINE_CHARS_MAX = 1024 * 1024;
export const ANSWER_CHARS_MAX = 64 * 1024 * 1024;

/** Topics of one request, as at the service. */
export const REQUEST_TOPICS_MAX = 1_000;

/** Topics that one client follows. */
export const TOPICS_MAX = 10_000;

/** Requests that wait for their answers. */
export const REQUESTS_MAX = 256;

/** How long a connection, and the first word on it, may take. */
export const CONNECT_TIMEOUT_MS = 10_000;

/** The same of a transport that has never worked here, where another may: a network that drops UDP does not say so. */
export const FALLBACK_TIMEOUT_MS = 4_000;

/** A session of which nothing was heard for so many heartbeats is dead, and no sooner than after this time. */
export const SILENT_HEARTBEATS_MAX = 3;
export const SILENCE_MS_MIN = 3_000;

/** The first wait before a new attempt, and the longest. */
export const RETRY_FIRST_MS = 500;
export const RETRY_MAX_MS = 20_000;

/** Attempts in a row that a transport that has worked may fail before the next one has its turn; another has one. */
export const ATTEMPTS_PER_TRANSPORT_MAX = 2;

/** What a long poll asks for, and how much longer its answer may take. */
export const POLL_WAIT_S = 25;
export const POLL_GRACE_MS = 10_000;

/** Times that ICE may begin anew before the connection is given up, and how long each may take. */
export const ICE_RESTARTS_MAX = 2;
export const ICE_RESTART_MS = 5_000;

/** Candidates of one peer that are told to the other end, and how long they are gathered for one message. */
export const CANDIDATES_MAX = 32;
export const TRICKLE_MS = 50;

/** Readers that one reaches, as at the service. */
export const PEERS_MAX = 16;

/** The memory of what came before a loss, to tell what comes twice. */
export const TOPICS_REMEMBERED_MAX = 20_000;
