"""What readers in Python see, over each transport, of a service on the synthetic market.

    python test_clients.py BINARY
"""

from __future__ import annotations

import itertools
import json
import re
import sys
import time
import unittest

import grpc
from websockets.exceptions import ConnectionClosed
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

import clients
from service import Service, run_tests

DECIMAL = re.compile(r"-?(0|[1-9]\d*)(\.\d*[1-9])?\Z")
CURSOR = re.compile(r"[a-z0-9]{1,16}-\d+\Z")
TRADES = ["trade/synthetic/*"]
EACH = 60  # trades that each transport brings before the next takes over
LONG_S = 60

service: Service


def symbols() -> list[str]:
    status, _, answer = clients.get(service.http, "/v1/instruments?venue=synthetic")
    assert status == 200, answer
    return [i["symbol"] for i in answer["instruments"]]


def until(stream, done):
    """Reads until `done(event, notice)` and gives all that came; closes the stream."""
    got, deadline = [], time.monotonic() + LONG_S
    try:
        for event, notice, cursor in stream:
            got.append((event, notice, cursor))
            if done(event, notice):
                return got
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {LONG_S} s; the last of {len(got)} messages: {got[-3:]}")
        raise AssertionError(f"the stream ended after {len(got)} messages: {got[-3:]}")
    finally:
        stream.close()


def updates(count):
    left = itertools.count(1)
    return lambda event, _: event is not None and event["kind"] == "update" and next(left) >= count


class Http(unittest.TestCase):
    def test_instruments_and_venues(self):
        status, kind, answer = clients.get(service.http, "/v1/instruments")
        self.assertEqual((status, kind.split(";")[0]), (200, "application/json"))
        self.assertGreater(len(answer["instruments"]), 0)
        for instrument in answer["instruments"]:
            self.assertEqual(instrument["venue"], "synthetic")
            self.assertRegex(instrument["tick_size"], DECIMAL)
        # The consolidated venue is named, or it is not there: as in a pattern.
        status, _, answer = clients.get(service.http, "/v1/instruments?venue=best")
        self.assertEqual(status, 200)
        self.assertEqual([i["symbol"] for i in answer["instruments"]], sorted(symbols()))
        self.assertEqual({tuple(i["channels"]) for i in answer["instruments"]}, {("quote",)})
        status, _, answer = clients.get(service.http, "/v1/venues")
        self.assertEqual(status, 200)
        venues = {venue["venue"]: venue for venue in answer["venues"]}
        self.assertEqual(sorted(venues), ["best", "synthetic"])
        self.assertEqual(venues["best"], {"venue": "best", "instruments": len(symbols()), "states": {}})
        self.assertEqual(venues["synthetic"]["instruments"], len(symbols()))

    def test_snapshot(self):
        status, _, answer = clients.get(service.http, f"/v1/snapshot?topics=quote/synthetic/{symbols()[0]}")
        self.assertEqual(status, 200)
        self.assertRegex(answer["cursor"], CURSOR)
        (event,) = answer["events"]
        self.assertEqual((event["kind"], event["prev"]), ("snapshot", 0))
        for field in ("bid", "bid_size", "ask", "ask_size"):
            if event[field] is not None:
                self.assertRegex(event[field], DECIMAL)

    def test_errors_are_problem_details(self):
        for path, method, status, code in [
            ("/v1/stream?topics=quote/synthetic/NO-SUCH", "GET", 404, "unknown_topic"),
            ("/v1/poll?topics=nonsense", "GET", 400, "bad_request"),
            ("/v1/snapshot?topics=quote/nowhere/BTC-USD", "GET", 404, "unknown_topic"),
            ("/v1/poll?topics=trade/synthetic/*&cursor=not/a/cursor", "GET", 400, "bad_request"),
        ]:
            with self.subTest(path):
                got, kind, problem = clients.get(service.http, path, method)
                self.assertEqual((got, kind.split(";")[0]), (status, "application/problem+json"), problem)
                self.assertEqual((problem["code"], problem["status"]), (code, status))
                self.assertTrue(problem["detail"])
        self.assertEqual(clients.get(service.http, "/v1/stream?topics=trade/synthetic/*", "POST")[0], 405)


