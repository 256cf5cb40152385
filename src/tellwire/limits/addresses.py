"""Whose connection it is: the address that counts, also behind proxies."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Iterator

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

HOPS_MAX = 32
"""Proxies that a request is followed back through; nobody has more, and each costs some time to read."""


def address_key(address: str) -> str:
    """Return what an address counts as: itself in IPv4, its /64 in IPv6, of which one machine has all.

    What is no address counts as itself.
    """
    if ":" not in address:
        return address
    parsed = _parse(address)
    if not isinstance(parsed, ipaddress.IPv6Address):
        return address if parsed is None else str(parsed)
    return str(ipaddress.IPv6Network((int(parsed) >> 64 << 64, 64)))


def client_address(peer: str, headers: Iterable[tuple[bytes, bytes]], trusted: Collection[Network]) -> str:
    """Return the address of the client, which is `peer` or whom trusted proxies name in ``X-Forwarded-For``.

    Each proxy appends whom it was asked by, so the field is read from its right end, and no further than to the first
    address that is not a trusted proxy: what stands left of that, the client itself may have written. Nor is anything
    read beyond what is no address.
    """
    if not trusted:
        return peer
    address = _parse(peer)
    if address is None:
        return peer
    hops = _hops_backwards(headers)
    while _is_within(address, trusted):
        hop = next(hops, None)
        if hop is None:
            break
        address = hop
    return str(address)


def _hops_backwards(headers: Iterable[tuple[bytes, bytes]]) -> Iterator[_Address]:
    """Yield the addresses of all ``X-Forwarded-For`` fields from the right, up to what is none."""
    fields = [value for name, value in headers if name == b"x-forwarded-for"]
    # Several fields are one with commas between them (RFC 9110, section 5.3).
    hops = b",".join(fields).split(b",")[-HOPS_MAX:]
    for hop in reversed(hops):
        address = _parse(hop.decode("latin-1").strip())
        if address is None:
            return
        yield address


def _parse(text: str) -> _Address | None:
    """Read an address, with or without a port, in brackets or not; None where it is none."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    # The same client, as a socket that listens for both sees it.
    return (isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped) or address


def _is_within(address: _Address, networks: Collection[Network]) -> bool:
    return any(address in network for network in networks)
