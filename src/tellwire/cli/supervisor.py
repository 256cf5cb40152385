"""What a supervisor is told that has started this process (sd_notify(3))."""

from __future__ import annotations

import os
import socket


def tell_supervisor(text: str) -> None:
    """Tell systemd something, such as ``READY=1``; nobody is told where none asked to be, or has gone.

    The address is a path, or begins with ``@`` for a name in Linux' abstract namespace.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wire:
            wire.sendto(text.encode(), address)
    except OSError:
        return  # it is for the supervisor's sake only, which then says itself that it heard nothing
