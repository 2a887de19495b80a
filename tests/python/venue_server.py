"""A venue of our own making, for tests of ingest: Kraken's WebSocket v2 and Binance's spot streams, over an invented market.

Nothing here is the product's, and nothing is recorded: frames, checksums and numbers are made from the venues' documents, by
another WebSocket library, which sends what a venue may send: frames in pieces, pings of its own, closes with and without a
word. What goes wrong is asked for by name, and happens to the next frame of a book.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import socket
import struct
import threading
import time
import zlib
from collections import deque
from decimal import Decimal
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Response

# Faults of one frame of a book; and how a connection may end.
FRAME_FAULTS = ("drop", "double", "reorder", "corrupt", "alter")
ENDS = ("close", "away", "vanish", "reset", "stall")

STEP_S = 0.02
# What a frame that is lost had in it stays as it is for so many steps: the next frames must not make it good.
KEPT_STEPS = 20
PRICE_DIGITS, SIZE_DIGITS = 2, 8


def text(number: int, digits: int) -> str:
    return f"{number // 10**digits}.{number % 10**digits:0{digits}}"


class Book:
    """Levels by price, both whole numbers of the last digit."""

    def __init__(self, rng: random.Random, middle: int):
        self.rng = rng
        self.sides: dict[str, dict[int, int]] = {
            "bids": {middle - 1 - i * 3: self.size() for i in range(60)},
            "asks": {middle + 1 + i * 3: self.size() for i in range(60)},
        }
        self.updates = 1_000
        self.trades = 1
        self.kept: set[tuple[str, int]] = set()
        self.kept_steps = 0

    def size(self) -> int:
        return self.rng.randrange(1, 5 * 10**SIZE_DIGITS)

    def best(self, side: str, depth: int | None = None) -> list[tuple[int, int]]:
        levels = sorted(self.sides[side].items(), reverse=side == "bids")
        return levels[:depth]

    def keep(self, changes: dict[str, dict[int, int]]):
        self.kept = {(side, price) for side, levels in changes.items() for price in levels}
        self.kept_steps = KEPT_STEPS

    def step(self) -> dict[str, dict[int, int]]:
        """Changes some levels, each once; returns them, with a size of zero where one is gone. It never crosses, nor runs dry."""
        changes: dict[str, dict[int, int]] = {"bids": {}, "asks": {}}
        self.kept_steps -= 1
        if self.kept_steps <= 0:
            self.kept.clear()
        for _ in range(self.rng.randrange(1, 5)):
            side, other = self.rng.choice([("bids", "asks"), ("asks", "bids")])
            sign = -1 if side == "bids" else 1
            best, opposite = self.best(side)[0][0], self.best(other)[0][0]
            price = best + sign * self.rng.randrange(-4, 40)
            if (price - opposite) * sign <= 0 or price in changes[side] or (side, price) in self.kept:
                continue
            levels = self.sides[side]
            if price in levels and len(levels) > 50 and self.rng.random() < 0.5:
                del levels[price]
                changes[side][price] = 0
            elif len(levels) < 80:
                levels[price] = changes[side][price] = self.size()
        return changes


def key(bids: list[tuple[str, str]], asks: list[tuple[str, str]]) -> int:
    """A state of a book, by its levels, best first."""
    return hash((tuple((Decimal(p), Decimal(s)) for p, s in bids), tuple((Decimal(p), Decimal(s)) for p, s in asks)))


class Market:
    """What happens, and every state that the books were in."""

    def __init__(self, symbols: list[str], seed: int):
        rng = random.Random(seed)
        self.rng = rng
        self.books = {symbol: Book(rng, 5_000_000 + 100_000 * i) for i, symbol in enumerate(symbols)}

    def state(self, symbol: str, depth: int | None) -> int:
        book = self.books[symbol]
        side = lambda name: [(text(p, PRICE_DIGITS), text(s, SIZE_DIGITS)) for p, s in book.best(name, depth)]
        return key(side("bids"), side("asks"))


class Session:
    """One connection, and what it subscribed to."""

    def __init__(self, socket: ServerConnection):
        self.socket = socket
        self.books: dict[str, dict] = {}
        self.others: set[tuple[str, str]] = set()
        # By symbol: a frame that comes after the next one.
        self.held: dict[str, str] = {}
        self.mute = False


class Venue:
    """A venue on a port of its own, in a thread of its own."""

    def __init__(self, *symbols: str, seed: int = 1):
        self.market = Market(list(symbols), seed)
        self.sessions: set[Session] = set()
        self.states: dict[str, set[int]] = {symbol: set() for symbol in symbols}
        self.fault: str | None = None
        self.pieces = False
        self.paused = False
        # Answers to come instead of what was asked for: to handshakes, to REST requests, to subscriptions.
        self.handshakes: deque[tuple[int, dict[str, str], float]] = deque()
        self.answers: deque[tuple[int, dict[str, str], str]] = deque()
        self.refusals: deque[str] = deque()
        self.connections = 0
        self.asked = 0
        self.pongs = 0
        self.started = threading.Event()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._run, daemon=True)

    # ---- for the test ------------------------------------------------------------------------------------------------

    def __enter__(self):
        self.thread.start()
        self.started.wait(10)
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.ended.set)
        self.thread.join(10)

    def state(self, symbol: str) -> int:
        """The book as it is now."""
        return self.market.state(symbol, self.depth)

    # ---- sockets -----------------------------------------------------------------------------------------------------

    depth: int | None = None

    def _run(self):
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self._serve())

    async def _serve(self):
        self.ended = asyncio.Event()
        # Its own pings, once a second: who does not answer is given up.
        async with serve(self._connected, "127.0.0.1", 0, process_request=self._request, ping_interval=None) as server:
            self.port = server.sockets[0].getsockname()[1]
            self.started.set()
            happening = [asyncio.create_task(self._happen()), asyncio.create_task(self._ping())]
            await self.ended.wait()
            for task in happening:
                task.cancel()
            server.close()

    async def _request(self, connection: ServerConnection, request) -> Response | None:
        if "Upgrade" in request.headers:
            if not self.handshakes:
                return None
            status, headers, seconds = self.handshakes.popleft()
            await asyncio.sleep(seconds)
            return None if status == 101 else self._answer(status, headers, "")
        self.asked += 1
        if self.answers and "depth" in request.path:
            return self._answer(*self.answers.popleft())
        status, body = self.rest(urlsplit(request.path))
        return self._answer(status, {}, body)

    def _answer(self, status: int, headers: dict[str, str], body: str) -> Response:
        data = body.encode()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(data)), "Connection": "close", **headers}
        return Response(status, "", Headers(headers), data)

    async def _connected(self, socket: ServerConnection):
        session = Session(socket)
        self.connections += 1
        try:
            await self.opened(session, socket.request.path)
            self.sessions.add(session)
            async for message in socket:
                if not session.mute:
                    await self.heard(session, json.loads(message))
        except ConnectionClosed:
            pass
        finally:
            self.sessions.discard(session)

    async def _ping(self):
        while True:
            await asyncio.sleep(1)
            for session in [s for s in self.sessions if not s.mute]:
                with contextlib.suppress(ConnectionClosed, asyncio.TimeoutError):
                    await asyncio.wait_for(await session.socket.ping(b"are you there?"), 5)
                    self.pongs += 1

    async def _happen(self):
        while True:
            await asyncio.sleep(STEP_S)
            if self.paused:
                continue
            symbol = self.market.rng.choice(list(self.market.books))
            changes = self.market.books[symbol].step()
            if not any(changes.values()):
                continue
            self.market.books[symbol].updates += 1
            self.states[symbol].add(self.state(symbol))
            fault = self.fault if self.fault and self.shows(symbol, changes, self.fault) else None
            if fault:
                self.market.books[symbol].keep(changes)
            for session in list(self.sessions):
                frame = self.book_frame(session, symbol, changes) if symbol in session.books else None
                if frame is not None:
                    if fault:
                        self.fault = None
                    await self._spoilt(session, symbol, frame, fault)
                for other in self.other_frames(session, symbol):
                    await self.send(session, other)

    async def _spoilt(self, session: Session, symbol: str, frame: str, fault: str | None):
        if held := session.held.pop(symbol, None):
            await self.send(session, frame)
            return await self.send(session, held)
        if fault is None:
            return await self.send(session, frame)
        if fault == "drop":
            return None
        if fault == "double":
            await self.send(session, frame)
            return await self.send(session, frame)
        if fault == "reorder":
            session.held[symbol] = frame
            return None
        if fault == "corrupt":
            return await self.send(session, frame[: len(frame) // 2] + "\x01" + frame[len(frame) // 2 + 1 :])
        if fault == "alter":
            return await self.send(session, self.altered(frame))
        return await self._end(session, fault)

    async def _end(self, session: Session, how: str):
        session.mute = True
        socket_ = session.socket
        if how == "close":
            await socket_.close(1012, "service restart")
        elif how == "away":
            # A close frame without a code (RFC 6455, section 7.1.5).
            socket_.transport.write(b"\x88\x00")
            await asyncio.sleep(0.05)
            socket_.transport.close()
        elif how == "vanish":
            socket_.transport.close()
        elif how == "reset":
            raw = socket_.transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            socket_.transport.abort()

    async def send(self, session: Session, frame: str):
        if session.mute:
            return
        with contextlib.suppress(ConnectionClosed):
            if self.pieces and len(frame) > 6:
                third = len(frame) // 3
                await session.socket.send([frame[:third], frame[third : 2 * third], frame[2 * third :]])
            else:
                await session.socket.send(frame)

    # ---- a venue's own -----------------------------------------------------------------------------------------------

    async def opened(self, session: Session, path: str): ...

    async def heard(self, session: Session, message: dict): ...

    def rest(self, url) -> tuple[int, str]:
        return 404, "{}"

    def book_frame(self, session: Session, symbol: str, changes: dict) -> str | None: ...

    def shows(self, symbol: str, changes: dict, fault: str) -> bool:
        """Would this fault of a frame with these changes show, by the venue's rule?"""
        return True

    def other_frames(self, session: Session, symbol: str) -> list[str]:
        return []

    def altered(self, frame: str) -> str: ...


