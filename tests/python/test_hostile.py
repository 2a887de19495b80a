"""What no good client sends to the QUIC port: noise, broken packets, malformed HTTP/3 and WebTransport. The service answers as
the standards say or not at all, and serves others meanwhile.

    python test_hostile.py BINARY
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import ssl
import sys
import unittest

from aioquic.asyncio.client import connect
from aioquic.buffer import encode_uint_var
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import StopSendingReceived

from h3_client import Client, connected
from service import Service, run_tests

TIMEOUT_S = 30
H3_FRAME_UNEXPECTED, H3_SETTINGS_ERROR, H3_CLOSED_CRITICAL_STREAM = 0x105, 0x109, 0x104
H3_MISSING_SETTINGS, H3_STREAM_CREATION_ERROR = 0x10A, 0x103

service: Service


def frame(kind: int, payload: bytes) -> bytes:
    return encode_uint_var(kind) + encode_uint_var(len(payload)) + payload


DATA, HEADERS, CANCEL_PUSH, SETTINGS, PUSH_PROMISE, GOAWAY = 0, 1, 3, 4, 5, 7
# GET / of https://x, by the static table and literals of QPACK (RFC 9204).
GET = frame(HEADERS, bytes.fromhex("0000d1d7c1500178"))


class Bare(Client):
    """Speaks HTTP/3 only as it is told to: streams are its own, and nothing is sent by itself."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.ended: set[int] = set()
        self.stopped: set[int] = set()

    def quic_event_received(self, event):
        if isinstance(event, StopSendingReceived):
            self.stopped.add(event.stream_id)
        if (stream := getattr(event, "stream_id", None)) is not None and getattr(event, "end_stream", True):
            self.ended.add(stream)
        if hasattr(event, "reason_phrase"):
            self.closed = event

    def stream(self, data: bytes, unidirectional: bool = False, end: bool = False) -> int:
        stream = self._quic.get_next_available_stream_id(is_unidirectional=unidirectional)
        self._quic.send_stream_data(stream, data, end)
        return stream

    async def settle(self):
        """Waits until all has arrived, or the connection is at its end."""
        self.transmit()
        try:
            await asyncio.wait_for(self.ping(), TIMEOUT_S)
            await asyncio.wait_for(self.ping(), TIMEOUT_S)
        except ConnectionError:
            pass


def bare():
    """A connection without a word of HTTP/3 on it: aioquic's own first streams are left out."""
    host, port = service.tls.rsplit(":", 1)
    configuration = QuicConfiguration(
        is_client=True, alpn_protocols=["h3"], verify_mode=ssl.CERT_NONE, max_datagram_frame_size=65536
    )

    def create(quic, **kwargs):
        protocol = Bare(quic, **kwargs)
        protocol._quic._streams.clear()
        protocol._quic._streams_queue.clear()
        protocol._quic._local_next_stream_id_uni = 2
        return protocol

    return connect(host, int(port), configuration=configuration, create_protocol=create)


