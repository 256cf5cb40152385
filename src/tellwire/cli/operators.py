"""The commands of operators: nodes, channels, connections, presence, disconnect, unsubscribe."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import click
import httpx

from tellwire.cli import tables
from tellwire.cli.client import Target, detail_of, server_options, shown

F = TypeVar("F", bound=Callable[..., Any])

PATIENCE_S = 15.0
"""Seconds in which the server has to answer; it waits itself for other nodes, for a while."""


def ask(client: httpx.Client, method: str, operation: str, **sent: Any) -> dict[str, Any]:
    """Ask for one of the operators' operations; raises ClickException with what the server says against it."""
    try:
        response = client.request(method, f"/v1/admin/{operation}", **sent)
    except httpx.HTTPError as exc:
        raise click.ClickException(f"no answer from {client.base_url}: {exc}") from None
    if not response.is_success:
        raise click.ClickException(detail_of(response))
    answer: dict[str, Any] = response.json()
    return answer


def _ask(target: Target, method: str, operation: str, **sent: Any) -> dict[str, Any]:
    with target.client(timeout=PATIENCE_S) as client:
        return ask(client, method, operation, **sent)


def _query(**wanted: Any) -> dict[str, Any]:
    return {name: value for name, value in wanted.items() if value is not None}


def json_option(command: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON, for programs.")(command)


def _listing_options(command: F) -> F:
    for option in (
        click.option("--node", help="Ask only this node: its name, or its id."),
        click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="Lines, at most."),
    ):
        command = option(command)
    return command


def _show(answer: dict[str, Any], as_json: bool, columns: Any, rows: list[list[object]], total: int, what: str) -> None:
    if as_json:
        click.echo(json.dumps(answer, ensure_ascii=False, indent=2))
        return
    if rows:
        tables.console().print(tables.table(columns, rows))
    else:
        click.echo(f"no {what}")
    if total > len(rows):
        click.echo(f"{total - len(rows)} more {what}; see --limit", err=True)
    warn_of_silent(answer)


def warn_of_silent(answer: dict[str, Any]) -> None:
    """Say on standard error which nodes did not answer, so that something may be missing."""
    for node in answer.get("unanswered", ()):
        name = shown(node["name"])
        click.echo(f"node {name} did not answer; it was heard of {tables.span(node['said_s'])} ago", err=True)


def names_of(client: httpx.Client) -> dict[str, str]:
    """Return what nodes are called, by their ids; nothing where the token does not show them."""
    try:
        response = client.get("/v1/admin/nodes")
    except httpx.HTTPError:
        return {}
    return {node["node"]: node["name"] for node in response.json()["nodes"]} if response.is_success else {}


@click.command(
    epilog="""\b
Examples:
  tellwire nodes
  tellwire nodes --json | jq '.nodes[].name'
"""
)
@json_option
@server_options
def nodes(as_json: bool, target: Target) -> None:
    """Show the nodes of a log, and how they do.

    IN and OUT are messages a second, over the last ten; LAGGING is how many readers are behind, LAG how far the
    farthest is, in places of the log. A node that does not answer is shown as it said that it was.
    """
    answer = _ask(target, "GET", "nodes")
    found = answer["nodes"]
    _show(answer, as_json, tables.NODES, tables.node_rows(found), len(found), "nodes")


@click.command(
    epilog="""\b
Examples:
  tellwire channels
  tellwire channels chat: --sort rate
"""
)
@click.argument("prefix", default="")
@click.option(
    "--sort",
    type=click.Choice(["readers", "rate", "lag"]),
    default="readers",
    show_default=True,
    help="What comes first: the most readers, the most messages a second, or the farthest behind.",
)
@_listing_options
@json_option
@server_options
def channels(prefix: str, sort: str, node: str | None, limit: int, as_json: bool, target: Target) -> None:
    """Show the channels that somebody reads, on any node: those whose names begin with PREFIX, or all."""
    query = _query(prefix=prefix or None, sort=sort, node=node, limit=limit)
    answer = _ask(target, "GET", "channels", params=query)
    _show(answer, as_json, tables.CHANNELS, tables.channel_rows(answer["channels"]), answer["total"], "channels")


