"""The rest of the field: servers of WebSockets in Python and Node, and hubs that are there where they were installed.

Each is set up as its own documentation advises for speed. Those in Python come from PyPI and those in Node from npm, by
`make bench` itself; Centrifugo, Mercure and Pushpin are measured where their program is found on the path.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Mapping

from contenders import PAYLOAD_BYTES, PEERS, SOCKETIO_TALKS, Contender, Places, Talk, pip_missing, python_peer
from npm import npm_install, npm_missing

_BY_PATH: Mapping[str, Talk] = {
    "fan": {"sub_path": "/sub", "pub_path": "/pub", "message": "{data}"},
    "rooms": {"sub_path": "/rooms/{room}", "message": "{data}"},
}
"""Peers in which a path is a room."""


def _node_peer(script: str) -> Callable[[Places, int], list[str]]:
    def command(places: Places, port: int) -> list[str]:
        place = places.cache / "node"
        npm_install(place)
        # Node looks for packages from where the script lies.
        copy = place / script
        copy.write_text((PEERS / script).read_text())
        return [str(shutil.which("node")), str(copy), str(port)]

    return command


def _program_missing(program: str, where: str) -> Callable[[Places], str | None]:
    def missing(_: Places) -> str | None:
        return None if shutil.which(program) else f"there is no {program} on the path; get it from {where}"

    return missing


WEBSOCKETS = Contender(
    "websockets",
    "uvloop, its own broadcast(), no compression, no keep-alive pings",
    python_peer("websockets_rooms.py"),
    _BY_PATH,
    pip_missing("websockets"),
)

PICOWS = Contender(
    "picows",
    "uvloop, a loop of send over the members, which writes to the socket at once",
    python_peer("picows_rooms.py"),
    _BY_PATH,
    pip_missing("picows"),
)

AIOHTTP = Contender(
    "aiohttp",
    "uvloop, its C parsers, no compression, no access log; a loop of send_str over the members",
    python_peer("aiohttp_rooms.py"),
    _BY_PATH,
    pip_missing("aiohttp"),
)

CHANNELS = Contender(
    "Django Channels",
    "uvicorn, uvloop, httptools, ws=websockets-sansio, no compression; groups over InMemoryChannelLayer with a "
    "capacity that drops nothing (channels-redis, for more than one process, is slower)",
    python_peer("channels_rooms.py"),
    _BY_PATH,
    pip_missing("channels"),
)

WS = Contender(
    "ws (Node)",
    "no compression, no client tracking; a loop of send over the members, without making text of bytes",
    _node_peer("ws_rooms.mjs"),
    _BY_PATH,
    lambda _: npm_missing(),
)


SOCKETIO_NODE = Contender(
    "Socket.IO (Node)",
    "WebSocket transport only, no compression, each connection's request let go of; what it acknowledges is not kept",
    _node_peer("socketio_rooms.mjs"),
    SOCKETIO_TALKS,
    lambda _: npm_missing(),
)


def _centrifugo_command(_: Places, port: int) -> list[str]:
    # https://centrifugal.dev/docs/server/configuration, version 6: nested names joined by underscores.
    settings = {
        "CENTRIFUGO_HTTP_SERVER_ADDRESS": "127.0.0.1",
        "CENTRIFUGO_HTTP_SERVER_PORT": str(port),
        "CENTRIFUGO_CLIENT_INSECURE": "true",
        "CENTRIFUGO_LOG_LEVEL": "error",
        "GOMAXPROCS": "1",
    }
    return ["env", *(f"{name}={value}" for name, value in settings.items()), "centrifugo"]


_CENTRIFUGO_PUBLISHER: Talk = {
    "pub_path": "/connection/websocket",
    "pub_hello1": '{"id":1,"connect":{}}',
    "pub_answer1": '"connect"',
    "pub_lines": 1,
}


def _centrifugo(channel: str) -> dict[str, object]:
    return {
        "sub_path": "/connection/websocket",
        "sub_hello1": '{"id":1,"connect":{}}',
        "sub_answer1": '"connect"',
        "sub_hello2": f'{{"id":2,"subscribe":{{"channel":"{channel}"}}}}',
        "sub_answer2": '"subscribe"',
        # Replies and pushes may share a frame, one a line; an empty one is a ping, which wants its like back.
        "sub_lines": 1,
        # The number must neither be one of those above nor begin with a zero.
        "message": f'{{"id":9{{ref}},"publish":{{"channel":"{channel}","data":"{{data}}"}}}}',
        "data_bytes": PAYLOAD_BYTES - 2,
    }


CENTRIFUGO = Contender(
    "Centrifugo",
    "memory engine, JSON protocol, GOMAXPROCS=1, log level error; insecure mode, so that nothing is checked",
    _centrifugo_command,
    {
        "fan": {**_centrifugo("bench"), **_CENTRIFUGO_PUBLISHER},
        "rooms": _centrifugo("room{room}"),
        "acks": {
            **_CENTRIFUGO_PUBLISHER,
            "message": _centrifugo("bench")["message"],
            "data_bytes": PAYLOAD_BYTES - 2,
        },
    },
    _program_missing("centrifugo", "https://centrifugal.dev/docs/getting-started/installation"),
)


_MERCURE_KEY = "a-key-for-a-server-that-lives-for-seconds"
_MERCURE_HUB = "https://hub.example/.well-known/mercure"
_MERCURE_ISSUER = "https://hub.example"


def _mercure_token() -> str:
    """Return an access token that may publish everything (RFC 9068, with authorization details of RFC 9396)."""
    now = int(time.time())
    header = {"alg": "HS256", "typ": "at+jwt"}
    claims = {
        "iss": _MERCURE_ISSUER,
        "aud": _MERCURE_HUB,
        "sub": "bench",
        "client_id": "bench",
        "jti": secrets.token_hex(8),
        "iat": now,
        "exp": now + 86_400,
        "authorization_details": [
            {
                "type": "https://mercure.rocks/authorization-detail",
                "actions": ["publish"],
                "topics": [{"match": "*"}],
            }
        ],
    }
    parts = [json.dumps(part, separators=(",", ":")).encode() for part in (header, claims)]
    text = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    signature = hmac.digest(_MERCURE_KEY.encode(), text, hashlib.sha256)
    return b".".join([text, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


def _post(path: str, head: str, body: str) -> str:
    """Return a whole request as a template; {data} in its body has the bytes of a payload."""
    length = len(body.replace("{data}", "x" * PAYLOAD_BYTES))
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{head}Content-Length: {length}\r\n\r\n{body}"


def _mercure_command(places: Places, port: int) -> list[str]:
    # https://mercure.rocks/docs/deployment/configuration, version 1; `transport local` is the one with the least to do.
    place = places.cache / "mercure"
    place.mkdir(parents=True, exist_ok=True)
    (place / "Caddyfile").write_text(
        f"""{{
    admin off
    auto_https off
    persist_config off
    log default {{
        level ERROR
    }}
}}
http://:{port} {{
    bind 127.0.0.1
    mercure {{
        transport local
        issuer {_MERCURE_ISSUER} {{
            publisher {{
                jwt {_MERCURE_KEY}
            }}
        }}
        resource_identifier {_MERCURE_HUB}
        anonymous
        heartbeat 0s
        write_timeout 0s
    }}
}}
"""
    )
    return ["env", "GOMAXPROCS=1", "mercure", "run", "--config", str(place / "Caddyfile"), "--adapter", "caddyfile"]


MERCURE = Contender(
    "Mercure, SSE",
    "local transport, no history, anonymous subscribers, no heartbeat, GOMAXPROCS=1, log level error",
    _mercure_command,
    {
        "fan": {
            "sub_wire": "sse",
            "sub_path": "/.well-known/mercure?match=bench",
            "pub_wire": "raw",
            "pub_path": "/",
            "message": _post(
                "/.well-known/mercure",
                f"Authorization: Bearer {_mercure_token()}\r\nContent-Type: application/x-www-form-urlencoded\r\n",
                "topic=bench&data={data}",
            ),
        }
    },
    _program_missing("mercure", "https://mercure.rocks/docs/getting-started/installation"),
)

PUSHPIN = Contender(
    "Pushpin, SSE",
    "Condure with its two workers, one route to a backend that answers Grip-Hold: stream; published over ZeroMQ, no "
    "message_rate, message_hwm 1,000,000, client_buffer_size 64 KiB, log level 1",
    lambda places, port: [sys.executable, str(PEERS / "pushpin.py"), str(port), str(places.cache / "pushpin")],
    {
        "fan": {
            "sub_wire": "sse",
            "sub_path": "/bench",
            # More at once, and it cancels some streams that it has only just accepted.
            "parallel": 4,
            "pub_wire": "zmtp",
            "pub_path": "/",
            "pub_port": "+1",
            "message": 'J{"channel":"bench","formats":{"http-stream":{"content":"data: {data}\\n\\n"}}}',
        }
    },
    _program_missing("pushpin", "https://pushpin.org/docs/install/"),
    ports=3,
)

SOCKETS = (WEBSOCKETS, PICOWS, AIOHTTP, CHANNELS, WS, SOCKETIO_NODE, CENTRIFUGO)
"""Who speaks WebSocket, and has rooms."""

STREAMS = (MERCURE, PUSHPIN)
"""Who speaks SSE."""