class Hostile(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        """A good reader, who must not notice."""
        self.connection = connected(service.tls)
        self.good = await self.connection.__aenter__()
        self.lines = self.good.lines("/v1/stream?topics=quote/synthetic/*", accept="application/x-ndjson")
        await self.reads_on()

    async def asyncTearDown(self):
        await self.reads_on()
        await self.lines.aclose()
        # Whoever comes now is served as well.
        async with connected(service.tls) as client:
            self.assertEqual((await client.get("/v1/venues"))[0], 200)
        await self.connection.__aexit__(None, None, None)

    async def reads_on(self):
        for _ in range(40):
            await asyncio.wait_for(anext(self.lines), TIMEOUT_S)

    async def test_noise(self):
        noise = random.Random(1)
        host, port = service.tls.rsplit(":", 1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
            plain.connect((host, int(port)))
            for size in [*range(64), *[noise.randrange(1500) for _ in range(1500)], 65_507]:
                packet = bytearray(noise.randbytes(size))
                if size > 6 and noise.random() < 0.7:
                    # It begins as QUIC does: a long header of version 1, of another, or a short header.
                    packet[0] |= 0xC0 if noise.random() < 0.7 else 0x40
                    packet[1:5] = noise.choice([b"\0\0\0\1", b"\0\0\0\0", b"\xff\0\0\x1d", b"\x0a\x1a\x2a\x3a"])
                    packet[5] = noise.choice([0, 8, 20, 21, 255])
                try:
                    plain.send(packet)
                except ConnectionError:
                    pass

    async def test_broken_first_packets(self):
        noise = random.Random(2)
        host, port = service.tls.rsplit(":", 1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
            plain.connect((host, int(port)))
            for _ in range(200):
                configuration = QuicConfiguration(is_client=True, alpn_protocols=["h3"], server_name="localhost")
                quic = QuicConnection(configuration=configuration)
                quic.connect((host, int(port)), now=0.0)
                ((packet, _),) = quic.datagrams_to_send(now=0.0)[:1]
                packet = bytearray(packet)
                for _ in range(noise.randrange(1, 8)):
                    packet[noise.randrange(len(packet))] = noise.randrange(256)
                plain.send(packet[: noise.choice([len(packet), noise.randrange(1, len(packet))])])

    async def test_what_breaks_http3(self):
        control = bytes([0]) + frame(SETTINGS, b"")
        cases = [
            ("a body before a head", [(frame(DATA, b"x"), False, True)], H3_FRAME_UNEXPECTED),
            ("a frame of HTTP/2", [(frame(2, b"12345"), False, True)], H3_FRAME_UNEXPECTED),
            ("settings on a request", [(frame(SETTINGS, b""), False, True)], H3_FRAME_UNEXPECTED),
            ("a push promise from a client", [(frame(PUSH_PROMISE, b"\0\0\0"), False, True)], H3_FRAME_UNEXPECTED),
            ("settings twice", [(control + frame(SETTINGS, b""), True, False)], H3_FRAME_UNEXPECTED),
            ("settings of HTTP/2", [(bytes([0]) + frame(SETTINGS, b"\x02\x01"), True, False)], H3_SETTINGS_ERROR),
            ("a control stream without settings", [(bytes([0]) + frame(GOAWAY, b"\0"), True, False)], H3_MISSING_SETTINGS),
            ("a control stream that ends", [(control, True, True)], H3_CLOSED_CRITICAL_STREAM),
            ("two control streams", [(control, True, False), (control, True, False)], H3_STREAM_CREATION_ERROR),
        ]
        for name, streams, code in cases:
            with self.subTest(name):
                async with bare() as client:
                    for data, unidirectional, end in streams:
                        client.stream(data, unidirectional, end)
                    await client.settle()
                    self.assertIsNotNone(client.closed, "the connection goes on")
                    self.assertEqual(hex(client.closed.error_code), hex(code))

    async def test_what_breaks_a_request(self):
        """The connection may end by it or the stream alone; it must not be answered with 200."""
        fields = bytes.fromhex("0000d1d7c1500178")
        cases = {
            "no pseudo-fields": frame(HEADERS, b"\0\0"),
            "QPACK that is none": frame(HEADERS, b"\xff" * 40),
            "a dynamic table that is not there": frame(HEADERS, b"\x05\x00\x80\x81"),
            "a length beyond the end": encode_uint_var(HEADERS) + encode_uint_var(2**61) + b"x",
            "half a frame": GET[: len(GET) // 2],
            "a frame that nobody knows, of 2^60 bytes": encode_uint_var(0x21) + encode_uint_var(2**60) + b"x" * 100_000,
            "an upper-case field": frame(HEADERS, fields + b"\x23ABC\x01x"),
            "a head of a megabyte": frame(HEADERS, fields + (b"\x23abc\x64" + b"x" * 100) * 10_000),
            "nothing": b"",
        }
        for name, data in cases.items():
            with self.subTest(name):
                async with bare() as client:
                    client.stream(bytes([0]) + frame(SETTINGS, b""), unidirectional=True)
                    stream = client.stream(data, end=True)
                    await client.settle()
                    self.assertTrue(client.closed or stream in client.ended or stream in client.stopped, name)

    async def test_frames_larger_than_anybody_needs(self):
        """They are not kept until they are whole: their stream is stopped."""
        huge = encode_uint_var(2**61)
        for kind in (HEADERS, SETTINGS, GOAWAY, 0x21):
            for unidirectional in (False, True):
                with self.subTest(kind=kind, unidirectional=unidirectional):
                    async with bare() as client:
                        beginning = bytes([0]) + frame(SETTINGS, b"") if unidirectional else b""
                        stream = client.stream(beginning + encode_uint_var(kind) + huge + b"x" * 30_000, unidirectional)
                        await client.settle()
                        self.assertTrue(stream in client.stopped or client.closed)

    async def test_what_breaks_webtransport(self):
        async with connected(service.tls) as client:
            # Fewer than it may have open at first, since some of them stay.
            for data in [b"\x40\x41", b"\x40\x41\xff", b"\x40\x41\x00junk", b"\x40\x41\xc0\0\0\0\0\0\0\x04{}\n"]:
                stream = client._quic.get_next_available_stream_id()
                client._quic.send_stream_data(stream, data)
            for data in [b"", b"\xff", b"\x00", b"\x05junk", os.urandom(1000)]:
                client._quic.send_datagram_frame(data)
            client.transmit()
            session = await client.webtransport("/v1/wt")
            client._quic.send_stream_data(session.connect_stream, frame(DATA, os.urandom(300)))
            session.open()
            session.send(b"\xff\xfe\n\n\n{}\n" * 50)
            session.send({"op": "ping", "id": 7})
            async for message in session.objects():
                if message.get("op") == "pong":
                    break

    async def test_anything_at_all(self):
        """Well-formed QUIC with frames of any kind in any order on streams of any kind."""
        noise = random.Random(3)
        for _ in range(60):
            async with bare() as client:
                for _ in range(noise.randrange(1, 12)):
                    kind = noise.choice([DATA, HEADERS, CANCEL_PUSH, SETTINGS, PUSH_PROMISE, GOAWAY, 0xD, 0x21, 0x41, noise.randrange(2**20)])
                    payload = noise.choice([b"", noise.randbytes(noise.randrange(60)), GET[2:]])
                    data = frame(kind, payload) * noise.randrange(1, 4)
                    unidirectional = noise.random() < 0.5
                    if unidirectional:
                        data = encode_uint_var(noise.choice([0, 1, 2, 3, 0x54, 0x21])) + data
                    try:
                        client.stream(data, unidirectional, noise.random() < 0.5)
                    except AssertionError:
                        break
                await client.settle()


if __name__ == "__main__":
    sys.exit(run_tests(__doc__, "10@25"))
