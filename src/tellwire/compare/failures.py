"""Why a transport, or everything, could not be measured."""

from __future__ import annotations

from typing import Literal

import msgspec

Status = Literal["measured", "absent", "blocked", "buffered", "refused", "broken", "unmeasured"]
"""What became of a transport; ``docs/compare.md`` says what each means."""

_REFUSALS = frozenset({"unauthorized", "expired", "revoked", "forbidden", "forbidden_origin"})
"""Codes (spec, section 12.1) that stand for credentials that do not suffice."""


class Unmeasured(Exception):
    """A figure that there is not: ``status`` says what became of the transport, the text is a sentence for people."""

    def __init__(self, status: Status, says: str) -> None:
        super().__init__(says)
        self.status: Status = status
        self.says = says


class _Problem(msgspec.Struct):
    code: str = ""
    detail: str = ""
    title: str = ""


def answered(status: int, content_type: str, body: bytes) -> Unmeasured:
    """Return what an answer stands for that is not the one hoped for.

    Our server says with a problem (RFC 9457) what is wrong. Anything else was said by something on the way, but a path
    that is not found: that is a server which has no such transport.
    """
    problem = _Problem()
    if content_type.partition(";")[0].strip() == "application/problem+json":
        try:
            problem = msgspec.json.decode(body, type=_Problem)
        except (msgspec.DecodeError, UnicodeDecodeError):
            problem = _Problem()
    if problem.code in _REFUSALS:
        return Unmeasured("refused", f"the server refused it: {problem.detail or problem.title or problem.code}")
    if status in (404, 405):
        return Unmeasured("absent", f"the server does not have it: it answered {status}")
    if problem.code:
        return Unmeasured("broken", f"the server answered {status}: {problem.detail or problem.title or problem.code}")
    if status == 401:
        return Unmeasured("refused", "the server, or a proxy before it, wants other credentials: it answered 401")
    return Unmeasured("blocked", f"something on the way does not let it through: it answered {status}")


def coded(code: str, says: str) -> Unmeasured:
    """Return what an ``error`` push stands for (spec, section 6.8)."""
    status: Status = "refused" if code in _REFUSALS else "broken"
    return Unmeasured(status, f"the server {'refused it' if status == 'refused' else 'said'}: {says or code}")
