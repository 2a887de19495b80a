"""What the tests of the TLS address stand on: one request over HTTP/1.1 or HTTP/2, QUIC without HTTP, the metrics."""

from __future__ import annotations

import asyncio
import http.client
import os
import socket
import ssl
import time

import h2.config
import h2.connection
import h2.events
import h2.settings
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic.events import ConnectionTerminated, DatagramFrameReceived, StreamDataReceived

from service import Service

TIMEOUT_S = 30

# Whom the tests ask unless they say otherwise.
service: Service


def unverified(*protocols: str) -> ssl.SSLContext:
    """The certificate is one for development; what it is worth is looked at in a test of its own."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if protocols:
        context.set_alpn_protocols(protocols)
    return context


def tls(*protocols: str) -> ssl.SSLSocket:
    host, port = service.tls.rsplit(":", 1)
    return unverified(*protocols).wrap_socket(
        socket.create_connection((host, int(port)), timeout=TIMEOUT_S), server_hostname="localhost"
    )


def metric(name: str, of: Service | None = None, label: str = "") -> float:
    return (of or service).metric(name, label)


class Http2:
    """One request over HTTP/2, and what comes of it."""

    def __init__(self, headers: list[tuple[str, str]], secure: bool = True, connection: socket.socket | None = None):
        plain = lambda: socket.create_connection(service.http.rsplit(":", 1), timeout=TIMEOUT_S)
        self.socket = connection or (tls("h2") if secure else plain())
        # Whoever takes nothing opens no window.
        self.takes = True
        if secure:
            assert self.socket.selected_alpn_protocol() == "h2"
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.head: dict[str, str] = {}
        self.body, self.ended, self.settled = b"", False, False
        self.flush()
        # What the server can do comes first.
        while not self.settled:
            self.receive()
        self.stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(self.stream, headers, end_stream=(":method", "GET") in headers)
        self.flush()

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def send(self, data: bytes):
        self.h2.send_data(self.stream, data)
        self.flush()

    def receive(self):
        try:
            data = self.socket.recv(65536)
        except (ConnectionError, ssl.SSLError):
            data = b""
        self.ended |= not data
        for event in self.h2.receive_data(data):
            if isinstance(event, h2.events.RemoteSettingsChanged):
                self.settled = True
            elif isinstance(event, h2.events.ResponseReceived):
                self.head = dict(event.headers)
            elif isinstance(event, h2.events.DataReceived):
                if self.takes:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                self.body += event.data
            elif isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)):
                self.ended = True
        self.flush()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()


def http2_get(path: str) -> tuple[dict[str, str], bytes]:
    headers = [(":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", path)]
    with Http2(headers) as request:
        while not request.ended:
            request.receive()
        return request.head, request.body


def http1_get(path: str) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPSConnection(service.tls, timeout=TIMEOUT_S, context=unverified("http/1.1"))
    connection.request("GET", path)
    response = connection.getresponse()
    return response, response.read()


def masked(opcode: int, payload: bytes) -> bytes:
    mask = os.urandom(4)
    assert len(payload) < 126
    return bytes([0x80 | opcode, 0x80 | len(payload)]) + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(payload))


def settles(name: str, value: float, of: Service | None = None, label: str = ""):
    """Waits until a metric has that value."""
    for _ in range(TIMEOUT_S * 10):
        if (now := metric(name, of, label)) == value:
            return
        time.sleep(0.1)
    raise AssertionError(f"{name} is {now}, not {value}")


class Raw(QuicConnectionProtocol):
    """QUIC without HTTP."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.stream, self.datagrams = b"", []
        self.news = asyncio.Event()
        self.closed: ConnectionTerminated | None = None

    def quic_event_received(self, event):
        if isinstance(event, StreamDataReceived):
            self.stream += event.data
        elif isinstance(event, DatagramFrameReceived):
            self.datagrams.append(event.data)
        elif isinstance(event, ConnectionTerminated):
            self.closed = event
        self.news.set()

    def send(self, data: bytes):
        self._quic.send_stream_data(0, data)
        self.transmit()

    async def until(self, done):
        async with asyncio.timeout(TIMEOUT_S):
            while not done():
                self.news.clear()
                await self.news.wait()


def delimited(data: bytes) -> list[bytes]:
    """Protobuf messages with their length before them, as far as they are whole."""
    messages, at = [], 0
    while at < len(data):
        size = shift = 0
        while True:
            if at >= len(data):
                return messages
            byte, at = data[at], at + 1
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        if at + size > len(data):
            return messages
        messages.append(data[at : at + size])
        at += size
    return messages