class Kraken(Venue):
    """https://docs.kraken.com/api/docs/websocket-v2/book and …/guides/spot-ws-book-v2."""

    depth = 25
    # Numbers as most JSON libraries write them: without the zeros at their end.
    trimmed = False

    def number(self, value: int, digits: int) -> str:
        number = text(value, digits)
        return number.rstrip("0").rstrip(".") if self.trimmed else number

    def levels(self, levels: list[tuple[int, int]]) -> str:
        one = lambda p, s: f'{{"price":{self.number(p, PRICE_DIGITS)},"qty":{self.number(s, SIZE_DIGITS)}}}'
        return "[" + ",".join(one(p, s) for p, s in levels) + "]"

    def checksum(self, symbol: str) -> int:
        """Asks, then bids, the ten best of each: price and size in the pair's precision, without point and leading zeros."""
        book = self.market.books[symbol]
        levels = book.best("asks", 10) + book.best("bids", 10)
        return zlib.crc32("".join(str(p) + str(s) for p, s in levels).encode())

    def frame(self, kind: str, symbol: str, bids, asks) -> str:
        return (
            f'{{"channel":"book","type":"{kind}","data":[{{"symbol":"{symbol}","bids":{self.levels(bids)},'
            f'"asks":{self.levels(asks)},"checksum":{self.checksum(symbol)},"timestamp":"{now()}"}}]}}'
        )

    async def opened(self, session: Session, path: str):
        status = {"version": "2.0.10", "system": "online", "api_version": "v2", "connection_id": self.connections}
        await self.send(session, json.dumps({"channel": "status", "type": "update", "data": [status]}))

    async def heard(self, session: Session, message: dict):
        method, params = message.get("method"), message.get("params", {})
        if method == "ping":
            return await self.send(session, json.dumps({"method": "pong"}))
        channel = params.get("channel")
        if channel == "instrument":
            pairs = [
                {"symbol": s, "status": "online", "price_increment": 0.01, "qty_increment": 1e-8} for s in self.market.books
            ]
            data = {"assets": [], "pairs": pairs}
            return await self.send(session, json.dumps({"channel": "instrument", "type": "snapshot", "data": data}))
        for symbol in params.get("symbol", []):
            answer = {"method": method, "symbol": symbol}
            if symbol not in self.market.books:
                await self.send(session, json.dumps({**answer, "success": False, "error": f"Currency pair not supported {symbol}"}))
            elif method == "subscribe" and channel == "book" and self.refusals:
                await self.send(session, json.dumps({**answer, "success": False, "error": self.refusals.popleft()}))
            else:
                result = {"channel": channel, "symbol": symbol, "snapshot": True}
                if channel == "book":
                    result["depth"] = params.get("depth", 10)
                await self.send(session, json.dumps({"method": method, "result": result, "success": True}))
                await self.subscribed(session, method, channel, symbol)

    async def subscribed(self, session: Session, method: str, channel: str, symbol: str):
        if channel != "book":
            return session.others.add((channel, symbol))
        if method == "unsubscribe":
            return session.books.pop(symbol, None)
        book = self.market.books[symbol]
        bids, asks = book.best("bids", self.depth), book.best("asks", self.depth)
        session.books[symbol] = {"bids": dict(bids), "asks": dict(asks)}
        self.states[symbol].add(self.state(symbol))
        await self.send(session, self.frame("snapshot", symbol, bids, asks))

    def book_frame(self, session: Session, symbol: str, changes: dict) -> str | None:
        """What changed of what it has seen, and what came into view."""
        seen, book, said = session.books[symbol], self.market.books[symbol], {}
        for side in ("bids", "asks"):
            new = dict(book.best(side, self.depth))
            gone = [(price, 0) for price in seen[side] if price not in book.sides[side]]
            said[side] = gone + [(p, s) for p, s in new.items() if seen[side].get(p) != s]
            seen[side] = new
        return self.frame("update", symbol, said["bids"], said["asks"]) if any(said.values()) else None

    def other_frames(self, session: Session, symbol: str) -> list[str]:
        frames = []
        if ("trade", symbol) in session.others and self.market.rng.random() < 0.2:
            book = self.market.books[symbol]
            book.trades += 1
            price, size = book.best("asks")[0]
            trade = (
                f'{{"symbol":"{symbol}","side":"buy","price":{self.number(price, PRICE_DIGITS)},'
                f'"qty":{self.number(size, SIZE_DIGITS)},"ord_type":"market","trade_id":{book.trades},"timestamp":"{now()}"}}'
            )
            frames.append(f'{{"channel":"trade","type":"update","data":[{trade}]}}')
        if self.market.rng.random() < 0.02:
            frames.append('{"channel":"heartbeat"}')
        return frames

    def shows(self, symbol: str, changes: dict, fault: str) -> bool:
        """The checksum is over ten levels. That of the next frame has to show what this one had, and until then four levels
        at most come before it.
        """
        depth = 10 if fault == "alter" else 5
        last = {side: self.market.books[symbol].best(side, depth)[-1][0] for side in ("bids", "asks")}
        covered = [p >= last["bids"] for p in changes["bids"]] + [p <= last["asks"] for p in changes["asks"]]
        return all(covered) if fault == "alter" else any(covered)

    def altered(self, frame: str) -> str:
        """Another last digit of the first size."""
        return re.sub(r'("qty":[\d.]*)(\d)', lambda m: m[1] + str((int(m[2]) + 1) % 10), frame, count=1)


