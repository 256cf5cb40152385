"""The command ``tellwire compare``."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.progress_bar import ProgressBar
from rich.table import Column
from rich.text import Text

from tellwire.advise import last_run
from tellwire.cli.certificates import certificate_options
from tellwire.limits import raise_descriptor_limit

if TYPE_CHECKING:
    from tellwire.compare.comparison import Comparison
    from tellwire.compare.options import Options

T = TypeVar("T")


def _numbers(_: click.Context, parameter: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise click.BadParameter(f"{text!a} is not whole numbers with commas between them", param=parameter) from None


def _parsed(name: str) -> Callable[[click.Context, click.Parameter, str | None], float | None]:
    def parse(_: click.Context, parameter: click.Parameter, text: str | None) -> float | None:
        from tellwire.compare import path

        if text is None:
            return None
        try:
            value: float = getattr(path, name)(text)
        except ValueError as exc:
            raise click.BadParameter(str(exc), param=parameter) from None
        return value

    return parse


@click.command(
    epilog="""\b
Examples:
  tellwire compare                                       a server of its own, over loopback
  tellwire compare https://push.example.com              the one that readers use, from here
  tellwire compare --html report.html                    with plots
  tellwire compare --delay 50ms --loss 1%                as over a poor mobile network
  tellwire compare --no-websocket --buffering-proxy      as behind a restrictive proxy
  tellwire compare --transports sse,websocket --readers 1,100,1000
