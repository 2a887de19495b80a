"""A path that delays and loses packets: two network namespaces, a TUN device in each, and a forwarder between them.

Both belong to this process and end with it; nothing outside them is reached. Root is needed, and /dev/net/tun.
"""

from __future__ import annotations

import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import threading
import time

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
MTU = 1_500

# RFC 2544: set aside for measurements between hosts.
SERVER, READER = "198.18.7.1", "198.18.7.2"

# Packets under way in one direction: what comes beyond is dropped, as a router does.
UNDER_WAY_MAX = 10_000


def run(*command: str):
    subprocess.run(command, check=True)


class Path:
    """The path, for as long as a `with` block lasts. `delay_s` and `loss` hold for each direction."""

    def __init__(self, delay_s: float, loss: float, seed: int):
        self.delay_s, self.loss, self.random = delay_s, loss, random.Random(seed)
        self.server_namespace, self.reader_namespace = (f"ticker-{side}-{os.getpid()}" for side in ("server", "reader"))
        self.forwarded = self.lost = self.overflowed = 0
        self.files: list[int] = []
        self.made: list[str] = []

    def __enter__(self) -> Path:
        try:
            self._end("tks", self.server_namespace, SERVER)
            self._end("tkr", self.reader_namespace, READER)
        except BaseException:
            self._remove()
            raise
        self.wake_read, self.wake_write = os.pipe()
        self.thread = threading.Thread(target=self._forward, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        os.write(self.wake_write, b"x")
        self.thread.join()
        os.close(self.wake_read)
        os.close(self.wake_write)
        self._remove()

    def _end(self, prefix: str, namespace: str, address: str):
        device = f"{prefix}{os.getpid()}"
        run("ip", "netns", "add", namespace)
        self.made.append(namespace)
        file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        self.files.append(file)
        fcntl.ioctl(file, TUNSETIFF, struct.pack("16sH", device.encode(), IFF_TUN | IFF_NO_PI))
        # It stays ours wherever it goes.
        run("ip", "link", "set", device, "netns", namespace)
        inside = ("ip", "-n", namespace)
        run(*inside, "link", "set", "lo", "up")
        run(*inside, "address", "add", f"{address}/30", "dev", device)
        run(*inside, "link", "set", device, "mtu", str(MTU), "up")

    def _remove(self):
        for file in self.files:
            os.close(file)
        for namespace in self.made:
            run("ip", "netns", "delete", namespace)
        self.files, self.made = [], []

    def _forward(self):
        """Takes packets from each device, and gives them to the other when they are due."""
        here, there = self.files
        other = {here: there, there: here}
        due: list[tuple[float, int, int, bytes]] = []
        number = 0
        while True:
            wait = max(0.0, due[0][0] - time.monotonic()) if due else None
            readable, _, _ = select.select([here, there, self.wake_read], [], [], wait)
            if self.wake_read in readable:
                return
            now = time.monotonic()
            for file in readable:
                while True:
                    try:
                        packet = os.read(file, MTU + 100)
                    except BlockingIOError:
                        break
                    if self.random.random() < self.loss:
                        self.lost += 1
                    elif len(due) >= 2 * UNDER_WAY_MAX:
                        self.overflowed += 1
                    else:
                        number += 1
                        heapq.heappush(due, (now + self.delay_s, number, other[file], packet))
            now = time.monotonic()
            while due and due[0][0] <= now:
                _, _, file, packet = heapq.heappop(due)
                try:
                    os.write(file, packet)
                    self.forwarded += 1
                except OSError:
                    self.overflowed += 1
