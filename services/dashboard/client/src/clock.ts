/** Time and randomness, as arguments, so that a test runs hours in no time. */

export interface Clock {
  /** Milliseconds, from some beginning. */
  now(): number;
  /** Calls back once; the returned function takes that back. */
  after(ms: number, run: () => void): () => void;
  /** From 0 up to, but without, 1. */
  random(): number;
}

export const realClock: Clock = {
  now: () => performance.now(),
  after: (ms, run) => {
    const timer = setTimeout(run, ms);
    return () => clearTimeout(timer);
  },
  random: () => Math.random(),
};
