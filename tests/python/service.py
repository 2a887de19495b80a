"""Runs `ticker up` on free ports for a test, and sees that it ends in good order.

    python service.py BINARY [ARGUMENT…] -- COMMAND…

runs COMMAND with {http}, {tls}, {grpc} and {admin} replaced by the addresses, ends the service with the signal that Ctrl-C
sends, and exits with COMMAND's status, or 1 if the service did not end with 0.
"""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
from types import ModuleType

READY_S = 60
DRAIN_S = 30

# Far more than any takes, also where much else runs.
TEST_SECONDS_MAX = 300


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now. All are held until the last is found, so that they differ."""
    held = []
    try:
        for _ in range(count):
            held.append(socket.create_server(("127.0.0.1", 0)))
        return [s.getsockname()[1] for s in held]
    finally:
        for s in held:
            s.close()


class Service:
    """`ticker up`, for as long as a `with` block lasts."""

    def __init__(self, binary: str, *arguments: str):
        http_port, tls_port, grpc_port, admin_port = free_ports(4)
        self.http = f"127.0.0.1:{http_port}"
        self.tls = f"127.0.0.1:{tls_port}"
        self.grpc = f"127.0.0.1:{grpc_port}"
        self.admin = f"127.0.0.1:{admin_port}"
        addresses = ["--listen", self.http, "--tls-listen", self.tls, "--grpc", self.grpc, "--admin", self.admin]
        # WebRTC tells its address itself.
        addresses += ["--rtc-listen", "127.0.0.1:0"]
        self.command = [binary, "up", *addresses, *arguments]
        self.exit_code: int | None = None

    def __enter__(self) -> Service:
        # No setting of the caller's shell may change what is tested.
        clean = {k: v for k, v in os.environ.items() if not k.startswith("TICKER_")}
        self.log = tempfile.NamedTemporaryFile(prefix="ticker-", suffix=".log", mode="w+")
        self.process = subprocess.Popen(self.command, stdout=self.log, stderr=subprocess.STDOUT, env=clean)
        deadline = time.monotonic() + READY_S
        while not self._is_ready():
            if self.process.poll() is not None:
                raise RuntimeError(f"{' '.join(self.command)} ended with {self.process.returncode}:\n{self.output()}")
            if time.monotonic() > deadline:
                self.process.kill()
                raise RuntimeError(f"not ready after {READY_S} s:\n{self.output()}")
            time.sleep(0.05)
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGINT)
        try:
            self.exit_code = self.process.wait(DRAIN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            self.exit_code = None
        self.text = self.output()
        self.log.close()

    def output(self) -> str:
        """What the service has printed, its end."""
        with open(self.log.name, encoding="utf-8", errors="replace") as text:
            return "".join(text.readlines()[-60:])

    def metric(self, name: str, label: str = "") -> float:
        """The sum of a metric's values, or of those that have a label."""
        connection = http.client.HTTPConnection(self.admin, timeout=DRAIN_S)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        labels = rf"{{[^}}]*{label}[^}}]*}}" if label else r"(?:{[^}]*})?"
        return sum(float(value) for value in re.findall(rf"^{name}{labels} (\S+)$", text, re.MULTILINE))

    def _is_ready(self) -> bool:
        try:
            connection = http.client.HTTPConnection(self.admin, timeout=1)
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except OSError:
            return False


class Patient(unittest.TextTestResult):
    """A test that hangs is an error, not a run without end."""

    def startTest(self, test):
        super().startTest(test)
        signal.signal(signal.SIGALRM, self.give_up)
        signal.alarm(TEST_SECONDS_MAX)

    def stopTest(self, test):
        signal.alarm(0)
        super().stopTest(test)

    @staticmethod
    def give_up(*_):
        raise TimeoutError(f"a test that takes more than {TEST_SECONDS_MAX} s")


def run_tests(usage: str, market: str, *modules: ModuleType) -> int:
    """Runs the tests of the program that was started (`… BINARY`) against a service on that synthetic market, which they find
    as `service` in their module, as these do in theirs. That the service ends in good order is a test too."""
    if len(sys.argv) != 2:
        print(usage, file=sys.stderr)
        return 2
    program = sys.modules["__main__"]
    suite = unittest.defaultTestLoader.loadTestsFromModule(program)
    with Service(sys.argv[1], "--synthetic", market) as service:
        for module in (program, *modules):
            module.service = service
        runner = unittest.TextTestRunner(verbosity=2, stream=sys.stdout, resultclass=Patient)
        result = runner.run(suite)
    failed = len(result.failures) + len(result.errors)
    passed = result.testsRun - failed - len(result.skipped)
    if service.exit_code == 0 and "panicked" not in service.text:
        passed += 1
    else:
        failed += 1
        print(f"FAIL the service ends with 0 after Ctrl-C, and nothing in it panicked: it ended with {service.exit_code}")
    if failed:
        print(f"the service's last lines:\n{service.text}")
    print(f"{passed} passed, {failed} failed, {len(result.skipped)} ignored")
    return 1 if failed else 0


def main() -> int:
    if "--" not in sys.argv:
        print(__doc__, file=sys.stderr)
        return 2
    split = sys.argv.index("--")
    with Service(*sys.argv[1:split]) as service:
        addresses = {"{http}": service.http, "{tls}": service.tls, "{grpc}": service.grpc, "{admin}": service.admin}
        command = sys.argv[split + 1 :]
        for name, address in addresses.items():
            command = [word.replace(name, address) for word in command]
        status = subprocess.run(command, check=False).returncode
    if service.exit_code != 0:
        print(f"the service ended with {service.exit_code} after Ctrl-C, not with 0:\n{service.text}", file=sys.stderr)
        return status or 1
    return status


if __name__ == "__main__":
    sys.exit(main())
