"""The command ``tellwire``."""

from __future__ import annotations

import click

from tellwire import __version__
from tellwire.cli.advise import advise_command
from tellwire.cli.client import history, pub, sub, tail
from tellwire.cli.compare import compare
from tellwire.cli.drain import drain
from tellwire.cli.operators import channels, connections, disconnect, nodes, presence, unsubscribe
from tellwire.cli.start import check_config, serve
from tellwire.cli.token import token
from tellwire.cli.top import top

_EPILOG = """\b
Examples:
  tellwire serve                        a server on http://127.0.0.1:8000
  tellwire pub news '{"text":"hi"}'     publish a message
  tellwire sub news                     print messages as they come
  tellwire tail news                    the newest ten, then as they come
  tellwire history news --limit 100     what is kept of a channel
  tellwire top                          what goes on, live; for operators
  tellwire compare                      what each transport costs, measured here
  tellwire advise                       which transport to take, from six questions
"""


@click.group(epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """One channel, over any wire.

    A server for real-time messages over polling, Server-Sent Events, NDJSON and WebSocket, whose readers never lose
    their place; and the commands to try it with.
    """


@main.command()
def version() -> None:
    """Print the version."""
    click.echo(f"tellwire {__version__}")


for _command in (
    serve, pub, sub, tail, history, token, check_config, compare, advise_command,
    nodes, channels, connections, presence, disconnect, unsubscribe, drain, top,
):  # fmt: skip
    main.add_command(_command)
