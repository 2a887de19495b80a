"""Ingest against venues that are not ours (venue_server.py): whatever goes wrong is told to readers, counted by its cause
and mended, and no state of a book is shown that the venue did not have.

    python test_venues.py BINARY

`tests/run --long` runs it. With TICKER_LONG=1 also what takes minutes: connections that end again and again, and snapshots
that are refused, are waited for longer each time.

Last results (2026-11-30): with TICKER_LONG=1 35 passed, in 14 minutes; without it 28 passed, in 107 s.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import sys
import threading
import time
import unittest
from decimal import Decimal

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from service import Service
from venue_server import Binance, Kraken, Venue, key

PATIENCE_S = 150
FAULTS, DISCONNECTS = "ticker_ingest_faults_total", "ticker_ingest_venue_disconnects_total"
FETCHES = "ticker_ingest_venue_fetches_total"

binary = ""

takes_minutes = unittest.skipUnless(os.environ.get("TICKER_LONG"), "it takes minutes: TICKER_LONG=1")


class Reader:
    """Every event of a venue's books and statuses, held against what the venue had."""

    def __init__(self, service: Service, name: str, venue: Venue, natives: dict[str, str]):
        self.venue, self.natives = venue, natives
        self.books: dict[str, dict[str, dict[Decimal, Decimal]]] = {}
        self.told: list[tuple[str, str, str]] = []
        self.states: dict[str, str] = {}
        self.wrong: list[str] = []
        self.news = threading.Condition()
        self.exits = contextlib.ExitStack()
        self.socket = self.exits.enter_context(connect(f"ws://{service.http}/v1/ws", max_size=None))
        topics = [f"{channel}/{name}/*" for channel in ("book", "status")]
        self.socket.send(json.dumps({"op": "subscribe", "id": 1, "topics": topics, "conflate": False}))
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def close(self):
        self.exits.close()
        self.thread.join(10)

    def _read(self):
        with contextlib.suppress(ConnectionClosed):
            for message in self.socket:
                event = json.loads(message)
                with self.news:
                    if "topic" in event and "kind" in event:
                        self._take(event)
                    elif event.get("op") == "error":
                        self.wrong.append(message)
                    self.news.notify_all()

    def _take(self, event: dict):
        channel, _, symbol = event["topic"].split("/")
        if event["kind"] == "invalid":
            self.books.pop(symbol, None)
            self.told.append((symbol, channel, event["reason"]))
        elif channel == "status":
            self.states[symbol] = event["state"]
            self.told.append((symbol, channel, event["state"]))
        else:
            book = self.books.setdefault(symbol, {})
            if event["kind"] == "snapshot":
                book.update(bids={}, asks={})
                self.told.append((symbol, channel, "snapshot"))
            for side in ("bids", "asks"):
                for price, size in event[side]:
                    if Decimal(size):
                        book[side][Decimal(price)] = Decimal(size)
                    else:
                        book[side].pop(Decimal(price), None)
            if self.state(symbol) not in self.venue.states[self.natives[symbol]]:
                self.wrong.append(f"a {event['kind']} of {symbol} leads to a book that the venue never had")

    def state(self, symbol: str) -> int:
        book = self.books[symbol]
        return key(sorted(book["bids"].items(), reverse=True), sorted(book["asks"].items()))

    def until(self, what: str, is_so):
        deadline = time.monotonic() + PATIENCE_S
        with self.news:
            while not is_so():
                # Some of what is waited for happens elsewhere.
                self.news.wait(0.2)
                if time.monotonic() > deadline:
                    raise AssertionError(f"{what}: not within {PATIENCE_S} s; told {self.told[-12:]}, {self.states}")


