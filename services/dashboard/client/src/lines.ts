/** Text cut into lines, and lines into server-sent events (WHATWG HTML §9.2), wherever it was cut on its way. */

import { againstContract } from "./failure.js";
import { LINE_CHARS_MAX } from "./limits.js";

export class LineParser {
  #rest = "";

  /** The lines that are whole now. */
  push(text: string): string[] {
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop() ?? "";
    if (this.#rest.length > LINE_CHARS_MAX) throw againstContract("a line that does not end");
    return lines.map((line) => (line.endsWith("\r") ? line.slice(0, -1) : line));
  }
}

export interface ServerSentEvent {
  readonly data: string;
  /** The event's `id`, if it has one. */
  readonly id: string | undefined;
}

export class EventParser {
  #lines = new LineParser();
  #data: string[] = [];
  #chars = 0;
  #id: string | undefined;

  /** The events that are whole now. Comments, which keep a connection warm, are none. */
  push(text: string): ServerSentEvent[] {
    const events: ServerSentEvent[] = [];
    for (const line of this.#lines.push(text)) {
      if (line === "") {
        if (this.#data.length > 0 || this.#id !== undefined) events.push({ data: this.#data.join("\n"), id: this.#id });
        this.#data = [];
        this.#chars = 0;
        this.#id = undefined;
        continue;
      }
      const colon = line.indexOf(":");
      const field = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
      if (field === "data") {
        this.#data.push(value);
        this.#chars += value.length;
        if (this.#chars > LINE_CHARS_MAX) throw againstContract("an event that does not end");
      } else if (field === "id" && !value.includes("\0")) {
        this.#id = value;
      }
      // `event` says only whether it is a notice, which the JSON says too.
    }
    return events;
  }
}