class Binance(Venue):
    """https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams. A difference has one update here."""

    def levels(self, levels) -> str:
        return json.dumps([[text(p, PRICE_DIGITS), text(s, SIZE_DIGITS)] for p, s in levels])

    async def opened(self, session: Session, path: str):
        for stream in parse_qs(urlsplit(path).query).get("streams", [""])[0].split("/"):
            name, _, kind = stream.partition("@")
            if kind.startswith("depth"):
                session.books[name.upper()] = {}
            else:
                session.others.add((kind, name.upper()))

    async def heard(self, session: Session, message: dict):
        await self.send(session, json.dumps({"result": None, "id": message.get("id")}))

    def rest(self, url) -> tuple[int, str]:
        query = parse_qs(url.query)
        if not url.path.endswith("/depth"):
            symbols = [
                {"symbol": s, "status": "TRADING", "baseAsset": s[:3], "quoteAsset": s[3:], "filters": []} for s in self.market.books
            ]
            return 200, json.dumps({"symbols": symbols})
        symbol = query["symbol"][0]
        book = self.market.books[symbol]
        self.states[symbol].add(self.state(symbol))
        bids, asks = self.levels(book.best("bids")), self.levels(book.best("asks"))
        return 200, f'{{"lastUpdateId":{book.updates},"bids":{bids},"asks":{asks}}}'

    def combined(self, symbol: str, stream: str, data: str) -> str:
        return f'{{"stream":"{symbol.lower()}@{stream}","data":{data}}}'

    def book_frame(self, session: Session, symbol: str, changes: dict) -> str:
        last, at = self.market.books[symbol].updates, int(time.time() * 1_000)
        b, a = (self.levels(changes[side].items()) for side in ("bids", "asks"))
        data = f'{{"e":"depthUpdate","E":{at},"s":"{symbol}","U":{last},"u":{last},"b":{b},"a":{a}}}'
        return self.combined(symbol, "depth@100ms", data)

    def other_frames(self, session: Session, symbol: str) -> list[str]:
        book = self.market.books[symbol]
        if ("bookTicker", symbol) not in session.others:
            return []
        (bid, bid_size), (ask, ask_size) = book.best("bids")[0], book.best("asks")[0]
        price, size = (lambda n: text(n, PRICE_DIGITS)), (lambda n: text(n, SIZE_DIGITS))
        data = (
            f'{{"u":{book.updates},"s":"{symbol}","b":"{price(bid)}","B":"{size(bid_size)}",'
            f'"a":"{price(ask)}","A":"{size(ask_size)}"}}'
        )
        return [self.combined(symbol, "bookTicker", data)]

    def altered(self, frame: str) -> str:
        """A number of the sequence has another last digit."""
        return re.sub(r'"U":(\d+)', lambda m: f'"U":{int(m[1]) + 5}', frame, count=1)


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{time.time_ns() // 1_000 % 1_000_000:06}Z"
