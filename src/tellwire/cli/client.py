"""The commands that talk to a server: pub, sub, tail, history."""

from __future__ import annotations

import functools
import json
import os
import re
import secrets
import ssl
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

import click
import httpx
import msgspec

from tellwire.cli.certificates import Client, certificate_options
from tellwire.cli.follow import Notice, backoff_s, follow

F = TypeVar("F", bound=Callable[..., Any])

PAGE = 500
"""Messages asked for at a time by `history`."""

_UNSHOWABLE = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Control characters but tab, what some programs take for line ends, and what is no character."""

TRIES = 8
"""How often a publish is tried before `pub` gives up: two minutes with the backoff between them."""


class Target(NamedTuple):
    """Which server is talked to, and how."""

    url: str
    token: str | None
    tls: ssl.SSLContext

    def client(self, **options: Any) -> httpx.Client:
        """Make an HTTP client for it; its requests raise NotAccepted where TLS cannot work."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return Client(base_url=self.url, headers=headers, verify=self.tls, **options)


class _Url(click.ParamType[str]):
    name = "url"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Read the address of a server; ws and wss are http and https."""
        from tellwire.compare.site import address_of

        try:
            return address_of(value).geturl()
        except ValueError as exc:
            self.fail(str(exc), param, ctx)


def server_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say which server is meant; the command gets them as `target`."""

    @click.option(
        "--url",
        envvar="TELLWIRE_URL",
        type=_Url(),
        default="http://127.0.0.1:8000",
        show_default=True,
        show_envvar=True,
        help="Where the server is.",
    )
    @click.option(
        "--token",
        envvar="TELLWIRE_TOKEN",
        show_envvar=True,
        help="Token that says who you are; better given in the environment, where other users do not see it.",
    )
    @certificate_options
    @functools.wraps(command)
    def with_target(*args: Any, url: str, token: str | None, tls: ssl.SSLContext, **kwargs: Any) -> None:
        if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
            raise click.UsageError("the token holds characters that none has; it is three parts joined by dots")
        command(*args, target=Target(url, token, tls), **kwargs)

    return with_target


def _output_option(command: F) -> F:
    return click.option("--envelope", is_flag=True, help="Print whole messages, not only their data.")(command)


@click.command(
    epilog="""\b
Examples:
  tellwire pub news hello                       the text "hello"
  tellwire pub news '{"text": "hello"}'         an object, since it is JSON
  tellwire pub --text news 42                   the text "42", not the number
  journalctl -f | tellwire pub --text logs -    every line, as it comes
"""
)
@click.argument("channel")
@click.argument("data")
@click.option("--json", "kind", flag_value="json", help="DATA is JSON; anything else is an error.")
@click.option("--text", "kind", flag_value="text", help="DATA is text, also where it looks like JSON.")
@click.option("--id", "id_", help="Name of the message: publishing it again within five minutes does nothing.")
@click.option("--event", default="message", show_default=True, help="Name of the event.")
@click.option("--key", help="What the message is about; readers with the policy latest get the newest of each key.")
@click.option("--ephemeral", is_flag=True, help="Hand it to who is connected now, and do not keep it.")
@server_options
def pub(channel: str, data: str, kind: str | None, id_: str | None, target: Target, **fields: Any) -> None:
    """Publish DATA to CHANNEL; with - every line of standard input.

    Prints the position that each message got. A publish is retried under its id until the server has answered, so it is
    there once, however often the connection broke.
    """
    lines: Iterable[str] = _standard_input() if data == "-" else (data,)
    if id_ is not None and data == "-":
        raise click.UsageError("--id names one message; it does not go with -")
    options = {name: value for name, value in fields.items() if value}
    with target.client(timeout=20) as client:
        for line in lines:
            body = {"channel": channel, "data": _data(line, kind), "id": id_ or secrets.token_urlsafe(12), **options}
            answer = _publish(client, body)
            click.echo(answer["position"] if answer["position"] is not None else "-")
            if answer["duplicate"]:
                click.echo("a message with this id was there already", err=True)


def _standard_input() -> Iterator[str]:
    """Yield lines as they come, without their ends."""
    for line in sys.stdin.buffer:
        yield line.rstrip(b"\r\n").decode(errors="surrogateescape")


def _data(text: str, kind: str | None) -> msgspec.Raw:
    """Return what is published as JSON text: JSON goes out as it was typed, everything else as a string."""
    # What is not UTF-8 comes as lone surrogates, from arguments as well as from standard input.
    text = text.encode(errors="surrogateescape").decode(errors="replace")
    if kind != "text":
        try:
            msgspec.json.decode(text)
        except msgspec.DecodeError as exc:
            if kind == "json":
                raise click.ClickException(
                    f"this is not JSON: {exc}; without --json it would be published as text"
                ) from None
        else:
            return msgspec.Raw(text.encode())
    return msgspec.Raw(msgspec.json.encode(text))


