"""The command ``tellwire``."""

from __future__ import annotations

import logging
import os
import sqlite3
import sys
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.text import Text

from tellwire import __version__
from tellwire.cli.client import history, pub, sub, tail
from tellwire.config import InvalidSetting, Settings, default_text, describe_type, load_settings, settings
from tellwire.errors import TellwireError

_EPILOG = """\b
Examples:
  tellwire serve                        a server on http://127.0.0.1:8000
  tellwire pub news '{"text":"hi"}'     publish a message
  tellwire sub news                     print messages as they come
  tellwire tail news                    the newest ten, then as they come
  tellwire history news --limit 100     what is kept of a channel
"""


@click.group(epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """One channel, over any wire.

    A server for real-time messages over polling, Server-Sent Events, NDJSON and WebSocket, whose readers never lose
    their place; and the commands to try it with.
    """


class _SettingsCommand(click.Command):
    """A command with a flag for every setting."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for setting in settings():
            if setting.type is bool:
                on = f"{setting.flag}/--no-{setting.flag.removeprefix('--')}"
                option = click.Option([on], default=None, help=setting.doc)
            else:
                takes = describe_type(setting.type).removeprefix("a ").removeprefix("an ")
                shown = default_text(setting)
                default = f"  [default: {shown}]" if shown else ""
                option = click.Option(
                    [setting.flag],
                    metavar=_metavar(takes),
                    multiple=isinstance(setting.default, tuple),
                    help=setting.doc + default,
                )
            self.params.append(option)


def _metavar(takes: str) -> str:
    if takes.startswith("one of "):
        return takes.removeprefix("one of ").replace(", ", "|")
    return "NUMBER" if "number" in takes else "TEXT"


@main.command(
    cls=_SettingsCommand,
    epilog="""\b
Every flag can also be given as an environment variable (--poll-wait-max-s is TELLWIRE_POLL_WAIT_MAX_S) or in a TOML
file ([limits] poll_wait_max_s = 30). A flag wins over the environment, the environment over the file.
\b
Examples:
  tellwire serve --broker sqlite:///tellwire.db
  tellwire serve --namespace chat:history_messages=100 --namespace ticker:policy=latest
  tellwire serve --tls-cert cert.pem --tls-key key.pem
""",
)
@click.option("--config", type=click.Path(path_type=Path), help="TOML file with settings.  [env: TELLWIRE_CONFIG]")
@click.option(
    "--namespace",
    multiple=True,
    metavar="NAME:KEY=VALUE",
    help="Set something for the channels NAME:...; may be repeated.",
)
def serve(config: Path | None, **flags: Any) -> None:
    """Start a server.

    Without settings it listens on http://127.0.0.1:8000, open to everything on this machine and to nothing else.
    """
    # Loading the server takes a moment that the other commands need not wait for.
    from tellwire.server import run

    try:
        wanted = load_settings(flags, os.environ, config)
        _set_up_logging(wanted)
        run(wanted, lambda url: _greet(wanted, url))
    except InvalidSetting as exc:
        raise click.ClickException(str(exc)) from None
    except (TellwireError, ValueError, sqlite3.Error) as exc:
        raise click.ClickException(f"the server could not start: {exc}") from None


def _greet(wanted: Settings, url: str) -> None:
    """Say where the server listens, who may come in, and what to try."""
    server = wanted.server
    if server.open and not server.is_on_loopback:
        who = "open: everybody who can reach this address may publish and subscribe"
    else:
        who = "open, on loopback only: programs on this machine may publish and subscribe, nobody else"
    insecure = "-k " if server.tls_cert else ""
    console = Console(highlight=False, soft_wrap=True)
    console.print(Text.assemble(("Tellwire ", "bold"), f"{__version__} listens on ", (url, "bold cyan")))
    console.print(f"  {who}")
    console.print(f"  messages are kept in {server.broker}")
    console.print("Try, each in a terminal of its own:")
    for line in (
        f"curl {insecure}-N '{url}/v1/events?channel=news'",
        f"""curl {insecure}-d '{{"channel":"news","data":"hello"}}' {url}/v1/messages""",
        f"{url}/  in a browser",
    ):
        console.print(Text("  " + line, "green"))


class _JsonFormatter(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(entry).decode()


def _set_up_logging(wanted: Settings) -> None:
    handler = logging.StreamHandler(sys.stderr)
    if wanted.server.log_format == "json":
        handler.setFormatter(_JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=wanted.server.log_level.upper(), handlers=[handler], force=True)


@main.command()
def version() -> None:
    """Print the version."""
    click.echo(f"tellwire {__version__}")


for _command in (pub, sub, tail, history):
    main.add_command(_command)
