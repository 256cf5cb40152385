"""How many files and sockets the process may have open."""

from __future__ import annotations

import contextlib
import sys

if sys.platform != "win32":  # which has no such limit
    import resource

SPARE_DESCRIPTORS = 200
"""Descriptors that are no connections: logs, the broker's files, connections to other servers."""


def raise_descriptor_limit(wanted: int, ports: int = 1) -> str | None:
    """Let the process open as many files as it may; return a sentence where that is too few.

    It is where each of `ports` could not have `wanted` connections at once.

    The soft limit is raised to the hard one, or where the system does not take that (macOS) to what is needed.
    """
    if sys.platform == "win32":
        return None
    needed = wanted * ports + SPARE_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for goal in (hard, needed):
        if soft in (hard, resource.RLIM_INFINITY):
            break
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (goal, hard))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft == resource.RLIM_INFINITY or soft >= needed:
            break
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return None
    fit = max(soft - SPARE_DESCRIPTORS, 0) // ports
    where = " on each port" if ports > 1 else ""
    return (
        f"only {soft} files may be open, enough for about {fit} connections{where}, and connections_max is {wanted}; "
        f"raise the limit to {needed} (ulimit -n {needed}, or LimitNOFILE={needed} in a systemd unit), "
        f"or lower connections_max to {max(fit, 1)}"
    )