"""
)
@click.argument("url", required=False)
@click.option(
    "--token",
    envvar="TELLWIRE_TOKEN",
    show_envvar=True,
    help="Token that says who you are; better given in the environment, where other users do not see it.",
)
@certificate_options
@click.option("--transports", metavar="KEY,...", help="Which to measure.  [default: all that the server may have]")
@click.option("--rate", type=float, metavar="NUMBER", help="Messages published in a second.  [default: 50]")
@click.option("--seconds", type=float, metavar="NUMBER", help="For how long, each time.  [default: 2]")
@click.option(
    "--readers", metavar="N,...", callback=_numbers, help="With how many readers, in turn.  [default: 1,10,50]"
)
@click.option(
    "--payload",
    "payload_bytes",
    metavar="BYTES,...",
    callback=_numbers,
    help="Sizes whose overhead is measured; latencies are with the second.  [default: 16,128,1024,8192]",
)
@click.option("--idle", type=int, metavar="N", help="Connections whose memory is measured; 0 for none.  [default: 200]")
@click.option(
    "--poll",
    "poll_s",
    metavar="TIME",
    callback=_parsed("parse_duration"),
    help="Interval of short polling.  [default: 1s]",
)
@click.option("--channel", help="Where to publish; sizes have channels of their own, CHANNEL-16 ….  [default: random]")
@click.option("--pid", type=int, metavar="N", help="The server's process, on this machine, for its CPU and memory.")
@click.option("--grpc", metavar="URL", help="Where the server has gRPC, such as grpc://127.0.0.1:50051.")
@click.option("--delay", metavar="TIME", callback=_parsed("parse_duration"), help="Add this each way, such as 50ms.")
@click.option("--loss", metavar="SHARE", callback=_parsed("parse_share"), help="Lose so many segments, such as 1%.")
@click.option(
    "--bandwidth",
    metavar="RATE",
    callback=_parsed("parse_bandwidth"),
    help="Let no more through, each way of each connection, such as 2mbit.",
)
@click.option("--no-websocket", is_flag=True, help="Answer upgrades with 403, as some proxies do.")
@click.option("--buffering-proxy", is_flag=True, help="Pass no answer on before it is whole, as some proxies do.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON, and no table.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write a page with plots to this file.")
def compare(
    url: str | None,
    token: str | None,
    tls: ssl.SSLContext,
    as_json: bool,
    html: Path | None,
    pid: int | None,
    grpc: str | None,
    **flags: Any,
) -> None:
    """Measure every transport between here and a server, or one that is started for it.

    Time to connect, to the first message, and to resume after a cut; latencies; bytes on the wire; the server's CPU and
    memory. Ctrl-C ends it with what was measured so far. A complete run over the way as it is, of all transports, is
    kept for `tellwire advise`.
    """
    from tellwire.compare.comparison import Comparison
    from tellwire.compare.page import write_page
    from tellwire.compare.server_process import Gauge
    from tellwire.compare.table import print_result

    if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
        raise click.UsageError("the token holds characters that none has; it is three parts joined by dots")
    if url is None:
        given = click.get_current_context().get_parameter_source
        # What the environment says is for all commands, and does no harm here.
        for name in ("token", "ca_file", "insecure", "pid", "grpc"):
            if given(name) is ParameterSource.COMMANDLINE:
                flag = f"--{name.replace('_', '-')}"
                raise click.UsageError(f"{flag} goes with the URL of a server; the one that is started here needs none")
    if pid is not None and Gauge(pid).unknown is not None:
        raise click.UsageError(f"--pid: there is no process {pid} on this machine whose CPU and memory can be read")
    if html is not None and not (html.absolute().parent.is_dir() and os.access(html.absolute().parent, os.W_OK)):
        raise click.UsageError(f"--html: {html.absolute().parent} is no directory that can be written to")
    console = Console(stderr=True)
    with Progress(
        _Spinner(finished_text=" "),
        TextColumn("{task.description}", table_column=Column(no_wrap=True)),
        _Bar(bar_width=20),
        TextColumn("{task.fields[step]}", table_column=Column(no_wrap=True, min_width=_STEP_COLUMNS)),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    ) as progress:
        try:
            options = _options(flags)
            comparison = Comparison(
                options, url=url, token=token, tls=tls, pid=pid, grpc=grpc, progress=_shown(progress, options)
            )
        except ValueError as exc:
            raise click.UsageError(str(exc)) from None
        too_few = raise_descriptor_limit(2 * (max(options.readers) + options.idle) + 100)
        if too_few is not None:
            console.print(f"warning: {too_few}")
        was_interrupted = _run(comparison)
    found = comparison.found
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        print_result(found, Console())
    if html is not None:
        html.write_text(write_page(found), encoding="utf-8")
        click.echo(f"the plots are in {html}", err=True)
    if is_worth_keeping(found, options):
        keep(found)
    if was_interrupted:
        sys.exit(130)
    if found["ended"] != "complete":
        if as_json or not sys.stdout.isatty():  # else the table has just said so
            click.echo(f"Error: {found['says']}", err=True)
        sys.exit(1)


_STEP_COLUMNS = 16
"""As wide as the longest step mostly is, so that nothing moves from one to the next."""


class _Spinner(SpinnerColumn):
    """Turns beside what is being done only."""

    def render(self, task: Task) -> Any:
        return super().render(task) if task.started else Text(" ")


class _Bar(BarColumn):
    """Stands still where nothing has begun."""

    def render(self, task: Task) -> ProgressBar:
        bar = super().render(task)
        bar.pulse = False
        return bar


def _options(flags: dict[str, Any]) -> Options:
    from tellwire.compare.options import Options
    from tellwire.compare.path import Path as Way

    way = Way(
        delay_s=flags.pop("delay") or 0.0,
        loss=flags.pop("loss") or 0.0,
        bandwidth_bits_per_s=flags.pop("bandwidth"),
        no_websocket=flags.pop("no_websocket"),
        buffering_proxy=flags.pop("buffering_proxy"),
    )
    given = {name: value for name, value in flags.items() if value is not None}
    if "transports" in given:
        given["transports"] = tuple(part.strip() for part in given["transports"].split(",") if part.strip())
    return Options(path=way, **given)


def _shown(progress: Progress, options: Options) -> Callable[[str, str, int, int], None]:
    """Return what draws a bar for each transport."""
    from tellwire.compare.wires import BY_KEY

    bars: dict[str, TaskID] = {
        key: progress.add_task(BY_KEY[key].title, step="[dim]waits", total=1, start=False) for key in options.transports
    }
    whole = progress.add_task("[bold]All", step="", total=1)
    totals: dict[str, int] = {}
    dones: dict[str, int] = {}

    def show(key: str, step: str, done: int, total: int) -> None:
        if key not in bars:
            bars[key] = progress.add_task("A client left alone", step="", total=total)
        if done == 0:
            progress.start_task(bars[key])
        said = step if done < total else f"[{'green' if step == 'measured' else 'yellow'}]{step}"
        progress.update(bars[key], completed=done, total=total, step=said)
        if done == 0:
            totals[key] = total
        dones[key] = done
        # The first transport is not done with at once, and says nothing of the rest.
        share = sum(dones[each] / totals[each] for each in dones) / (len(options.transports) + 1)
        passed_s = progress.tasks[whole].elapsed or 0.0
        left = f"about {max(10, round(passed_s / share * (1 - share), -1)):.0f} s left" if share > 0.1 else ""
        progress.update(whole, completed=share, step=left)

    return show


def _run(comparison: Comparison) -> bool:
    """Run it; tell whether it was interrupted."""
    # gRPC would write into the bars that servers are started while it runs, which it is not asked to survive.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    try:
        import uvloop
    except ImportError:
        factory = None
    else:
        factory = uvloop.new_event_loop
    # Ended by a supervisor or by `timeout`, it stops its server too, and says what it has.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(comparison.run())
    except KeyboardInterrupt:
        return True
    return False


def is_worth_keeping(found: dict[str, Any], options: Options) -> bool:
    """Tell whether the adviser may go by a run: a whole one of every transport, over the way as it is."""
    from tellwire.compare.wires import BY_KEY

    return found["ended"] == "complete" and options.path.is_plain and set(options.transports) == set(BY_KEY)


def keep(found: dict[str, Any]) -> None:
    """Keep a run where the adviser looks; where that cannot be written, say so."""
    path = last_run()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found))
    except OSError as exc:
        click.echo(f"tellwire advise will not know of this run: {path} cannot be written ({exc.strerror})", err=True)
