"""HTTP/3 as two more independent clients speak it: niquests (on qh3) and ngtcp2's, with nghttp3 and GnuTLS below.

    python test_h3_clients.py BINARY
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
import warnings
from pathlib import Path

import niquests

import secure
from secure import TIMEOUT_S, http1_get
from service import Service, run_tests

TRADES = "trade/synthetic/*"

# Whom the tests ask.
service: Service


def trades(events: list[dict]) -> list[tuple]:
    return [(e["topic"], e["seq"], e["trade_id"]) for e in events if e["topic"].startswith("trade/")]


def poll_over_http1(**query: str) -> dict:
    """What another connection says, by another protocol."""
    pairs = "&".join(f"{k}={v}" for k, v in {"topics": TRADES, **query}.items())
    response, body = http1_get(f"/v1/poll?{pairs}")
    assert (response.status, response.version) == (200, 11), body
    return json.loads(body)


class Niquests(unittest.TestCase):
    def setUp(self):
        # HTTP/3 from the first packet on, and no proxy of the caller's shell.
        self.session = niquests.Session(disable_http1=True, disable_http2=True)
        self.session.trust_env = False
        self.session.verify = False
        self.addCleanup(self.session.close)
        warnings.simplefilter("ignore")

    def get(self, path: str, **options) -> niquests.Response:
        response = self.session.get(f"https://{service.tls}{path}", timeout=TIMEOUT_S, **options)
        self.assertEqual(response.http_version, 30)
        self.assertEqual(response.headers["alt-svc"], f'h3=":{service.tls.rsplit(":", 1)[1]}"; ma=86400')
        return response

    def test_pages(self):
        for path, content_type, says in [
            ("/", "text/html; charset=utf-8", "<!doctype html>"),
            ("/app.js", "text/javascript; charset=utf-8", "EventSource"),
            ("/style.css", "text/css; charset=utf-8", "{"),
        ]:
            response = self.get(path)
            self.assertEqual((response.status_code, response.headers["content-type"]), (200, content_type))
            self.assertIn(says, response.text)
            self.assertEqual(response.content, http1_get(path)[1], "the same as over HTTP/1.1")

    def test_a_snapshot(self):
        response = self.get("/v1/snapshot", params={"topics": "quote/synthetic/*,book-10/synthetic/*"})
        self.assertEqual((response.status_code, response.headers["content-type"]), (200, "application/json"))
        events = response.json()["events"]
        self.assertEqual({(e["kind"], e["prev"]) for e in events}, {("snapshot", 0)})
        listed = self.get("/v1/instruments", params={"venue": "synthetic"}).json()["instruments"]
        names = {f"{channel}/synthetic/{i['symbol']}" for channel in ["quote", "book-10"] for i in listed}
        self.assertEqual({e["topic"] for e in events}, names)
        for quote in (e for e in events if e["topic"].startswith("quote/")):
            self.assertRegex(quote["bid"], r"^\d+(\.\d*[1-9])?$", "an exact decimal")

    def test_what_is_wrong_is_told(self):
        response = self.get("/v1/snapshot", params={"topics": "quote/synthetic/NO"})
        self.assertEqual((response.status_code, response.json()["code"]), (404, "unknown_topic"))
        self.assertEqual(response.headers["content-type"], "application/problem+json")

    def test_polls_go_on_from_a_cursor_of_http1(self):
        start = poll_over_http1()["cursor"]
        cursor, got = start, []
        while len(got) < 30:
            answer = self.get("/v1/poll", params={"topics": TRADES, "cursor": cursor, "wait": "20"}).json()
            self.assertEqual(answer["notices"], [])
            got += trades(answer["events"])
            cursor = answer["cursor"]
        # Once more at one go: nothing was lost, and nothing came twice.
        last = int(cursor.rsplit("-", 1)[1])
        whole = trades(poll_over_http1(cursor=start)["events"])
        self.assertEqual(sorted(got), sorted(t for t in whole if t[1] <= last))

    def test_server_sent_events_go_on_from_a_cursor_of_http1(self):
        start = poll_over_http1()["cursor"]
        params = {"topics": TRADES}
        response = self.get("/v1/stream", params=params, headers={"last-event-id": start}, stream=True)
        self.assertEqual((response.status_code, response.headers["content-type"]), (200, "text/event-stream; charset=utf-8"))
        got, ids, kinds = [], [], []
        for line in response.iter_lines(decode_unicode=True):
            field, _, value = line.partition(": ")
            if field == "id":
                ids.append(value)
            elif field == "event":
                kinds.append(value)
            elif field == "data" and "topic" in (message := json.loads(value)):
                got += trades([message])
            if len(got) >= 30 and not line:
                break
        response.close()
        self.assertEqual(set(kinds), {"notice"})
        places = [int(i.rsplit("-", 1)[1]) for i in ids]
        self.assertEqual(places, sorted(places), "the cursor only ever rises")
        whole = trades(poll_over_http1(cursor=start)["events"])
        last = max(seq for _, seq, _ in got)
        self.assertEqual(sorted(got), sorted(t for t in whole if t[1] <= last))


class Ngtcp2(unittest.TestCase):
    """The client of Debian's package ngtcp2-client."""

    def run_client(self, path: str, *options: str) -> tuple[str, bytes]:
        """What it says of itself, and the body."""
        binary = shutil.which("gtlsclient")
        self.assertIsNotNone(binary, "apt-get install ngtcp2-client")
        host, port = service.tls.rsplit(":", 1)
        with tempfile.TemporaryDirectory() as folder:
            # It names what it downloads by the last part of the URL.
            uri = f"https://{service.tls}{path}#/body"
            command = [binary, "--exit-on-all-streams-close", f"--download={folder}", *options, host, port, uri]
            done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=False)
            said = done.stderr.decode(errors="replace")
            self.assertEqual(done.returncode, 0, said[-2000:])
            files = list(Path(folder).iterdir())
            self.assertEqual(len(files), 1, said[-2000:])
            return said, files[0].read_bytes()

    def headers(self, said: str) -> dict[str, str]:
        return dict(re.findall(r"stream 0x0 \[(:?[\w-]+): (.*)\]", said))

    def test_a_handshake_and_a_snapshot(self):
        said, body = self.run_client("/v1/snapshot?topics=quote/synthetic/*")
        for line in ["QUIC handshake has completed", "Negotiated ALPN is h3"]:
            self.assertTrue(line in said, line)
        headers = self.headers(said)
        self.assertEqual((headers[":status"], headers["content-type"]), ("200", "application/json"))
        self.assertEqual(headers["alt-svc"], f'h3=":{service.tls.rsplit(":", 1)[1]}"; ma=86400')
        self.assertEqual(int(headers["content-length"]), len(body))
        events = json.loads(body)["events"]
        self.assertEqual({(e["kind"], e["prev"]) for e in events}, {("snapshot", 0)})
        listed = json.loads(http1_get("/v1/instruments?venue=synthetic")[1])["instruments"]
        self.assertEqual({e["topic"] for e in events}, {f"quote/synthetic/{i['symbol']}" for i in listed})

    def test_a_poll_goes_on_from_a_cursor_of_http1(self):
        start = poll_over_http1()["cursor"]
        said, body = self.run_client(f"/v1/poll?topics={TRADES}&cursor={start}&wait=20")
        self.assertEqual(self.headers(said)[":status"], "200")
        answer = json.loads(body)
        got = trades(answer["events"])
        self.assertGreater(len(got), 0)
        last = int(answer["cursor"].rsplit("-", 1)[1])
        whole = trades(poll_over_http1(cursor=start)["events"])
        self.assertEqual(sorted(got), sorted(t for t in whole if t[1] <= last))

    def test_whoever_was_here_asks_with_the_first_packet(self):
        with tempfile.TemporaryDirectory() as folder:
            kept = [f"--session-file={folder}/session", f"--tp-file={folder}/parameters"]
            first, _ = self.run_client("/v1/venues", *kept)
            self.assertTrue("type=0RTT" not in first, "it has no ticket yet")
            again, body = self.run_client("/v1/venues", *kept)
        is_early = re.search(r"frm tx \d+ 0RTT STREAM\(0x\w+\) id=0x0 fin=1", again)
        self.assertTrue(is_early, "the request is among the early data")
        self.assertTrue("arly data was rejected" not in again, "the service takes it")
        self.assertEqual([v["venue"] for v in json.loads(body)["venues"]], ["best", "synthetic"])

    def test_a_new_address_and_new_keys_while_an_answer_is_waited_for(self):
        cursor = poll_over_http1(topics="status/synthetic/*")["cursor"]
        moves = ["--change-local-addr=100ms", "--key-update=300ms"]
        said, body = self.run_client(f"/v1/poll?topics=status/synthetic/*&cursor={cursor}&wait=1", *moves)
        for line in ["Local address is now", "Initiate key update"]:
            self.assertTrue(line in said, line)
        self.assertEqual(self.headers(said)[":status"], "200")
        self.assertEqual(json.loads(body)["notices"], [])


if __name__ == "__main__":
    sys.exit(run_tests(__doc__, "10@25", secure))