def _publish(client: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
    for attempt in range(TRIES):
        try:
            response = client.post(
                "/v1/messages", content=msgspec.json.encode(body), headers={"Content-Type": "application/json"}
            )
        except httpx.HTTPError as exc:
            detail = f"no answer from {client.base_url}: {exc}"
        else:
            if response.is_success:
                answer: dict[str, Any] = response.json()
                return answer
            detail = detail_of(response)
            if response.status_code < 500 and response.status_code != 429:
                raise click.ClickException(detail)
        if attempt < TRIES - 1:
            wait_s = backoff_s(attempt)
            click.echo(f"{detail}; trying again in {wait_s:.0f} s", err=True)
            time.sleep(wait_s)
    raise click.ClickException(f"{detail}; given up after {TRIES} tries")


def detail_of(response: httpx.Response) -> str:
    try:
        return str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return f"the server answered {response.status_code} {response.reason_phrase}"


@click.command(
    epilog="""\b
Examples:
  tellwire sub news                        from now on
  tellwire sub news chat:room --envelope   two channels, whole messages
  tellwire sub news --since earliest       everything that is kept, then on
  tellwire sub news --since k3f9q2ab.1042  from where an earlier reading stopped
"""
)
@click.argument("channels", metavar="CHANNEL...", nargs=-1, required=True)
@click.option("--since", help="Where to begin: a cursor, a sequence number, now or earliest.  [default: now]")
@click.option("--last", type=click.IntRange(min=0), help="Begin with the newest N messages.")
@_output_option
@server_options
def sub(channels: tuple[str, ...], since: str | None, last: int | None, envelope: bool, target: Target) -> None:
    """Print the messages of channels as they come, one per line.

    After a drop it goes on from its cursor: nothing is missing and nothing comes twice. What may be missing all the
    same (trimmed history, another log) is said on standard error, and so are drops.
    """
    if since is not None and last is not None:
        raise click.UsageError("--since and --last exclude each other: give the one or the other")
    _print_stream(channels, since, last, envelope, target)


@click.command(
    epilog="""\b
Examples:
  tellwire tail news
  tellwire tail -n 100 logs | grep error
"""
)
@click.argument("channels", metavar="CHANNEL...", nargs=-1, required=True)
@click.option("-n", "--last", type=click.IntRange(min=0), default=10, show_default=True, help="Messages to begin with.")
@_output_option
@server_options
def tail(channels: tuple[str, ...], last: int, envelope: bool, target: Target) -> None:
    """Print the newest messages of channels, then more as they come."""
    _print_stream(channels, None, last, envelope, target)


def _print_stream(
    channels: tuple[str, ...], since: str | None, last: int | None, envelope: bool, target: Target
) -> None:
    try:
        for item in follow(target.client, channels, since=since, last=last):
            if isinstance(item, Notice):
                click.echo(item.text, err=True)
                if item.fatal:
                    sys.exit(1)
            else:
                _print(item, envelope)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        _end_quietly()


def _print(message: dict[str, Any], envelope: bool) -> None:
    what = message if envelope else message["data"]
    click.echo(shown(what))


def shown(value: object) -> str:
    """Return a value as one line that does nothing to a terminal: a text as it is, everything else as JSON.

    A text with line ends or control characters is shown as JSON too, with those escaped.
    """
    if isinstance(value, str) and _UNSHOWABLE.search(value) is None:
        return value
    text = json.dumps(value, ensure_ascii=False)
    return _UNSHOWABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _end_quietly() -> None:
    """End as programs do whose reader has gone; Python would else complain when it flushes standard output."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(141)


@click.command(
    epilog="""\b
Examples:
  tellwire history news
  tellwire history news --limit 5 --envelope
"""
)
@click.argument("channels", metavar="CHANNEL...", nargs=-1, required=True)
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="Messages to print, at most.")
@click.option("--before", help="Only what is older than this position.")
@_output_option
@server_options
def history(channels: tuple[str, ...], limit: int, before: str | None, envelope: bool, target: Target) -> None:
    """Print the newest messages that are kept of channels, oldest first."""
    try:
        with target.client(timeout=20) as client:
            for message in reversed(list(_pages(client, channels, before or "now", limit))):
                _print(message, envelope)
    except httpx.HTTPError as exc:
        raise click.ClickException(f"no answer from {target.url}: {exc}") from None
    except BrokenPipeError:
        _end_quietly()


def _pages(client: httpx.Client, channels: tuple[str, ...], before: str, limit: int) -> Iterator[dict[str, Any]]:
    """Page backwards; newest first."""
    while limit > 0:
        size = min(limit, PAGE)
        response = client.get("/v1/messages", params={"channel": channels, "before": before, "limit": size})
        if not response.is_success:
            raise click.ClickException(detail_of(response))
        page = response.json()
        if page["gap"] is not None:
            click.echo(f"the position {before} is of another log; this is the newest of the present one", err=True)
        yield from reversed(page["messages"])
        if len(page["messages"]) < size:
            return
        limit -= size
        before = f"{page['cursor'].partition('.')[0]}.{page['messages'][0]['seq']}"
