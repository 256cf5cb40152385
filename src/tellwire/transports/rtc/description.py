"""Offers and answers (SDP), as far as data channels need them (RFC 8866, RFC 8841, RFC 8839, RFC 8842).

Of an offer only the attributes of its data section are read. Candidates are passed over: a server that is asked for
connectivity checks needs none (RFC 8445, section 2.5), and one such as ``x.local`` would have to be resolved.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address
from typing import NamedTuple

from tellwire.errors import BadRequest

LINES_MAX = 2000
MESSAGE_MAX_BYTES = 65_536
"""Largest message that is taken from a peer on one channel; it is what the answer says."""

ASSUMED_MAX_BYTES = 65_536
"""What a peer takes that does not say it (RFC 8841, section 6.1)."""

PEER_MIN_BYTES = 1200
"""Least that a peer has to take: what fits into a packet."""

SCTP_PORT = 5000

_UFRAG = re.compile(r"[A-Za-z0-9+/]{4,256}", re.ASCII)
_PASSWORD = re.compile(r"[A-Za-z0-9+/]{22,256}", re.ASCII)
_FINGERPRINT = re.compile(r"([A-Za-z0-9-]{1,20}) ((?:[0-9A-Fa-f]{2}:){15,63}[0-9A-Fa-f]{2})", re.ASCII)
_MID = re.compile(r"[!#-'*+\-.0-9A-Z^-~]{1,64}", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,15}", re.ASCII)


class Offer(NamedTuple):
    """What an offer says of its data channels."""

    ufrag: str
    password: str
    fingerprints: tuple[tuple[str, str], ...]
    """Hash function and value of each."""
    is_passive: bool
    """Whether the peer waits for the DTLS handshake rather than begin it."""
    mids: tuple[tuple[str, str], ...]
    """Kind and ``mid`` of each section, in their order; the first ``application`` is the one that is answered."""
    sctp_port: int
    message_max_bytes: int
    """Largest message that the peer takes; 0 for any."""
    is_bundled: bool


class _Section:
    """One ``m=`` section, or what stands before the first."""

    def __init__(self, media: str) -> None:
        self.media = media
        self.attributes: dict[str, list[str]] = {}

    def one(self, name: str, session: _Section | None = None) -> str | None:
        values = self.attributes.get(name)
        if values is None and session is not None:
            return session.one(name)
        return values[0] if values else None


def read_offer(body: bytes) -> Offer:
    """Read an offer; raises BadRequest with what is wrong."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise BadRequest("the offer is not UTF-8 (RFC 8866, section 5)") from None
    session, sections = _sections(text)
    data = next((each for each in sections if each.media.startswith("application ")), None)
    if data is None:
        raise BadRequest("the offer has no data channel: make one before createOffer()")
    if "webrtc-datachannel" not in data.media.split() or "/DTLS/SCTP" not in data.media:
        raise BadRequest("the offer's application section is no data channel (UDP/DTLS/SCTP webrtc-datachannel)")
    mids = tuple((each.media.partition(" ")[0], _matched(_MID, each, None, "mid")) for each in sections)
    setup = data.one("setup", session) or "actpass"
    if setup not in ("actpass", "active", "passive"):
        raise BadRequest(f"a=setup:{setup[:20]!a} is none of actpass, active, passive")
    found = data.attributes.get("fingerprint") or session.attributes.get("fingerprint") or []
    prints = tuple((match[1].lower(), match[2].upper()) for each in found if (match := _FINGERPRINT.fullmatch(each)))
    if not prints or len(prints) != len(found):
        raise BadRequest("the offer has no a=fingerprint of its certificate that can be read (RFC 8122)")
    message_max_bytes = _number(data, "max-message-size", ASSUMED_MAX_BYTES, 0, 2**40)
    if 0 < message_max_bytes < PEER_MIN_BYTES:
        raise BadRequest(f"a=max-message-size:{message_max_bytes} is too little; it is 0, or {PEER_MIN_BYTES} at least")
    groups = session.attributes.get("group", [])
    mid = next(mid for kind, mid in mids if kind == "application")
    return Offer(
        ufrag=_matched(_UFRAG, data, session, "ice-ufrag"),
        password=_matched(_PASSWORD, data, session, "ice-pwd"),
        fingerprints=prints,
        is_passive=setup == "passive",
        mids=mids,
        sctp_port=_number(data, "sctp-port", SCTP_PORT, 1, 65_535),
        message_max_bytes=message_max_bytes,
        is_bundled=any(each.startswith("BUNDLE ") and mid in each.split()[1:] for each in groups),
    )


