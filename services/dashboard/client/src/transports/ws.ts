/** WebSocket: one JSON object a message. */

import { fromClose, lost } from "../failure.js";
import type { Link, Platform, Sink, Way } from "../transport.js";

const SUBPROTOCOL = "ticker.v1.json";

export function overWebSocket({ edge }: Platform, Socket: typeof WebSocket): Way {
  return {
    isDuplex: true,
    tells: false,
    waits: false,
    open(_, sink: Sink): Link {
      const url = edge.withToken(edge.at("/v1/ws"));
      url.protocol = url.protocol.replace(/^http/, "ws");
      const socket = new Socket(url.href, SUBPROTOCOL);
      let isOver = false;
      socket.onopen = () => !isOver && sink.opened();
      socket.onmessage = ({ data }: MessageEvent) => {
        if (!isOver) sink.message(String(data));
      };
      // `close` follows, with what there is to say.
      socket.onerror = () => {};
      socket.onclose = ({ code, reason }) => {
        if (isOver) return;
        isOver = true;
        sink.closed(code === 1006 ? lost("the WebSocket could not be opened, or broke") : fromClose(code, reason));
      };
      return {
        send: (request) => socket.send(JSON.stringify(request)),
        close: () => {
          isOver = true;
          socket.close();
        },
      };
    },
  };
}
