"""A real coturn for tests: deploy/coturn.conf, on a free port of the loopback."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tellwire.ice import IceSettings
from tests.ports import free_port
from tests.serving import ROOT, WATCHDOG_S

SECRET = "the secret of the tests' TURN server"
CONF = ROOT / "deploy" / "coturn.conf"


class Turn:
    """One coturn; `settings` are those by which Tellwire knows it."""

    def __init__(self, directory: Path, program: str, *, loopback: bool) -> None:
        self.port = free_port()
        conf = CONF.read_text()
        conf = conf.replace("REPLACE-WITH-THE-SECRET-OF-TELLWIRE", SECRET)
        conf = conf.replace("listening-port=3478", f"listening-port={self.port}")
        if loopback:
            # What it denies is what the tests have: two pages on one machine.
            conf = re.sub(r"(?m)^denied-peer-ip=127\..*$", "allow-loopback-peers", conf)
        conf = re.sub(r"(?m)^max-bps=.*\n", "", conf)
        conf = re.sub(r"(?m)^syslog$", f"log-file={directory}/turn.log\npidfile={directory}/turn.pid", conf)
        conf += f"listening-ip=127.0.0.1\nrelay-ip=127.0.0.1\nuserdb={directory}/users.db\n"
        path = directory / "turnserver.conf"
        path.write_text(conf)
        self.log = directory / "turn.log"
        self._process = subprocess.Popen(
            [program, "-c", str(path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
        )
        deadline = time.monotonic() + WATCHDOG_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except ConnectionRefusedError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise RuntimeError(f"coturn did not start: {self.log.read_text()[-2000:]}") from None
                time.sleep(0.05)

    def urls(self, *transports: str) -> tuple[str, ...]:
        return tuple(f"turn:127.0.0.1:{self.port}?transport={each}" for each in transports)

    def settings(self, *transports: str) -> IceSettings:
        return IceSettings(ice_turn_urls=self.urls(*(transports or ("udp", "tcp"))), ice_turn_secret=SECRET)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait(WATCHDOG_S)


@contextmanager
def turn_server(directory: Path, *, loopback: bool = True) -> Iterator[Turn]:
    """Run one; without coturn the test is skipped, but in CI it fails.

    `loopback` lets it relay to this machine, which deploy/coturn.conf denies.
    """
    path = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin"
    program = shutil.which("turnserver", path=path)
    if program is None:
        sentence = "there is no turnserver here: install it with `sudo apt-get install coturn`"
        if os.environ.get("CI") == "true":
            pytest.fail(sentence)
        pytest.skip(sentence)
    turn = Turn(directory, program, loopback=loopback)
    try:
        yield turn
    finally:
        turn.stop()