@click.command(
    epilog="""\b
Examples:
  tellwire connections
  tellwire connections --user ann
  tellwire connections --channel chat:lobby --json
"""
)
@click.option("--user", help="Only those of a user.")
@click.option("--client", help="Only this client.")
@click.option("--channel", help="Only those that read a channel.")
@_listing_options
@json_option
@server_options
def connections(as_json: bool, target: Target, **wanted: Any) -> None:
    """Show who is connected, to any node, those that lag most first.

    LAG is in places of the log, BEHIND how long the oldest message waits that the reader has not had, at least.
    """
    with target.client(timeout=PATIENCE_S) as client:
        answer = ask(client, "GET", "connections", params=_query(**wanted))
        names = {} if as_json else names_of(client)
    rows = tables.connection_rows(answer["connections"], names)
    _show(answer, as_json, tables.CONNECTIONS, rows, answer["total"], "connections")


@click.command(
    epilog="""\b
Examples:
  tellwire presence chat:lobby
"""
)
@click.argument("channel")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="Lines, at most.")
@json_option
@server_options
def presence(channel: str, limit: int, as_json: bool, target: Target) -> None:
    """Show who is in CHANNEL, and which node holds them."""
    with target.client(timeout=PATIENCE_S) as client:
        answer = ask(client, "GET", "presence", params={"channel": channel, "limit": limit})
        names = {} if as_json else names_of(client)
    rows = tables.member_rows(answer["members"], names)
    _show(answer, as_json, tables.MEMBERS, rows, answer["clients"], "members")


def _whom(user: str | None, client: str | None) -> dict[str, str]:
    if (user is None) == (client is None):
        raise click.UsageError("say whom: --user or --client, one of them")
    return {"user": user} if user is not None else {"client": str(client)}


def _whose_options(command: F) -> F:
    for option in (click.option("--client", help="This client."), click.option("--user", help="All of a user.")):
        command = option(command)
    return command


@click.command(
    epilog="""\b
Examples:
  tellwire disconnect --user ann
  tellwire disconnect --client 5lZ0_C3Gp1wD --reason "too loud" --stay-away
"""
)
@_whose_options
@click.option("--reason", default="", help="A sentence that they are told.")
@click.option("--stay-away", is_flag=True, help="Tell them not to come back; it is no lock: take their token for that.")
@json_option
@server_options
def disconnect(
    user: str | None, client: str | None, reason: str, stay_away: bool, as_json: bool, target: Target
) -> None:
    """Close the connections of a user or a client, on all nodes."""
    body = {**_whom(user, client), "reason": reason, "reconnect": not stay_away}
    _done(_ask(target, "POST", "disconnect", json=body), as_json, "connections", "connection", "closed")


@click.command(
    epilog="""\b
Examples:
  tellwire unsubscribe chat:lobby --user ann
"""
)
@click.argument("channel")
@_whose_options
@json_option
@server_options
def unsubscribe(channel: str, user: str | None, client: str | None, as_json: bool, target: Target) -> None:
    """Take a user or a client out of CHANNEL, on all nodes: end their reading, and that they are members.

    Clients do not come back to it by themselves; whoever may read the channel can subscribe to it again.
    """
    answer = _ask(target, "POST", "unsubscribe", json={"channel": channel, **_whom(user, client)})
    _done(answer, as_json, "readings", "reading", "ended")


def _done(answer: dict[str, Any], as_json: bool, field: str, one: str, what: str) -> None:
    if as_json:
        click.echo(json.dumps(answer, ensure_ascii=False))
        return
    count = answer[field]
    click.echo(f"{count} {one if count == 1 else field} {what}")
    warn_of_silent(answer)
