"""An HTTP/3 client on aioquic, and WebTransport on it, for the tests: one connection, blocking calls for readers."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from contextlib import asynccontextmanager

from aioquic.asyncio import QuicConnectionProtocol
from aioquic.asyncio.client import connect
from aioquic.h3.connection import H3_ALPN, FrameType, H3Connection
from aioquic.h3.events import DatagramReceived, DataReceived, HeadersReceived, WebTransportStreamDataReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, StreamReset


class Client(QuicConnectionProtocol):
    """What comes on a stream goes into its queue: a dict of headers, then bytes, then None. Datagrams have one of their own."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.h3 = H3Connection(self._quic, enable_webtransport=True)
        self.queues: dict[int, asyncio.Queue] = {}
        self.datagrams: asyncio.Queue = asyncio.Queue()
        self.closed: ConnectionTerminated | None = None

    def quic_event_received(self, event):
        if isinstance(event, ConnectionTerminated):
            self.closed = event
            for queue in self.queues.values():
                queue.put_nowait(None)
        if isinstance(event, StreamReset):
            self._queue(event.stream_id).put_nowait(None)
        for event in self.h3.handle_event(event):
            if isinstance(event, DatagramReceived):
                self.datagrams.put_nowait((event.stream_id, event.data))
                continue
            queue = self._queue(event.stream_id)
            if isinstance(event, HeadersReceived):
                queue.put_nowait({k.decode(): v.decode() for k, v in event.headers})
            elif isinstance(event, (DataReceived, WebTransportStreamDataReceived)) and event.data:
                queue.put_nowait(event.data)
            if event.stream_ended:
                queue.put_nowait(None)

    def _queue(self, stream: int) -> asyncio.Queue:
        return self.queues.setdefault(stream, asyncio.Queue())

    def request(self, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> asyncio.Queue:
        """Sends a request; the answer comes through the queue."""
        stream = self._quic.get_next_available_stream_id()
        pairs = [(":method", method), (":scheme", "https"), (":authority", "localhost"), (":path", path)]
        pairs += [(k.replace("_", "-"), v) for k, v in headers.items()]
        encoded = [(k.encode(), v.encode()) for k, v in pairs]
        queue = self._queue(stream)
        queue.stream = stream
        self.h3.send_headers(stream, encoded, end_stream=body is None)
        if body is not None:
            self.h3.send_data(stream, body, end_stream=True)
        self.transmit()
        return queue

    async def get(self, path: str, **headers: str) -> tuple[int, dict, bytes]:
        """A whole answer."""
        queue = self.request(path, **headers)
        head, body = await queue.get(), b""
        while (chunk := await queue.get()) is not None:
            body += chunk
        return int(head[":status"]), head, body

    async def lines(self, path: str, **headers: str):
        """The lines of a streamed answer, as text."""
        queue, rest = self.request(path, **headers), b""
        head = await queue.get()
        assert head[":status"] == "200", head
        try:
            while (chunk := await queue.get()) is not None:
                *whole, rest = (rest + chunk).split(b"\n")
                for line in whole:
                    yield line.decode()
        except GeneratorExit:
            self._quic.stop_stream(queue.stream, 0x10C)
            self.transmit()
            raise

    async def move(self):
        """Goes on from another port, as behind a NAT that forgot us, or in another network."""
        sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(("::", 0))
        before = self._transport
        await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, sock=sock)
        before.close()
        await self.ping()

    def freeze(self):
        """Takes nothing more on any stream, as a reader who has stopped reading: no window is opened any further."""
        self._quic._write_connection_limits = lambda *_, **__: None
        self._quic._write_stream_limits = lambda *_, **__: None

    def ask_webtransport(self, path: str) -> asyncio.Queue:
        """Asks for a session; the answer comes through the queue."""
        stream = self._quic.get_next_available_stream_id()
        pairs = [(":method", "CONNECT"), (":protocol", "webtransport"), (":scheme", "https")]
        pairs += [(":authority", "localhost"), (":path", path), ("origin", "https://localhost")]
        queue = self._queue(stream)
        queue.stream = stream
        self.h3.send_headers(stream, [(k.encode(), v.encode()) for k, v in pairs])
        self.transmit()
        return queue

    async def webtransport(self, path: str) -> Session:
        """Opens a session."""
        queue = self.ask_webtransport(path)
        return Session(self, queue.stream, queue, await queue.get())


class Session:
    """A WebTransport session whose bidirectional stream carries one JSON object a line."""

    def __init__(self, client: Client, connect_stream: int, queue: asyncio.Queue, head: dict):
        self.client, self.connect_stream, self.queue, self.head = client, connect_stream, queue, head
        self.rest = b""
        self.stream: int | None = None

    def open(self):
        self.stream = self.client.h3.create_webtransport_stream(self.connect_stream)
        # aioquic takes what comes back for frames of HTTP/3 unless it is told.
        with self.client.h3._get_or_create_stream(self.stream) as stream:
            stream.frame_type, stream.session_id = FrameType.WEBTRANSPORT_STREAM, self.connect_stream

    def send(self, data: dict | bytes):
        encoded = data if isinstance(data, bytes) else json.dumps(data).encode() + b"\n"
        self.client._quic.send_stream_data(self.stream, encoded)
        self.client.transmit()

    async def objects(self):
        """Objects from the session's stream, to its end."""
        queue = self.client._queue(self.stream)
        while (chunk := await queue.get()) is not None:
            *whole, self.rest = (self.rest + chunk).split(b"\n")
            for line in whole:
                yield json.loads(line)

    async def datagram(self) -> dict:
        stream, data = await self.client.datagrams.get()
        assert stream == self.connect_stream, stream
        return json.loads(data)

    async def close_code(self) -> tuple[int, str] | None:
        """Code and reason of the session's end (a capsule on the CONNECT stream)."""
        data = b""
        while (chunk := await self.queue.get()) is not None:
            data += chunk
        if not data:
            return None
        assert data[:2] == b"\x68\x43", data
        size, at = (data[2], 3) if data[2] < 0x40 else (int.from_bytes(data[2:4], "big") & 0x3FFF, 4)
        assert len(data) == at + size, data
        return int.from_bytes(data[at : at + 4], "big"), data[at + 4 :].decode()

    def close(self):
        self.client._quic.send_stream_data(self.connect_stream, b"", end_stream=True)
        self.client.transmit()


@asynccontextmanager
async def connected(address: str, tickets: list | None = None, wait: bool = True, **options):
    """A connection to `host:port`, whose certificate is not looked at. Tickets for sessions to come go into `tickets`. With
    `wait=False` what is asked for goes out before the handshake is complete, where a ticket (`session_ticket`) allows it."""
    host, port = address.rsplit(":", 1)
    configuration = QuicConfiguration(
        is_client=True, alpn_protocols=H3_ALPN, verify_mode=ssl.CERT_NONE, max_datagram_frame_size=65536, **options
    )
    handler = None if tickets is None else tickets.append
    async with connect(
        host,
        int(port),
        configuration=configuration,
        create_protocol=Client,
        session_ticket_handler=handler,
        wait_connected=wait,
    ) as client:
        yield client
