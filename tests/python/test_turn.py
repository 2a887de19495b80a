"""A session through a relay: Debian's coturn takes the credentials that the edge tells, and aiortc reaches the edge by it alone.

    python test_turn.py BINARY
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
import unittest

from aiortc import RTCConfiguration, RTCIceServer, RTCIceTransportPolicy

import test_rtc
from service import Service, free_ports

SECRET = "north"
READY_S = 20
RELAYED = 50


class Relay:
    """coturn on a free port of the loopback, for as long as a `with` block lasts."""

    def __enter__(self) -> Relay:
        (self.port,) = free_ports(1)
        self.folder = tempfile.TemporaryDirectory(prefix="ticker-turn-")
        log = f"{self.folder.name}/log"
        command = ["turnserver", "-n", "--use-auth-secret", f"--static-auth-secret={SECRET}", "--realm=ticker"]
        command += ["--listening-ip=127.0.0.1", f"--listening-port={self.port}", "--relay-ip=127.0.0.1"]
        # The edge is on the loopback too, where relays refuse to reach unless told otherwise.
        command += ["--allow-loopback-peers", "--no-tls", "--no-dtls", "--no-cli", "--no-rfc5780"]
        command += [f"--pidfile={self.folder.name}/pid", f"--userdb={self.folder.name}/db", f"--log-file={log}", "--simple-log"]
        self.log = log
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self.folder.name)
        deadline = time.monotonic() + READY_S
        while "listener opened on : 127.0.0.1" not in self.text() and "Relay ports initialization done" not in self.text():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise RuntimeError(f"coturn is not ready:\n{self.text()}")
            time.sleep(0.05)
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(READY_S)
        self.said = self.text()
        self.folder.cleanup()

    def text(self) -> str:
        if not os.path.exists(self.log):
            return ""
        with open(self.log, encoding="utf-8", errors="replace") as log:
            return log.read()


def relay_of(links: str) -> RTCIceServer:
    """The TURN server of `Link` headers (draft-ietf-wish-whep)."""
    url, parameters = re.search(r"<(turn:[^>]+)>([^<]*)", links).groups()
    quoted = dict(re.findall(r'(\w[\w-]*)="([^"]*)"', parameters))
    return RTCIceServer(url, quoted["username"], quoted["credential"])


class Turn(unittest.IsolatedAsyncioTestCase):
    async def test_a_session_through_a_relay(self):
        first = await test_rtc.Session().open()
        server = relay_of(first.links)
        await first.peer.close()
        session = await self.through(server)
        session.send(op="subscribe", id=1, topics=["quote/synthetic/*"])
        updates = 0
        while updates < RELAYED:
            updates += (await session.next()).get("kind") == "update"
        self.assertNotIn("typ host", session.peer.localDescription.sdp)
        self.assertIn("typ relay", session.peer.localDescription.sdp)
        await session.peer.close()

    async def test_other_credentials_are_refused(self):
        server = relay_of((await test_rtc.Session().open()).links)
        server.credential = "south"
        with self.assertRaises(Exception):
            await asyncio.wait_for(self.through(server), 10)

    async def through(self, server: RTCIceServer):
        configuration = RTCConfiguration([server], iceTransportPolicy=RTCIceTransportPolicy.RELAY)
        return await test_rtc.Session().open(configuration=configuration)


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    with Relay() as relay, tempfile.NamedTemporaryFile("w", suffix=".toml") as config:
        url = f"turn:127.0.0.1:{relay.port}?transport=udp"
        config.write(f'[edge]\nrtc_ice_servers = ["{url}"]\nrtc_turn_secret = "{SECRET}"\n')
        config.flush()
        with Service(sys.argv[1], "--synthetic", "20@50", "--config", config.name) as service:
            test_rtc.service = service
            suite = unittest.defaultTestLoader.loadTestsFromModule(sys.modules["__main__"])
            result = unittest.TextTestRunner(verbosity=2, stream=sys.stdout).run(suite)
    failed = len(result.failures) + len(result.errors)
    if failed:
        print(f"the service's last lines:\n{service.text}\nthe relay's:\n{relay.said}")
    print(f"{result.testsRun - failed} passed, {failed} failed, 0 ignored")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
