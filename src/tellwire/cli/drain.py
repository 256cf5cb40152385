"""The command ``tellwire drain``."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import httpx

from tellwire.cli.client import Target, server_options, shown
from tellwire.cli.operators import PATIENCE_S, ask

LOOK_EVERY_S = 0.5

PROCESSES = Path("/proc")
"""Where Linux tells of processes; other systems have no such directory."""


@click.command(
    epilog="""\b
Examples:
  tellwire drain                        the server at --url, with all its workers
  tellwire drain --node web-2           another one, asked through this one
  tellwire drain --pid "$(pidof -s ...)"   one on this machine, by its process
"""
)
@click.option("--node", help="Drain this one: a server, a node of it, or a node's id (see `tellwire nodes`).")
@click.option("--pid", type=click.IntRange(min=1), help="Drain the server of this process, by a signal.")
@click.option("--wait/--no-wait", default=True, help="Wait until it has ended.  [default: wait]")
@click.option("--timeout", type=click.FloatRange(min=0.1), default=120.0, show_default=True, help="Seconds to wait.")
@server_options
def drain(node: str | None, pid: int | None, wait: bool, timeout: float, target: Target) -> None:
    """Have a server send its clients elsewhere, and end: as SIGTERM does.

    Waits until it has ended, and says how many connections are left on the way. Exits with 1 where it is still there
    after --timeout.
    """
    if node is not None and pid is not None:
        raise click.UsageError("--node and --pid exclude each other: give the one or the other")
    if pid is not None:
        _drain_process(pid, wait, timeout)
    else:
        _drain_node(target, node, wait, timeout)


def _drain_node(target: Target, node: str | None, wait: bool, timeout_s: float) -> None:
    # One connection for all: a server that drains takes no new ones, but goes on answering on those that it has.
    with target.client(timeout=PATIENCE_S) as client:
        begun = ask(client, "POST", "drain", json={"node": node})
        left = {each["node"]: shown(each["name"]) for each in begun["draining"]}
        for each in begun["unanswered"]:
            click.echo(f"node {shown(each['name'])} did not answer; it may be gone already", err=True)
        if not left:
            raise click.ClickException("no node that was meant has answered, so none drains")
        click.echo(f"draining: {', '.join(sorted(left.values()))}")
        if not wait:
            return
        deadline = time.monotonic() + timeout_s
        said = ""
        while left:
            if time.monotonic() > deadline:
                raise click.ClickException(f"still there after {timeout_s:g} s: {', '.join(sorted(left.values()))}")
            time.sleep(LOOK_EVERY_S)
            found = _look(client)
            if found is None:
                if begun["node"] in left:
                    click.echo(f"nobody answers at {target.url} any more")
                    break
                continue  # it is another one that drains, so this one is only away for a moment
            for gone in [each for each in left if each not in found]:
                click.echo(f"{left.pop(gone)} has ended")
            count = sum(found[each] for each in left)
            if left and (now := f"{count} connections left") != said:
                said = now
                click.echo(said)
    click.echo("done")


def _look(client: httpx.Client) -> dict[str, int] | None:
    """Return how many connections each node has that is known; None where nobody is there to ask."""
    try:
        response = client.get("/v1/admin/nodes", params={"timeout": 1})
    except httpx.HTTPError:
        return None
    if not response.is_success:
        return None
    nodes: list[dict[str, Any]] = response.json()["nodes"]
    return {each["node"]: sum(each.get("connections", {}).values()) for each in nodes}


def _drain_process(pid: int, wait: bool, timeout_s: float) -> None:
    if not _is_server(pid):
        raise click.ClickException(f"process {pid} is not there, or is no Tellwire server of yours")
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        raise click.ClickException(f"process {pid} is not there") from None
    except PermissionError:
        raise click.ClickException(f"process {pid} is somebody else's; ask its owner, or root") from None
    click.echo(f"draining: process {pid}")
    if not wait:
        return
    if not _wait(lambda: _is_there(pid), timeout_s):
        raise click.ClickException(f"process {pid} is still there after {timeout_s:g} s")
    click.echo("done")


def _wait(is_there: Callable[[], bool], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while is_there():
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK_EVERY_S / 5)
    return True


def _is_server(pid: int) -> bool:
    """Tell whether a process is one that may be sent a signal to stop: where that can be seen, a Tellwire server."""
    if not PROCESSES.joinpath("self").exists():
        return _is_there(pid)
    try:
        return b"tellwire" in (PROCESSES / str(pid) / "cmdline").read_bytes()
    except OSError:
        return False


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:  # one that nobody has waited for has ended all the same
        return (PROCESSES / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return not PROCESSES.joinpath("self").exists()