class Streams(unittest.TestCase):
    """A snapshot, then every update, on each transport."""

    def check(self, stream):
        topic = f"quote/synthetic/{symbols()[0]}"
        got = until(stream([topic]), updates(5))
        events = [e for e, _, _ in got if e]
        self.assertTrue(all(e["topic"] == topic for e in events))
        self.assertEqual([e["kind"] for e in events].count("snapshot"), 1)
        self.assertEqual(events[0]["kind"], "snapshot")
        seqs = [e["seq"] for e in events]
        self.assertEqual(seqs, sorted(set(seqs)))
        for event in events:
            for field in ("bid", "ask"):
                if event.get(field):
                    self.assertRegex(event[field], DECIMAL)
        return got

    def test_websocket(self):
        got = self.check(lambda topics: clients.websocket(service.http, topics))
        notices = [n for _, n, _ in got if n]
        self.assertEqual(notices[0]["op"], "welcome")
        self.assertIn("subscribed", [n["op"] for n in notices])

    def test_sse(self):
        got = self.check(lambda topics: clients.sse(service.http, topics))
        places = [int(c.rsplit("-", 1)[1]) for _, _, c in got if c]
        self.assertEqual(places, sorted(places), "the id only ever rises")

    def test_ndjson(self):
        self.check(lambda topics: clients.ndjson(service.http, topics))

    def test_poll(self):
        self.check(lambda topics: clients.poll(service.http, topics))

    def test_grpc(self):
        self.check(lambda topics: clients.grpc_stream(service.grpc, topics))

    def test_sse_resumes_by_last_event_id(self):
        first = until(clients.sse(service.http, TRADES), updates(20))
        place = first[-1][2]
        second = until(clients.sse(service.http, TRADES, last_event_id=place, cursor="earliest"), updates(20))
        seq = int(place.rsplit("-", 1)[1])
        self.assertTrue(all(e["seq"] > seq for e, _, _ in second if e), "Last-Event-ID goes before `from`")


class Reflection(unittest.TestCase):
    def test_services(self):
        with clients.Grpc(service.grpc) as client:
            for name in ("ticker.v1.MarketData", "grpc.health.v1.Health"):
                self.assertIn(name, client.services())

    def test_unary_calls(self):
        with clients.Grpc(service.grpc) as client:
            listed = client.call("ticker.v1.MarketData", "ListInstruments", venue="synthetic")
            self.assertEqual(sorted(i.instrument.symbol for i in listed.instruments), sorted(symbols()))
            snapshot = client.call("ticker.v1.MarketData", "GetSnapshot", topics=["quote/synthetic/*"])
            self.assertRegex(snapshot.cursor, CURSOR)
            self.assertEqual(len(snapshot.events), len(symbols()))

    def test_health(self):
        with clients.Grpc(service.grpc) as client:
            self.assertEqual(client.call("grpc.health.v1.Health", "Check").status, 1)

    def test_an_unknown_topic_is_a_status_with_its_code(self):
        with clients.Grpc(service.grpc) as client, self.assertRaises(grpc.RpcError) as raised:
            client.call("ticker.v1.MarketData", "GetSnapshot", topics=["quote/synthetic/NO-SUCH"])
        self.assertEqual(raised.exception.code(), grpc.StatusCode.NOT_FOUND)


class WebSocketSession(unittest.TestCase):
    def reply(self, socket, op):
        while (message := json.loads(socket.recv(timeout=clients.TIMEOUT_S))).get("op") != op:
            pass
        return message

    def test_requests_are_answered_by_id(self):
        with clients.open_websocket(service.http) as socket:
            socket.send('{"op":"ping","id":5}')
            self.assertEqual(self.reply(socket, "pong")["id"], 5)
            socket.send(json.dumps({"op": "subscribe", "id": 6, "topics": TRADES}))
            self.assertEqual(self.reply(socket, "subscribed")["id"], 6)
            socket.send(json.dumps({"op": "unsubscribe", "id": 7, "topics": TRADES}))
            self.assertEqual(self.reply(socket, "unsubscribed")["id"], 7)

    def test_bad_requests_are_told(self):
        with clients.open_websocket(service.http) as socket:
            socket.send('{"op":"subscribe","id":1,"topics":["quote/synthetic/NO-SUCH"]}')
            error = self.reply(socket, "error")
            self.assertEqual((error["id"], error["code"]), (1, "unknown_topic"))
            socket.send("{nonsense")
            self.assertEqual(self.reply(socket, "error")["code"], "bad_request")

    def test_a_huge_message_closes_the_session(self):
        with clients.open_websocket(service.http, compression=None) as socket:
            with self.assertRaises(ConnectionClosed) as raised:
                socket.send("x" * 2**20)
                while True:
                    socket.recv(timeout=clients.TIMEOUT_S)
            self.assertEqual(raised.exception.rcvd.code, 4007, "message_too_large")


