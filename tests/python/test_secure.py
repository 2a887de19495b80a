"""The TLS address as readers in Python see it: HTTP/1.1, HTTP/2, HTTP/3, WebTransport and QUIC, by clients that are not ours.

    python test_secure.py BINARY
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import http.client
import json
import os
import signal
import socket
import ssl
import struct
import sys
import tempfile
import time
import unittest
from datetime import datetime, timedelta, timezone

import h2.settings
from aioquic.asyncio.client import connect as quic_connect
from aioquic.h3.connection import FrameType
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import StreamDataReceived
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from websockets.sync.client import connect as websocket_connect

import clients
import secure
from h3_client import connected
from secure import Http2, Raw, TIMEOUT_S, delimited, http1_get, http2_get, masked, metric, settles, tls, unverified
from service import Service, run_tests

TRADES = ["trade/synthetic/*"]
DAY_S = 24 * 60 * 60

service: Service


class Tls(unittest.TestCase):
    def test_the_certificate_is_short_lived_and_its_hash_is_told(self):
        with tls() as secure:
            der = secure.getpeercert(binary_form=True)
        answer = json.loads(http1_get("/v1/certificate-hashes")[1])
        self.assertEqual(answer["port"], int(service.tls.rsplit(":", 1)[1]))
        self.assertEqual(answer, clients.get(service.http, "/v1/certificate-hashes")[2])
        (told,) = answer["hashes"]
        self.assertEqual((told["algorithm"], base64.b64decode(told["value"])), ("sha-256", hashlib.sha256(der).digest()))
        with open(service.log.name + ".pem", "w") as pem:
            pem.write(ssl.DER_cert_to_PEM_cert(der))
        decoded = ssl._ssl._test_decode_cert(pem.name)
        os.unlink(pem.name)
        begins, ends = (ssl.cert_time_to_seconds(decoded[k]) for k in ("notBefore", "notAfter"))
        self.assertLessEqual(ends - begins, 13 * DAY_S)
        self.assertIn(("DNS", "localhost"), decoded["subjectAltName"])

    def test_both_versions_of_http_answer_and_name_the_third(self):
        port = service.tls.rsplit(":", 1)[1]
        response, body = http1_get("/v1/venues")
        self.assertEqual((response.status, response.getheader("alt-svc")), (200, f'h3=":{port}"; ma=86400'))
        head, same = http2_get("/v1/venues")
        self.assertEqual((head[":status"], head["alt-svc"]), ("200", f'h3=":{port}"; ma=86400'))
        self.assertEqual([v["venue"] for v in json.loads(same)["venues"]], ["best", "synthetic"])
        connection = http.client.HTTPConnection(service.http, timeout=TIMEOUT_S)
        connection.request("GET", "/")
        self.assertIsNone(connection.getresponse().getheader("alt-svc"), "what has no TLS names no other service")

    def test_websocket(self):
        url = f"wss://{service.tls}/v1/ws"
        with websocket_connect(url, ssl=unverified(), subprotocols=["ticker.v1.json"], proxy=None) as session:
            session.send(json.dumps({"op": "subscribe", "id": 1, "topics": ["book-50/synthetic/*"]}))
            while json.loads(session.recv(TIMEOUT_S)).get("kind") != "update":
                pass
            session.ping().wait(TIMEOUT_S)
            session.send("x" * 2**17)
            with self.assertRaises(Exception):
                while True:
                    session.recv(TIMEOUT_S)
            self.assertEqual(session.close_code, 4007, "message_too_large")

    def test_websocket_over_http2(self):
        headers = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"), (":path", "/v1/ws")]
        headers += [(":authority", "localhost"), ("sec-websocket-version", "13")]
        headers += [("sec-websocket-protocol", "ticker.v1.json")]
        for secure in (True, False):
            with self.subTest(secure=secure), Http2(headers, secure) as session:
                supported = h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL
                self.assertEqual(session.h2.remote_settings[supported], 1)
                while not session.head:
                    session.receive()
                self.assertEqual((session.head[":status"], session.head["sec-websocket-protocol"]), ("200", "ticker.v1.json"))
                request = {"op": "subscribe", "id": 1, "topics": ["quote/synthetic/*"]}
                session.send(masked(1, json.dumps(request).encode()))
                while session.body.count(b'"kind":"update"') < 20:
                    session.receive()
                session.send(masked(8, struct.pack(">H", 1000)))
                while not session.ended:
                    session.receive()
                self.assertTrue(session.body.endswith(b"\x88\x02" + struct.pack(">H", 1000)), session.body[-20:])


class Files(unittest.TestCase):
    """Certificates from files."""

    def write(self, folder: str) -> bytes:
        """Writes a key and a certificate for it; gives the certificate."""
        key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(timezone.utc)
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
        builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        made = builder.not_valid_before(now).not_valid_after(now + timedelta(days=90)).sign(key, hashes.SHA256())
        pem = serialization.Encoding.PEM
        private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        for file, content in (("tls.key", private), ("tls.crt", made.public_bytes(pem))):
            with open(f"{folder}/{file}", "wb") as out:
                out.write(content)
        return made.public_bytes(serialization.Encoding.DER)

    def served(self, address: str) -> bytes:
        host, port = address.rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=TIMEOUT_S) as plain:
            return unverified().wrap_socket(plain).getpeercert(binary_form=True)

    async def served_by_quic(self, address: str) -> bytes:
        async with connected(address) as client:
            return client._quic.tls._peer_certificate.public_bytes(serialization.Encoding.DER)

    def test_a_new_certificate_is_served_and_nobody_is_dropped(self):
        with tempfile.TemporaryDirectory() as folder:
            first = self.write(folder)
            with open(f"{folder}/ticker.toml", "w") as toml:
                toml.write(f'[edge]\ntls_certificate = "{folder}/tls.crt"\ntls_key = "{folder}/tls.key"\n')
            with Service(sys.argv[1], "--synthetic", "3@20", "--config", f"{folder}/ticker.toml") as other:
                self.assertEqual(self.served(other.tls), first)
                url = f"wss://{other.tls}/v1/ws?topics=quote/synthetic/*"
                with websocket_connect(url, ssl=unverified(), proxy=None) as session:
                    second = self.write(folder)
                    other.process.send_signal(signal.SIGHUP)
                    self.until(lambda: self.served(other.tls) == second)
                    self.assertEqual(asyncio.run(self.served_by_quic(other.tls)), second)
                    with open(f"{folder}/tls.crt", "w") as broken:
                        broken.write("nothing")
                    other.process.send_signal(signal.SIGHUP)
                    for _ in range(50):
                        session.recv(TIMEOUT_S)
                    self.assertEqual(self.served(other.tls), second)
                told = clients.get(other.http, "/v1/certificate-hashes")[2]
                self.assertEqual(told["hashes"], [], "a browser looks at it as at any other")
            self.assertEqual(other.exit_code, 0)

    def until(self, done):
        deadline = time.monotonic() + TIMEOUT_S
        while not done():
            self.assertLess(time.monotonic(), deadline)


class Http3(unittest.IsolatedAsyncioTestCase):
    async def test_answers(self):
        async with connected(service.tls) as client:
            status, head, body = await client.get("/v1/snapshot?topics=quote/synthetic/*")
            self.assertEqual((status, head["content-type"]), (200, "application/json"))
            self.assertTrue(all(e["kind"] == "snapshot" for e in json.loads(body)["events"]))
            status, head, body = await client.get("/v1/stream?topics=quote/synthetic/NO-SUCH")
            self.assertEqual((status, json.loads(body)["code"]), (404, "unknown_topic"))
            status, head, body = await client.get("/")
            self.assertIn("text/html", head["content-type"])
            self.assertEqual((await client.get("/v1/ws"))[0], 400)
            self.assertEqual((await client.get("/", x_large="y" * 20_000))[0], 431)
            answers = await asyncio.gather(*[client.get("/v1/snapshot?topics=quote/synthetic/*") for _ in range(100)])
            self.assertEqual({status for status, _, _ in answers}, {200})

    async def test_streams(self):
        async with connected(service.tls) as client:
            ids, updates = [], 0
            async for line in client.lines("/v1/stream?topics=quote/synthetic/*", accept="text/event-stream"):
                if line.startswith("id: "):
                    ids.append(int(line.rsplit("-", 1)[1]))
                updates += '"kind":"update"' in line
                if updates == 50:
                    break
            self.assertEqual(ids, sorted(ids))
            lines = 0
            path = "/v1/stream?topics=book-10/synthetic/*"
            async for line in client.lines(path, accept="application/x-ndjson"):
                json.loads(line)
                lines += 1
                if lines == 50:
                    break

    async def test_a_cursor_carries_on_from_one_version_of_http_to_the_next(self):
        """Each brings the trades after the last one's cursor: none is missing, none comes twice."""
        topics = clients.parameters(TRADES)
        cursor, trades, last = "earliest", {}, {}
        async with connected(service.tls) as client:
            for turn in range(12):
                path = f"/v1/poll?{topics}&cursor={cursor}&wait=20"
                match turn % 3:
                    case 0:
                        body = (await asyncio.to_thread(http1_get, path))[1]
                    case 1:
                        body = (await asyncio.to_thread(http2_get, path))[1]
                    case _:
                        body = (await client.get(path))[2]
                answer = json.loads(body)
                cursor = answer["cursor"]
                for event in answer["events"]:
                    topic = event["topic"]
                    self.assertNotIn((topic, event["seq"]), trades)
                    if topic in last:
                        self.assertEqual(event["prev"], last[topic], topic)
                    last[topic] = event["seq"]
                    trades[topic, event["seq"]] = event
        self.assertGreater(len(trades), 20)

    async def test_whoever_leaves_is_forgotten(self):
        for _ in range(20):
            async with connected(service.tls) as client:
                self.assertEqual((await client.get("/v1/venues"))[0], 200)
        async with connected(service.tls) as client:
            async for _ in client.lines("/v1/stream?topics=quote/synthetic/*"):
                break
        await asyncio.to_thread(settles, "ticker_edge_quic_connections", 0)

    async def test_a_connection_survives_another_address(self):
        async with connected(service.tls) as client:
            places = []
            async for line in client.lines("/v1/stream?topics=trade/synthetic/*", accept="application/x-ndjson"):
                if '"kind":"update"' in line:
                    places.append(json.loads(line)["seq"])
                if len(places) == 10:
                    await client.move()
                if len(places) == 40:
                    break
            self.assertEqual(places, sorted(set(places)))

    async def test_connections_survive_another_address_with_several_endpoints(self):
        """The first byte of the id that the server gave says which endpoint it is, and so the shard that serves."""
        there, looked = asyncio.Barrier(41), asyncio.Event()

        async def moves(address: str) -> int:
            async with connected(address) as client:
                lines = 0
                async for _ in client.lines("/v1/stream?topics=quote/synthetic/*", accept="application/x-ndjson"):
                    lines += 1
                    if lines == 10:
                        await client.move()
                    if lines == 60:
                        await there.wait()
                    if looked.is_set():
                        return client._quic._peer_cid.cid[0] % 4

        with tempfile.TemporaryDirectory() as folder:
            with open(f"{folder}/ticker.toml", "w") as toml:
                toml.write("[edge]\nshards = 4\n")
            with Service(sys.argv[1], "--synthetic", "5@20", "--config", toml.name) as other:
                all_of_them = [asyncio.create_task(moves(other.tls)) for _ in range(40)]
                await asyncio.wait_for(there.wait(), TIMEOUT_S)
                sessions = [await asyncio.to_thread(other.metric, "ticker_edge_sessions", f'shard="{n}"') for n in range(4)]
                looked.set()
                endpoints = await asyncio.wait_for(asyncio.gather(*all_of_them), TIMEOUT_S)
                self.assertEqual(sum(sessions), 40, "40 of 40 survive")
                self.assertTrue(all(sessions), "each has some")
                self.assertEqual(sessions, [endpoints.count(n) for n in range(4)])
            self.assertEqual(other.exit_code, 0)

    async def test_early_data(self):
        """What changes nothing is answered with the first packets, once for each ticket."""
        name, tickets = "ticker_edge_quic_early_requests_total", []
        path = "/v1/snapshot?topics=quote/synthetic/*"
        async with connected(service.tls, tickets=tickets) as client:
            self.assertEqual((await client.get(path))[0], 200)
        before = await asyncio.to_thread(metric, name, label="at_once")
        for accepted in (True, False):
            async with connected(service.tls, wait=False, session_ticket=tickets[0]) as client:
                if accepted:
                    # On a busy machine the handshake could be complete before the request is looked at.
                    client.datagram_received = lambda *_: None
                answer = asyncio.create_task(client.get(path))
                if accepted:
                    await asyncio.to_thread(settles, name, before + 1, label="at_once")
                    del client.datagram_received
                self.assertEqual((await answer)[0], 200)
                self.assertEqual(client._quic.tls.early_data_accepted, accepted)
        self.assertEqual(await asyncio.to_thread(metric, name, label="at_once"), before + 1)

    async def test_early_data_that_a_replay_could_misuse_waits(self):
        name, tickets = "ticker_edge_quic_early_requests_total", []
        async with connected(service.tls, tickets=tickets) as client:
            self.assertEqual((await client.get("/v1/venues"))[0], 200)
        before = await asyncio.to_thread(metric, name, label="delayed")
        async with connected(service.tls, wait=False, session_ticket=tickets[0]) as client:
            # As whoever replays packets: it cannot read what comes back, and so cannot go on.
            client.datagram_received = lambda *_: None
            session = client.ask_webtransport("/v1/wt?topics=quote/synthetic/*")
            post = client.request("/v1/venues", method="POST", body=b"{}")
            await asyncio.to_thread(settles, name, before + 2, label="delayed")
            self.assertEqual(await asyncio.to_thread(metric, "ticker_edge_webtransport_sessions"), 0)
            del client.datagram_received
            self.assertEqual(((await session.get())[":status"], (await post.get())[":status"]), ("200", "405"))
            self.assertTrue(client._quic.tls.early_data_accepted)

    async def test_under_load_an_address_is_validated_first(self):
        with tempfile.TemporaryDirectory() as folder:
            with open(f"{folder}/ticker.toml", "w") as toml:
                toml.write("[edge]\nquic_handshakes_unvalidated_max = 0\nquic_segmentation_offload = false\n")
            with Service(sys.argv[1], "--synthetic", "3@20", "--config", f"{folder}/ticker.toml") as other:
                async with connected(other.tls) as client:
                    self.assertEqual((await client.get("/v1/venues"))[0], 200)
                self.assertEqual(await asyncio.to_thread(metric, "ticker_edge_quic_retries_total", other), 1)

    async def test_drain(self):
        with Service(sys.argv[1], "--synthetic", "3@20") as other:
            async with connected(other.tls) as client:
                # aioquic passes over GOAWAY: what comes on the server's control stream is looked at here.
                control, handle = [], client.quic_event_received

                def look(event):
                    if isinstance(event, StreamDataReceived) and event.stream_id == 3:
                        control.append(event.data)
                    handle(event)

                client.quic_event_received = look
                text, session = [], await client.webtransport("/v1/wt?topics=quote/synthetic/*")
                session.open()
                session.send(b"\n")
                async for line in client.lines("/v1/stream?topics=quote/synthetic/*"):
                    text.append(line)
                    if len(text) == 20:
                        other.process.send_signal(signal.SIGINT)
                    if '"op":"goodbye"' in line:
                        # Whoever comes now is told so, and need not wait to find out.
                        with self.assertRaises(ConnectionError):
                            async with asyncio.timeout(2), connected(other.tls):
                                pass
                self.assertTrue(any('"op":"goodbye"' in line and '"retry_ms"' in line for line in text))
                last = [m async for m in session.objects()]
                self.assertEqual([m["op"] for m in last[-2:]], ["goodbye", "error"])
                code, reason = await session.close_code()
                self.assertEqual((code, reason.split()[0]), (4009, "draining"))
                self.assertEqual(control[-1][:2], bytes([FrameType.GOAWAY, 1]), control)
            await asyncio.to_thread(other.process.wait, TIMEOUT_S)
        self.assertEqual(other.exit_code, 0)


