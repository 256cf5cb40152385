"""A network of its own for a server, with wires to it that can be unplugged."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from typing import Self

import pytest

IP = shutil.which("ip", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


class Wire:
    """A pair of virtual Ethernet devices; ``host`` is the address of its end in the other network."""

    def __init__(self, network: str, number: int) -> None:
        self._network = network
        self._device = f"b{number}"
        subnet = f"10.{random.randrange(128, 255)}.{random.randrange(256)}"
        self.host = f"{subnet}.2"
        here = f"{network}{number}"
        run("link", "add", here, "type", "veth", "peer", "name", self._device, "netns", network)
        run("addr", "add", f"{subnet}.1/30", "dev", here)
        run("link", "set", here, "up")
        run("-n", network, "addr", "add", f"{self.host}/30", "dev", self._device)
        self.plug_in()

    def unplug(self) -> None:
        """Let nothing through; neither end is told."""
        run("-n", self._network, "link", "set", self._device, "down")

    def plug_in(self) -> None:
        """Let everything through."""
        run("-n", self._network, "link", "set", self._device, "up")


class Network:
    """A network namespace with two wires to it; skips the test where those cannot be made."""

    def __init__(self) -> None:
        self._name = f"tw{random.randrange(16**8):08x}"
        self.inside = (IP or "ip", "netns", "exec", self._name)
        self.wires: list[Wire] = []

    def __enter__(self) -> Self:
        if IP is None:
            pytest.skip("there is no ip here, of Debian's package iproute2")
        made = subprocess.run([IP, "netns", "add", self._name], capture_output=True, text=True, check=False)
        if made.returncode != 0:
            pytest.skip(f"network namespaces cannot be made here ({made.stderr.strip()}); a proxy cuts a node off, too")
        try:
            self.wires += [Wire(self._name, number) for number in range(2)]
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        # Devices go with their namespace.
        run("netns", "delete", self._name)


def run(*arguments: str) -> None:
    """Run ip."""
    assert IP is not None
    done = subprocess.run([IP, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (arguments, done.stderr)