class Deflate(unittest.TestCase):
    """permessage-deflate, RFC 7692."""

    AGREED = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"

    def answer(self, socket) -> str | None:
        return socket.response.headers.get("Sec-WebSocket-Extensions")

    def snapshot(self, socket, topic):
        socket.send(json.dumps({"op": "subscribe", "id": 1, "topics": [topic]}))
        while True:
            message = json.loads(socket.recv(timeout=clients.TIMEOUT_S))
            if message.get("kind") == "snapshot":
                return message

    def test_a_large_snapshot_comes_compressed_and_small_messages_do_not(self):
        symbol = symbols()[0]
        with clients.open_websocket(service.http) as socket:
            self.assertEqual(self.answer(socket), self.AGREED)
            compressed = clients.record_compressed(socket)
            self.snapshot(socket, f"quote/synthetic/{symbol}")
            self.assertEqual(compressed, [])
            book = self.snapshot(socket, f"book/synthetic/{symbol}")
            self.assertGreater(len(book["bids"]) + len(book["asks"]), 20)
            self.assertTrue(compressed)
            for small, large in compressed:
                self.assertGreaterEqual(large, 1024)
                self.assertLess(small, 0.7 * large)

    def test_who_does_not_offer_it_gets_none(self):
        with clients.open_websocket(service.http, compression=None) as socket:
            self.assertIsNone(self.answer(socket))
            self.snapshot(socket, f"book/synthetic/{symbols()[0]}")

    def test_a_smaller_window_is_not_agreed_on(self):
        for bits, answer in [(15, f"{self.AGREED}; server_max_window_bits=15"), (9, None)]:
            factory = ClientPerMessageDeflateFactory(server_max_window_bits=bits)
            with clients.open_websocket(service.http, extensions=[factory], compression=None) as socket:
                self.assertEqual(self.answer(socket), answer)
                self.snapshot(socket, f"book/synthetic/{symbols()[0]}")

    def test_both_encodings_are_compressed(self):
        request = clients.get_message(service.grpc, "SessionRequest")
        response = clients.get_message(service.grpc, "SessionResponse")
        with clients.open_websocket(service.http, subprotocols=["ticker.v1.proto"]) as socket:
            compressed = clients.record_compressed(socket)
            topics = [f"book/synthetic/{symbols()[0]}"]
            socket.send(request(subscribe={"id": 1, "topics": topics}).SerializeToString())
            while (message := response.FromString(socket.recv(timeout=clients.TIMEOUT_S))).WhichOneof("message") != "event":
                pass
            self.assertEqual(message.event.topic, topics[0])
            self.assertTrue(compressed)

    def test_a_small_message_that_inflates_to_a_huge_one_closes_the_session(self):
        with clients.open_websocket(service.http) as socket:
            with self.assertRaises(ConnectionClosed) as raised:
                socket.send("x" * 2**25)  # 32 KiB on the wire
                while True:
                    socket.recv(timeout=clients.TIMEOUT_S)
            self.assertEqual(raised.exception.rcvd.code, 4007, "message_too_large")

    def test_a_compressed_message_that_was_not_agreed_on_is_an_error(self):
        with clients.open_websocket(service.http, compression=None) as socket:
            with self.assertRaises(ConnectionClosed) as raised:
                # As in RFC 7692, 7.2.3.1: "Hello", masked with zeros.
                socket.socket.sendall(bytes.fromhex("c187 00000000 f248cdc9c90700"))
                while True:
                    socket.recv(timeout=clients.TIMEOUT_S)
            self.assertEqual(raised.exception.rcvd.code, 1002)