def _sections(text: str) -> tuple[_Section, list[_Section]]:
    lines = text.replace("\r\n", "\n").rstrip("\n").split("\n")
    if lines[0] != "v=0":
        raise BadRequest("the body is not SDP: it begins with v=0 (RFC 8866)")
    if len(lines) > LINES_MAX:
        raise BadRequest(f"an offer has at most {LINES_MAX} lines; this one has {len(lines)}")
    sections: list[_Section] = []
    session = here = _Section("")
    for number, line in enumerate(lines, 1):
        kind, equals, value = line.partition("=")
        if len(kind) != 1 or not equals or not kind.isalpha():
            raise BadRequest(f"line {number} of the offer is not SDP: {line[:40]!a}")
        if kind == "m":
            here = _Section(value)
            sections.append(here)
        elif kind == "a":
            name, _, value = value.partition(":")
            here.attributes.setdefault(name, []).append(value)
    return session, sections


def _matched(pattern: re.Pattern[str], section: _Section, session: _Section | None, name: str) -> str:
    value = section.one(name, session)
    if value is None or pattern.fullmatch(value) is None:
        raise BadRequest(f"the offer has no a={name} that can be read")
    return value


def _number(section: _Section, name: str, default: int, low: int, high: int) -> int:
    value = section.one(name)
    if value is None:
        return default
    if _NUMBER.fullmatch(value) is None or not low <= int(value) <= high:
        raise BadRequest(f"a={name}:{value[:20]!a} is not a number from {low} to {high}")
    return int(value)


def write_answer(
    offer: Offer,
    *,
    number: int,
    ufrag: str,
    password: str,
    fingerprints: Iterable[tuple[str, str]],
    addresses: Iterable[tuple[str, int]],
) -> bytes:
    """Write the answer: the data channels over these UDP addresses, and whatever else was offered refused."""
    taken = next(mid for kind, mid in offer.mids if kind == "application")
    lines = ["v=0", f"o=- {number} 1 IN IP4 127.0.0.1", "s=-", "t=0 0", "a=ice-lite"]
    if offer.is_bundled:
        lines.append(f"a=group:BUNDLE {taken}")
    addresses = list(addresses)
    first, port = addresses[0]
    is_answered = False
    for kind, mid in offer.mids:
        if kind != "application" or is_answered:
            # "To reject an offered media stream, the port number in the corresponding stream in the answer MUST be
            # set to zero" (RFC 3264, section 6).
            lines += [f"m={kind} 0 UDP/TLS/RTP/SAVPF 0", "c=IN IP4 0.0.0.0", f"a=mid:{mid}", "a=inactive"]
            continue
        is_answered = True
        family = "IP6" if ":" in first else "IP4"
        lines += [
            f"m=application {port} UDP/DTLS/SCTP webrtc-datachannel",
            f"c=IN {family} {first}",
            f"a=mid:{mid}",
            f"a=ice-ufrag:{ufrag}",
            f"a=ice-pwd:{password}",
            *(f"a=fingerprint:{name} {value}" for name, value in fingerprints),
            f"a=setup:{'active' if offer.is_passive else 'passive'}",
            f"a=sctp-port:{SCTP_PORT}",
            f"a=max-message-size:{MESSAGE_MAX_BYTES}",
        ]
        for rank, (address, at) in enumerate(addresses):
            preference = 65_535 - rank
            # RFC 8445, section 5.1.2.1: host candidates, component 1.
            priority = (126 << 24) + (preference << 8) + 255
            lines.append(f"a=candidate:{rank + 1} 1 udp {priority} {ip_address(address)} {at} typ host")
        lines.append("a=end-of-candidates")
    return ("\r\n".join(lines) + "\r\n").encode()