class Frozen(unittest.IsolatedAsyncioTestCase):
    """Readers who stop reading while much happens: each is ended, and what was kept for it is let go."""

    TOPICS = "topics=book/synthetic/*,quote/synthetic/*"

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        with open(f"{cls.folder.name}/ticker.toml", "w") as toml:
            toml.write("[edge]\nwrite_timeout_ms = 1000\n")
        cls.service = Service(sys.argv[1], "--synthetic", "20@50", "--config", toml.name)
        cls.service.__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.service.__exit__()
        cls.folder.cleanup()

    async def ended(self, count: int = 1):
        """Waits until so many more readers were ended than in the tests before, and none is left."""
        await asyncio.to_thread(settles, "ticker_edge_write_timeouts_total", self.before + count, self.service)
        await asyncio.to_thread(settles, "ticker_edge_sessions", 0, self.service)

    async def asyncSetUp(self):
        self.before = await asyncio.to_thread(metric, "ticker_edge_write_timeouts_total", self.service)

    def tls(self, *protocols: str) -> ssl.SSLSocket:
        """A socket that keeps little of what is not read."""
        host, port = self.service.tls.rsplit(":", 1)
        plain = socket.socket()
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        plain.settimeout(TIMEOUT_S)
        plain.connect((host, int(port)))
        return unverified(*protocols).wrap_socket(plain, server_hostname="localhost")

    async def test_over_tls(self):
        websocket = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        websocket += "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        for path, head in [("stream", ""), ("ws", websocket)]:
            with self.subTest(path), self.tls("http/1.1") as reader:
                reader.sendall(f"GET /v1/{path}?{self.TOPICS} HTTP/1.1\r\nHost: x\r\n{head}\r\n".encode())
                self.assertIn(reader.recv(12), (b"HTTP/1.1 200", b"HTTP/1.1 101"))
                await self.ended()
            self.before += 1

    async def test_over_http2_whoever_takes_no_bytes(self):
        with Http2(self.get(), connection=self.tls("h2")):
            await self.ended()

    async def test_over_http2_whoever_opens_no_window(self):
        with Http2(self.get(), connection=self.tls("h2")) as reader:
            reader.takes = False
            while not reader.ended:
                await asyncio.to_thread(reader.receive)
            await self.ended()

    def get(self) -> list[tuple[str, str]]:
        path = f"/v1/stream?{self.TOPICS}"
        return [(":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", path)]

    async def test_over_http3(self):
        async with connected(self.service.tls, max_stream_data=65536) as client:
            client.freeze()
            queue = client.request(f"/v1/stream?{self.TOPICS}")
            self.assertEqual((await queue.get())[":status"], "200")
            while await queue.get() is not None:
                pass
            await self.ended()
            # The stream alone was reset.
            self.assertEqual((await client.get("/v1/venues"))[0], 200)

    async def test_over_webtransport(self):
        async with connected(self.service.tls, max_stream_data=65536) as client:
            client.freeze()
            session = await client.webtransport(f"/v1/wt?{self.TOPICS}")
            session.open()
            session.send(b"\n")
            self.assertEqual(await session.close_code(), (4008, "slow_consumer"))
            await self.ended()

    async def test_over_quic(self):
        ask = clients.get_message(self.service.grpc, "SessionRequest")()
        ask.subscribe.topics.extend(["book/synthetic/*", "quote/synthetic/*"])
        encoded = ask.SerializeToString()
        host, port = self.service.tls.rsplit(":", 1)
        configuration = QuicConfiguration(
            is_client=True, alpn_protocols=["ticker/1"], verify_mode=ssl.CERT_NONE, max_data=65536
        )
        async with quic_connect(host, int(port), configuration=configuration, create_protocol=Raw) as client:
            client._quic._write_connection_limits = lambda *_, **__: None
            client.send(bytes([len(encoded)]) + encoded)
            await client.until(lambda: client.closed)
            self.assertEqual((client.closed.error_code, client.closed.reason_phrase), (4008, "slow_consumer"))
        await self.ended()

    async def test_a_network_that_is_gone(self):
        """Nothing arrives any more, whatever is sent."""
        async with connected(self.service.tls) as client:
            session = await client.webtransport(f"/v1/wt?{self.TOPICS}")
            session.open()
            session.send(b"\n")
            async for _ in session.objects():
                break
            client.datagram_received = lambda *_: None
            await self.ended()


