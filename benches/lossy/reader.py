"""One reader of the lossy path, by clients that are not ours: websockets, aioquic, aiortc.

    python reader.py WAY ADDRESS SECONDS TOPIC,…     prints one JSON line: what was received when
    python reader.py WAY --first ADDRESS TOPIC       prints one JSON line: seconds to the first price
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import sys
import time
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "..", "tests", "python"))

from aioquic.h3.connection import H3_ALPN
from aioquic.quic.configuration import QuicConfiguration
from aioquic.asyncio.client import connect as quic_connect
from aiortc import RTCPeerConnection, RTCSessionDescription
from h3_client import Client
from websockets.asyncio.client import connect as websocket_connect

CONNECT_MAX_S = 30


def unverified() -> ssl.SSLContext:
    """Certificates for development: what they are worth is tested elsewhere."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def quic(ticket=None, keep=None, wait: bool = True):
    """The arguments of a connection over QUIC."""
    configuration = QuicConfiguration(
        is_client=True, alpn_protocols=H3_ALPN, verify_mode=ssl.CERT_NONE, max_datagram_frame_size=65536
    )
    configuration.session_ticket = ticket
    return {
        "configuration": configuration,
        "create_protocol": Client,
        "session_ticket_handler": keep,
        "wait_connected": wait,
    }


async def websocket(address: str, topics: str, secure: bool):
    scheme, context = ("wss", unverified()) if secure else ("ws", None)
    url = f"{scheme}://{address}/v1/ws?topics={topics}"
    async with websocket_connect(url, ssl=context, proxy=None, compression=None) as session:
        async for text in session:
            yield json.loads(text)


async def server_sent_events(client: Client, topics: str):
    async for line in client.lines(f"/v1/stream?topics={topics}", accept="text/event-stream"):
        if line.startswith("data: "):
            yield json.loads(line[6:])


async def webtransport(client: Client, topics: str, **options: str):
    session = await client.webtransport("/v1/wt")
    session.open()
    session.send({"op": "subscribe", "id": 1, "topics": topics.split(","), **options})
    objects: asyncio.Queue = asyncio.Queue()

    async def from_stream():
        async for message in session.objects():
            objects.put_nowait(message)

    async def from_datagrams():
        while True:
            objects.put_nowait(await session.datagram())

    tasks = [asyncio.create_task(from_stream()), asyncio.create_task(from_datagrams())]
    try:
        while True:
            yield await objects.get()
    finally:
        for task in tasks:
            task.cancel()


def answer_to(offer: str, address: str) -> str:
    headers = {"content-type": "application/sdp"}
    request = urllib.request.Request(f"http://{address}/v1/rtc", offer.encode(), headers, method="POST")
    with urllib.request.urlopen(request, timeout=CONNECT_MAX_S) as answer:
        return answer.read().decode()


async def webrtc(address: str, topics: str, live: bool):
    peer = RTCPeerConnection()
    objects: asyncio.Queue = asyncio.Queue()
    channel = peer.createDataChannel("ticker")
    lossy = peer.createDataChannel("ticker-live", ordered=False, maxRetransmits=0)
    for one in (channel, lossy):
        one.on("message", lambda text: objects.put_nowait(json.loads(text)))
    ask = {"op": "subscribe", "id": 1, "topics": topics.split(","), **({"delivery": "datagram"} if live else {})}
    channel.on("open", lambda: channel.send(json.dumps(ask)))
    try:
        await peer.setLocalDescription(await peer.createOffer())
        answer = await asyncio.to_thread(answer_to, peer.localDescription.sdp, address)
        await peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        while True:
            yield await objects.get()
    finally:
        await peer.close()


async def messages(way: str, plain: str, secure: str, topics: str, **options):
    """What comes, as objects."""
    if way in ("ws", "wss"):
        async for message in websocket(secure if way == "wss" else plain, topics, way == "wss"):
            yield message
        return
    if way in ("rtc", "rtc-live"):
        async for message in webrtc(plain, topics, way == "rtc-live"):
            yield message
        return
    host, port = secure.rsplit(":", 1)
    async with quic_connect(host, int(port), **quic(**options)) as client:
        match way:
            case "sse-h3":
                stream = server_sent_events(client, topics)
            case "wt":
                stream = webtransport(client, topics)
            case "wt-datagram":
                stream = webtransport(client, topics, delivery="datagram")
        async for message in stream:
            yield message


def is_price(message: dict) -> bool:
    return "bid" in message


async def receive(way: str, plain: str, secure: str, seconds: float, topics: str) -> list:
    """`[topic, when it came, its pub]` of each price, times in microseconds."""
    got, ends = [], None
    stream = messages(way, plain, secure, topics)
    try:
        async for message in stream:
            now = time.time()
            if is_price(message):
                got.append((message["topic"], round(now * 1e6), message["pub"]))
                # The time counts from the first price.
                ends = ends or now + seconds
            if ends and now >= ends:
                break
    finally:
        await stream.aclose()
    return got


async def first(way: str, plain: str, secure: str, topic: str, **options) -> float:
    """Seconds from the beginning of the connection to the first price."""
    began = time.perf_counter()
    async with asyncio.timeout(CONNECT_MAX_S):
        stream = messages(way, plain, secure, topic, **options)
        try:
            async for message in stream:
                if is_price(message):
                    return time.perf_counter() - began
        finally:
            await stream.aclose()
    raise RuntimeError("the stream ended without a price")


async def firsts(way: str, plain: str, secure: str, topic: str, times: int) -> dict:
    """The same many times: cold, resumed by a ticket, and with the request in the first flight (0-RTT)."""
    out = {"cold": [await first(way, plain, secure, topic) for _ in range(times)]}
    if way in ("ws", "wss", "rtc"):
        return out
    tickets: list = []
    await first(way, plain, secure, topic, keep=tickets.append)
    for name, wait in (("resumed", True), ("0-RTT", False)):
        if name == "0-RTT" and not any(t.max_early_data_size for t in tickets):
            continue
        out[name] = []
        for _ in range(times):
            ticket = tickets.pop() if tickets else None
            out[name].append(await first(way, plain, secure, topic, ticket=ticket, keep=tickets.append, wait=wait))
    return out


def main():
    way, plain, secure, kind, amount, topics = sys.argv[1:]
    match kind:
        case "receive":
            print(json.dumps(asyncio.run(receive(way, plain, secure, float(amount), topics))))
        case "first":
            print(json.dumps(asyncio.run(firsts(way, plain, secure, topics, int(amount)))))


if __name__ == "__main__":
    main()