class Resume(unittest.TestCase):
    """A cursor that one transport gave goes on over any other: nothing is lost, nothing comes twice."""

    def test_across_all_transports(self):
        http, rpc = service.http, service.grpc
        ways = [
            ("ws", lambda c: clients.websocket(http, TRADES, c)),
            ("sse", lambda c: clients.sse(http, TRADES, c)),
            ("poll", lambda c: clients.poll(http, TRADES, c)),
            ("grpc", lambda c: clients.grpc_stream(rpc, TRADES, c)),
        ]
        # A first reader gives the place to begin at. Then each way goes on from the cursor that another one gave.
        start, _ = self.take(ways[0][1](None))
        cursor, chain = start, []
        for name, way in [*ways, ways[2], ways[1], ways[0], ways[3], ways[1]]:
            with self.subTest(name):
                cursor, events = self.take(way(cursor))
                chain += events
        last = max(e["seq"] for e in chain)
        again = until(clients.websocket(http, TRADES, start), lambda e, _: e is not None and e["seq"] >= last)
        whole = [e for e, _, _ in again if e and e["seq"] <= last]
        keys = [(e["seq"], e["topic"], e["kind"], e["price"], e["size"], e["trade_id"]) for e in chain]
        self.assertEqual(len(set(keys)), len(keys), "nothing comes twice")
        for topic in {e["topic"] for e in chain}:
            seqs = [e["seq"] for e in chain if e["topic"] == topic]
            self.assertEqual(seqs, sorted(seqs), f"{topic} is in the order of the tape")
        expected = [(e["seq"], e["topic"], e["kind"], e["price"], e["size"], e["trade_id"]) for e in whole]
        self.assertEqual(sorted(keys), sorted(expected), "nothing is lost")
        self.assertFalse([n for _, n, _ in again if n and n["op"] == "gap"])

    def take(self, stream):
        """At least EACH trades and then up to a message with a certain cursor."""
        seen, cursor, deadline = [], None, time.monotonic() + LONG_S
        try:
            for event, notice, place in stream:
                self.assertLess(time.monotonic(), deadline, f"{len(seen)} trades in {LONG_S} s")
                self.assertNotEqual((notice or {}).get("op"), "gap", notice)
                if event:
                    seen.append(event)
                if place and len(seen) >= EACH:
                    cursor = place
                    break
        finally:
            stream.close()
        self.assertRegex(cursor or "", CURSOR)
        return cursor, seen


class Slow(unittest.TestCase):
    """A reader who takes nothing for a while gets the newest of each state and every trade, and is told what was left
    out."""

    def check(self, way):
        everything = ["*/synthetic/*"]
        stream = way(everything, clients.small_socket(service.http))
        told, breaks, last, paused = 0, 0, {}, False
        deadline = time.monotonic() + LONG_S
        try:
            for event, notice, _ in stream:
                self.assertLess(time.monotonic(), deadline, f"{told} told, {breaks} seen")
                if notice is not None and notice["op"] == "heartbeat":
                    told += notice["conflated"]
                if notice is not None and notice["op"] == "subscribed" and not paused:
                    paused = True
                    others = itertools.count(1)
                    until(clients.websocket(service.http, everything), lambda e, _: e is not None and next(others) > 4_000)
                if event is not None:
                    topic, before = event["topic"], last.get(event["topic"])
                    if event["kind"] != "snapshot" and before is not None and event["prev"] != before:
                        self.assertRegex(topic, r"^(quote|status|stats|bar-\w+)/", f"{before}, then {event}")
                        breaks += 1
                    last[topic] = event["seq"]
                if told and breaks:
                    break
        finally:
            stream.close()
        self.assertGreaterEqual(told, breaks)

    def test_websocket(self):
        self.check(lambda topics, sock: clients.websocket(service.http, topics, sock=sock))

    def test_sse(self):
        self.check(lambda topics, sock: clients.sse(service.http, topics, sock=sock))


if __name__ == "__main__":
    sys.exit(run_tests(__doc__, "10@25"))