class WebTransport(unittest.IsolatedAsyncioTestCase):
    async def test_a_session_on_one_stream(self):
        async with connected(service.tls) as client:
            session = await client.webtransport("/v1/wt")
            self.assertEqual(session.head[":status"], "200")
            session.open()
            session.send({"op": "ping", "id": 5})
            session.send({"op": "subscribe", "id": 6, "topics": ["quote/synthetic/*", "book/synthetic/*"]})
            ops, kinds = [], []
            async for message in session.objects():
                ops.append(message.get("op"))
                kinds.append(message.get("kind"))
                if kinds.count("update") >= 40:
                    break
            self.assertEqual(ops[0], "welcome")
            self.assertIn("pong", ops)
            self.assertIn("subscribed", ops)
            self.assertTrue(client.datagrams.empty(), "nobody asked for datagrams")
            session.close()
            await asyncio.to_thread(settles, "ticker_edge_webtransport_sessions", 0)
            # The connection lives on.
            self.assertEqual((await client.get("/v1/venues"))[0], 200)

    async def test_datagrams_are_whole_snapshots(self):
        async with connected(service.tls) as client:
            session = await client.webtransport("/v1/wt")
            session.open()
            topics = ["quote/synthetic/*", "book-10/synthetic/*"]
            session.send({"op": "subscribe", "id": 1, "topics": topics, "delivery": "datagram"})
            session.send({"op": "subscribe", "id": 2, "topics": TRADES})
            newest, channels = {}, set()
            for _ in range(300):
                event = await asyncio.wait_for(session.datagram(), TIMEOUT_S)
                self.assertEqual((event["kind"], event["prev"]), ("snapshot", 0))
                self.assertGreaterEqual(event["seq"], newest.get(event["topic"], 0))
                newest[event["topic"]] = event["seq"]
                channels.add(event["topic"].split("/")[0])
            self.assertIn("quote", channels)
            session.send({"op": "ping", "id": 9})
            got = []
            async for message in session.objects():
                got.append(message)
                if message.get("op") == "pong":
                    break
            updates = {m["topic"].split("/")[0] for m in got if m.get("kind") == "update"}
            self.assertEqual(updates - {"trade"}, set(), "by the stream come trades, and what is too large for a datagram")

    async def test_what_cannot_be_is_told(self):
        async with connected(service.tls) as client:
            for path, status in [("/v1/other", 400), ("/v1/wt?format=xml", 400), ("/v1/wt?topics=quote/synthetic/NO", 404)]:
                session = await client.webtransport(path)
                self.assertEqual(session.head[":status"], str(status), path)
            session = await client.webtransport("/v1/wt")
            session.open()
            session.send(b"{nonsense\n")
            async for message in session.objects():
                if message.get("op") == "error":
                    self.assertEqual(message["code"], "bad_request")
                    break
            session.send(b"x" * 70_000)
            last = [m async for m in session.objects()][-1]
            self.assertEqual((last["op"], last["code"]), ("error", "message_too_large"))
            code, reason = await session.close_code()
            self.assertEqual((code, reason.split()[0]), (4007, "message_too_large"))

    async def test_many_connections_one_after_the_other(self):
        for _ in range(20):
            async with connected(service.tls) as client:
                session = await client.webtransport("/v1/wt?topics=quote/synthetic/*")
                session.open()
                session.send(b"\n")
                async for message in session.objects():
                    if message.get("kind") == "snapshot":
                        break
        await asyncio.to_thread(settles, "ticker_edge_webtransport_sessions", 0)


