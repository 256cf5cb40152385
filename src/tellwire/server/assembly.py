"""What the settings describe, put together: a node, and what serves it over gRPC."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from tellwire.auth import Access, Identity
from tellwire.brokers import make_broker
from tellwire.config import Settings
from tellwire.counters import Counters
from tellwire.hooks import Hooks
from tellwire.hub import Tracer
from tellwire.ice import IceServers
from tellwire.names import Namespaces
from tellwire.node import OPEN, OPEN_TO_ALL, Entrance, Node, Title, own_title
from tellwire.presence import make_presence

if TYPE_CHECKING:
    from tellwire.transports.grpc.server import GrpcServer


def make_node(
    settings: Settings, hooks: Hooks | None = None, *, embedded: bool = False, title: Title | None = None
) -> Node:
    """Make the node that the settings describe; raises ValueError or TellwireError where they cannot be met.

    With `hooks` the application is asked; else the backend is that the settings name, if they do. A node that is
    `embedded` in an application does not know who can reach it, so it is closed unless the settings say `open`.
    """
    namespaces = Namespaces(settings.namespaces)
    server, limits, auth = settings.server, settings.limits, settings.auth
    counters = Counters()
    if hooks is None:
        if settings.hooks.urls():
            from tellwire.webhooks import WebHooks

            hooks = WebHooks(settings.hooks, counters=counters)
        else:
            hooks = Hooks()
    hooks.counters = hooks.counters or counters
    is_open = server.open if embedded else not auth.has_key and hooks.connect is None
    verifier = None
    everyone: Identity | None = None
    if auth.has_key:
        from tellwire.auth import Verifier

        verifier = Verifier(auth)
        everyone = verifier.anonymous
    elif is_open:
        everyone = OPEN_TO_ALL if embedded or not server.is_on_loopback else OPEN
    elif hooks.connect is None and hooks.authorize is not None:
        everyone = Identity()  # nobody in particular, of whom the application decides each time
    node = Node(
        make_broker(server.broker, namespaces, dedupe_window_s=limits.dedupe_window_s),
        namespaces=namespaces,
        limits=limits,
        access=Access(server.origins, loopback_only=is_open and server.is_on_loopback and not server.open),
        entrance=Entrance(hooks, verifier, everyone, auth.token_cookie),
        hooks=hooks,
        presence=make_presence(server.broker),
        counters=counters,
        trusted_proxies=tuple(ipaddress.ip_network(text, strict=False) for text in server.trusted_proxies),
        revocation_s=auth.revocation_s,
        title=title or own_title(server.node_name),
        ice=IceServers(settings.ice),
    )
    if server.traces:
        node.hub.tracer = _make_tracer()
    return node


def _make_tracer() -> Tracer:
    try:
        from tellwire.telemetry import MessageTracer
    except ModuleNotFoundError as exc:
        raise ValueError(f"traces needs OpenTelemetry ({exc.name} is missing): install tellwire[otel]") from None
    return MessageTracer()


def make_grpc(settings: Settings, node: Node, *, shares_port: bool) -> GrpcServer | None:
    """Return what serves the node over gRPC, where the settings want that; only then are its libraries loaded."""
    server = settings.server
    if server.grpc_port is None:
        return None
    try:
        from tellwire.transports.grpc.server import GrpcServer, Keys
    except ModuleNotFoundError as exc:
        raise ValueError(f"grpc_port needs gRPC ({exc.name} is missing): install tellwire[grpc]") from None
    keys = None
    if server.tls_cert is not None and server.tls_key is not None:
        keys = Keys(server.tls_cert, server.tls_key, server.grpc_client_ca)
    return GrpcServer(node, server.host, server.grpc_port, keys, shares_port=shares_port)