class OfVenue:
    """What is the same for every venue; `venue` and `natives` are the class's own."""

    name: str
    kind: type[Venue]
    natives: dict[str, str]
    # What readers are told of a hole, and what is counted.
    hole: str

    @classmethod
    def setUpClass(cls):
        cls.exits = contextlib.ExitStack()
        cls.venue = cls.exits.enter_context(cls.kind(*cls.natives.values(), seed=11))
        cls.prepare()
        symbols, at = ",".join(cls.natives), f"{cls.name}=127.0.0.1:{cls.venue.port}"
        arguments = ["--venues", cls.name, "--symbols", symbols, "--venue-at", at, *cls.arguments()]
        cls.service = cls.exits.enter_context(Service(binary, *arguments))
        cls.reader = Reader(cls.service, cls.name, cls.venue, cls.natives)
        cls.exits.callback(cls.reader.close)
        cls.reader.until("every book", lambda: cls.live() and len(cls.reader.books) == len(cls.natives))

    @classmethod
    def prepare(cls): ...

    @classmethod
    def arguments(cls) -> list[str]:
        return []

    @classmethod
    def tearDownClass(cls):
        cls.exits.close()

    @classmethod
    def live(cls) -> bool:
        return all(cls.reader.states.get(symbol) == "live" for symbol in cls.natives)

    def equal(self):
        """At rest, readers have what the venue has."""
        reader, venue = self.reader, self.venue
        venue.paused = True
        try:
            same = lambda: all(s in reader.books and reader.state(s) == venue.state(n) for s, n in self.natives.items())
            reader.until("equal books", lambda: self.live() and same())
        finally:
            venue.paused = False
        self.assertEqual(reader.wrong, [])

    def label(self, cause: str, label: str = "cause") -> str:
        return f'venue="{self.name}",{label}="{cause}"'

    def noticed(self, fault: str, reason: str, counted: tuple[str, str], state: str):
        reader, (metric, cause) = self.reader, counted
        before, since = self.service.metric(metric, self.label(cause)), len(reader.told)
        told = lambda: reader.told[since:]
        self.venue.fault = fault
        reader.until(f"invalid after {fault}", lambda: any(t[1:] == ("book", reason) for t in told()))
        symbol = next(t[0] for t in told() if t[1:] == ("book", reason))
        mended = lambda: [t[1:] for t in told() if t[0] == symbol]
        reader.until(f"live after {fault}", lambda: ("status", "live") in mended() and self.live())
        steps = [t for t in mended() if t in (("book", reason), ("status", state), ("status", "live"))]
        self.assertEqual(steps, [("book", reason), ("status", state), ("status", "live")], fault)
        self.assertGreater(self.service.metric(metric, self.label(cause)), before, f"{metric} {cause}")
        self.equal()

    def harmless(self, what: str, count: int = 60):
        since = len(self.reader.told)
        steps = sum(book.updates for book in self.venue.market.books.values()) + count
        past = lambda: sum(book.updates for book in self.venue.market.books.values()) >= steps
        self.reader.until(what, lambda: past() and self.venue.fault is None)
        self.equal()
        self.assertEqual(self.reader.told[since:], [], what)

    def test_a_hole_is_noticed_and_mended(self):
        self.noticed("drop", self.hole, (FAULTS, self.hole), "resyncing")

    def test_server_sent_events_tell_it_too(self):
        with contextlib.closing(http.client.HTTPConnection(self.service.http, timeout=PATIENCE_S)) as connection:
            connection.request("GET", f"/v1/stream?topics=book/{self.name}/*,status/{self.name}/*&conflate=false")
            lines = connection.getresponse()
            events = (json.loads(line[6:]) for line in lines if line.startswith(b"data: {"))
            events = (event for event in events if "kind" in event)
            live = {}
            while len(live) < len(self.natives):
                event = next(events)
                if event.get("state") == "live":
                    live[event["topic"]] = True
            self.venue.fault = "drop"
            wrong = next(event for event in events if event["kind"] == "invalid")
            self.assertEqual(wrong["reason"], self.hole)
            steps = []
            while not steps or steps[-1] != "live":
                event = next(events)
                if event["topic"] == wrong["topic"].replace("book/", "status/"):
                    steps.append(event["state"])
                elif event["topic"] == wrong["topic"]:
                    steps.append(event["kind"])
            self.assertEqual([step for step in steps if step != "update"], ["resyncing", "snapshot", "live"])

    def test_a_wrong_order_is_noticed_and_mended(self):
        self.noticed("reorder", self.hole, (FAULTS, self.hole), "resyncing")

    def test_a_broken_frame_is_noticed_and_mended(self):
        self.noticed("corrupt", self.hole, (FAULTS, "undecodable"), "resyncing")

    def test_an_altered_frame_is_noticed_and_mended(self):
        self.noticed("alter", self.hole, (FAULTS, self.hole), "resyncing")

    def test_a_frame_that_comes_twice_is_harmless(self):
        self.venue.fault = "double"
        self.harmless("a frame twice")

    def test_a_stall_is_noticed_and_mended(self):
        self.noticed("stall", "stale", (DISCONNECTS, "silent"), "stale")

    @takes_minutes
    def test_every_end_of_a_connection_is_noticed_and_mended(self):
        for end, cause in (("close", "closed"), ("away", "closed"), ("vanish", "error"), ("reset", "error")):
            with self.subTest(end):
                self.noticed(end, "stale", (DISCONNECTS, cause), "stale")

    def test_frames_in_pieces_are_whole(self):
        self.venue.pieces = True
        self.harmless("pieces")
        self.venue.pieces = False

    def test_pings_are_answered(self):
        pongs = self.venue.pongs
        self.reader.until("pongs", lambda: self.venue.pongs >= pongs + 2)

    @takes_minutes
    def test_refused_and_slow_handshakes_are_tried_again(self):
        tries = [(429, {"Retry-After": "1"}, 0), (503, {}, 0), (101, {}, 2)]
        self.venue.handshakes.extend(tries)
        self.noticed("vanish", "stale", (DISCONNECTS, "connect"), "stale")
        self.assertEqual(len(self.venue.handshakes), 0)