class Quic(unittest.IsolatedAsyncioTestCase):
    async def test_a_session_without_http(self):
        ask = clients.get_message(service.grpc, "SessionRequest")
        answer = clients.get_message(service.grpc, "SessionResponse")
        host, port = service.tls.rsplit(":", 1)
        configuration = QuicConfiguration(
            is_client=True, alpn_protocols=["ticker/1"], verify_mode=ssl.CERT_NONE, max_datagram_frame_size=65536
        )
        async with quic_connect(host, int(port), configuration=configuration, create_protocol=Raw) as client:
            request = ask()
            request.subscribe.id = 1
            request.subscribe.topics.append("quote/synthetic/*")
            request.subscribe.delivery = "datagram"
            encoded = request.SerializeToString()
            client.send(bytes([len(encoded)]) + encoded)
            await client.until(lambda: len(client.datagrams) >= 50)
            for data in client.datagrams:
                self.assertEqual(answer.FromString(data).event.prev, 0)
            names = [answer.FromString(m).WhichOneof("message") for m in delimited(client.stream)]
            self.assertEqual((names[0], names[-1]), ("welcome", "subscribed"))
            client.send(b"\xff" * 10)
            await client.until(lambda: client.closed)
            self.assertEqual((client.closed.error_code, client.closed.reason_phrase.split()[0]), (4007, "message_too_large"))


if __name__ == "__main__":
    sys.exit(run_tests(__doc__, "10@25", secure))
