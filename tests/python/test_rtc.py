"""WebRTC data channels as a reader in Python sees them, by a client that is not ours (aiortc).

    python test_rtc.py BINARY
"""

from __future__ import annotations

import asyncio
import http.client
import json
import sys
import time
import unittest

from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

from service import Service, run_tests

TIMEOUT_S = 20
PEERS = 50

service: Service


def ask(method: str, path: str, body: str | None = None, headers: dict[str, str] | None = None) -> tuple:
    host, port = service.http.split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=TIMEOUT_S)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read().decode()
    finally:
        connection.close()


class Session:
    """One peer, whose channels this side makes."""

    async def open(self, live: bool = False, configuration: RTCConfiguration | None = None) -> Session:
        self.peer = RTCPeerConnection(configuration)
        self.messages: asyncio.Queue = asyncio.Queue()
        self.lossy: asyncio.Queue = asyncio.Queue()
        self.channel = self.peer.createDataChannel("ticker")
        opened = asyncio.Event()
        self.channel.on("open", opened.set)
        self.channel.on("message", lambda text: self.messages.put_nowait(json.loads(text)))
        self.channel.on("close", lambda: self.messages.put_nowait(None))
        if live:
            channel = self.peer.createDataChannel("ticker-live", ordered=False, maxRetransmits=0)
            channel.on("message", lambda text: self.lossy.put_nowait(json.loads(text)))
        await self.peer.setLocalDescription(await self.peer.createOffer())
        headers = {"content-type": "application/sdp"}
        sdp = self.peer.localDescription.sdp
        status, headers, answer = await asyncio.to_thread(ask, "POST", "/v1/rtc", sdp, headers)
        assert status == 201, answer
        self.resource = next(v for k, v in headers.items() if k.lower() == "location")
        self.links = next((v for k, v in headers.items() if k.lower() == "link"), "")
        await self.peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        await asyncio.wait_for(opened.wait(), TIMEOUT_S)
        return self

    def send(self, **message) -> None:
        self.channel.send(json.dumps(message))

    async def next(self):
        return await asyncio.wait_for(self.messages.get(), TIMEOUT_S)


class Rtc(unittest.IsolatedAsyncioTestCase):
    async def test_a_session(self):
        session = await Session().open()
        session.send(op="subscribe", id=1, topics=["quote/synthetic/*", "trade/synthetic/*"])
        notices, updates = [], 0
        while updates < 50:
            message = await session.next()
            if message.get("op", "heartbeat") != "heartbeat":
                notices.append(message["op"])
            updates += message.get("kind") == "update"
        self.assertEqual(notices, ["welcome", "subscribed"])
        session.send(op="nonsense", id=2)
        while (message := await session.next()).get("op") != "error":
            pass
        self.assertEqual(message["code"], "bad_request")
        await session.peer.close()

    async def test_what_may_be_lost(self):
        session = await Session().open(live=True)
        session.send(op="subscribe", id=1, topics=["quote/synthetic/*"], delivery="datagram")
        for _ in range(200):
            message = await asyncio.wait_for(session.lossy.get(), TIMEOUT_S)
            self.assertEqual((message["kind"], message["prev"]), ("snapshot", 0))
        await session.peer.close()

    async def test_the_service_ends_a_session(self):
        session = await Session().open()
        self.assertEqual((await session.next())["op"], "welcome")
        status, _, _ = await asyncio.to_thread(ask, "DELETE", session.resource)
        self.assertEqual(status, 204)
        while await session.next() is not None:
            pass
        await session.peer.close()

    async def test_many_peers_and_one_that_vanishes(self):
        sessions = await asyncio.gather(*(Session().open() for _ in range(PEERS)))
        for session in sessions:
            self.assertEqual((await session.next())["op"], "welcome")
        self.assertGreaterEqual(service.metric("ticker_edge_rtc_peers"), PEERS)
        before = service.metric("ticker_edge_rtc_vanished_total")
        # The last one is heard of no more; the others take their leave.
        lost = sessions.pop()
        for transport in lost.peer.sctp.transport.transport._connection._protocols:
            transport.transport.close()
        began = time.monotonic()
        await asyncio.gather(*(s.peer.close() for s in sessions))
        while service.metric("ticker_edge_rtc_vanished_total") == before:
            self.assertLess(time.monotonic() - began, 12)
            await asyncio.sleep(0.2)
        self.assertLess(time.monotonic() - began, 10.5)


if __name__ == "__main__":
    sys.exit(run_tests(__doc__, "20@50"))
