// Bun's native publish/subscribe (uWebSockets): one feed in, topics out. The bench says the port.
const TOPIC_LENGTH = "quote/bench/B00000-USD".length;

const server = Bun.serve({
  hostname: "127.0.0.1",
  port: Number(process.argv[2]),
  fetch(request, server) {
    const url = new URL(request.url);
    const topics = url.pathname === "/feed" ? null : (url.searchParams.get("topics") ?? "").split(",");
    if (server.upgrade(request, { data: { topics } })) return undefined;
    return new Response("a WebSocket is wanted", { status: 400 });
  },
  websocket: {
    perMessageDeflate: false,
    // The nearest to a heartbeat every 15 s: pings are sent in time before it.
    idleTimeout: 30,
    sendPings: true,
    open(socket) {
      for (const topic of socket.data.topics ?? []) socket.subscribe(topic);
    },
    message(socket, message) {
      if (socket.data.topics === null) server.publish(message.slice(0, TOPIC_LENGTH), message.slice(TOPIC_LENGTH));
    },
  },
});
console.log(`listens on ${server.port}`);