class OnKraken(OfVenue, unittest.TestCase):
    name, kind, hole = "kraken", Kraken, "checksum"
    natives = {"BTC-USD": "BTC/USD", "ETH-USD": "ETH/USD"}

    def test_a_subscription_that_is_refused_for_now_is_asked_for_again(self):
        self.venue.refusals.append("EService:Unavailable")
        self.noticed("close", "stale", (FAULTS, "refused"), "stale")
        self.assertEqual(len(self.venue.refusals), 0)


class OnKrakenWithoutZeros(OfVenue, unittest.TestCase):
    """Numbers as a JSON library writes them; the checksum is over the pair's precision all the same."""

    name, kind, hole = "kraken", Kraken, "checksum"
    natives = {"BTC-USD": "BTC/USD"}

    @classmethod
    def prepare(cls):
        cls.venue.trimmed = True


class OnBinance(OfVenue, unittest.TestCase):
    name, kind, hole = "binance", Binance, "gap"
    natives = {"BTC-USDT": "BTCUSDT", "ETH-USDT": "ETHUSDT"}

    @takes_minutes
    def test_snapshots_that_do_not_come_are_asked_for_again(self):
        for status, headers, body, result in (
            (429, {"Retry-After": "1"}, '{"code":-1003,"msg":"Too many requests."}', "rate_limited"),
            (503, {}, "<html>", "status"),
            (200, {}, "<html>", "ok"),
            (200, {}, '{"lastUpdateId":1,"bids":[],"asks":[]}', "ok"),
        ):
            with self.subTest(f"{status} {body}"):
                self.venue.answers.append((status, headers, body))
                before = self.service.metric(FETCHES, self.label(result, "result"))
                self.noticed("drop", "gap", (FAULTS, "gap"), "resyncing")
                self.assertEqual(len(self.venue.answers), 0)
                self.assertGreater(self.service.metric(FETCHES, self.label(result, "result")), before)


def main() -> int:
    global binary
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    binary = sys.argv.pop(1)
    program = unittest.main(verbosity=2, exit=False, testRunner=unittest.TextTestRunner(stream=sys.stdout, verbosity=2))
    result = program.result
    failed = len(result.failures) + len(result.errors)
    skipped = len(result.skipped)
    print(f"{result.testsRun - failed - skipped} passed, {failed} failed, {skipped} ignored")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
