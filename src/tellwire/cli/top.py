"""The command ``tellwire top``: what goes on, live in the terminal."""

from __future__ import annotations

import contextlib
import os
import queue
import select
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import click
import httpx
from rich.console import Console
from rich.live import Live

from tellwire.cli import tables
from tellwire.cli.certificates import NotAccepted
from tellwire.cli.client import Target, server_options
from tellwire.cli.operators import ask
from tellwire.cli.top_view import SORTS, Moment, Sort, View, draw, draw_once

ANSWER_S = 5.0
"""Seconds after which a server that does not answer is said not to."""

LISTED = 100

LOOK_S = 0.25
"""Seconds after which the clock and the size of the terminal are looked at again."""


@click.command(
    epilog="""\b
Examples:
  tellwire top
  tellwire top --interval 5 --sort readers
  tellwire top | head        once, where the output is no terminal
"""
)
@click.option("--interval", type=click.FloatRange(min=0.5, max=3600), default=2.0, show_default=True, help="Seconds.")
@click.option("--sort", type=click.Choice(list(SORTS.values())), default="rate", show_default=True, help="Of channels.")
@server_options
def top(interval: float, sort: Sort, target: Target) -> None:
    """Show nodes, the busiest channels and the slowest readers, live.

    q or Ctrl-C ends it; m, r and l sort channels by messages, readers and lag. The token needs `admin` for nodes,
    channels and connections. IN is what was published, OUT what was written to readers, a second.
    """
    view = View(target.url, sort, interval_s=interval)
    if not (sys.stdout.isatty() and sys.stdin.isatty()):
        with target.client(timeout=ANSWER_S) as client:
            moment = look(client, sort)
        tables.console().print(draw_once(moment, view))
        return
    with contextlib.suppress(KeyboardInterrupt):
        _show(target, view)


def look(client: httpx.Client, sort: Sort) -> Moment:
    """Ask for all that is shown; raises ClickException."""
    nodes = ask(client, "GET", "nodes", params={"timeout": 1})
    channels = ask(client, "GET", "channels", params={"timeout": 1, "limit": LISTED, "sort": sort})
    connections = ask(client, "GET", "connections", params={"timeout": 1, "limit": LISTED})
    return Moment(nodes["nodes"], channels["channels"], channels["total"], connections["connections"])


class _Looking:
    """Asks again and again in a thread of its own, so that keys are heard while a server does not answer."""

    def __init__(self, target: Target, view: View) -> None:
        self.found: queue.SimpleQueue[Moment | str | NotAccepted] = queue.SimpleQueue()
        self.sort = view.sort
        self._interval_s = view.interval_s
        self._target = target
        self._again = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def sort_by(self, sort: Sort) -> None:
        """Ask anew at once, sorted by something else."""
        self.sort = sort
        self._again.set()

    def _run(self) -> None:
        while True:
            # A connection of its own each time round a failure: the next one may come to another server.
            with self._target.client(timeout=ANSWER_S) as client, contextlib.suppress(click.ClickException):
                while True:
                    try:
                        self.found.put(look(client, self.sort))
                    except NotAccepted as exc:
                        self.found.put(exc)
                        return
                    except click.ClickException as exc:
                        self.found.put(exc.message)
                        raise
                    finally:
                        self._again.wait(self._interval_s)
                        self._again.clear()


def _show(target: Target, view: View) -> None:
    console = Console(highlight=False)
    looking = _Looking(target, view)
    moment: Moment | None = None
    with _keys(), Live(console=console, screen=True, auto_refresh=False, transient=True) as live:
        while True:
            with contextlib.suppress(queue.Empty):
                while True:
                    found = looking.found.get_nowait()
                    if isinstance(found, Moment):
                        moment, view = found, replace(view, trouble="")
                    elif isinstance(found, NotAccepted):
                        raise found
                    else:
                        view = replace(view, trouble=found)
            width, height = console.size
            live.update(draw(moment, view, width, height, time.monotonic()), refresh=True)
            key = _key(LOOK_S)
            if key in ("q", "Q"):
                return
            if key in SORTS:
                view = replace(view, sort=SORTS[key])
                looking.sort_by(view.sort)


@contextlib.contextmanager
def _keys() -> Iterator[None]:
    """Have keys come one by one and unseen; put the terminal back as it was."""
    import termios  # not every system has these two, and only this command needs them
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _key(wait_s: float) -> str:
    """Return a key, empty where none came; one that ends the terminal's input means q."""
    descriptor = sys.stdin.fileno()
    if not select.select([descriptor], [], [], wait_s)[0]:
        return ""
    return os.read(descriptor, 1).decode(errors="replace") or "q"
