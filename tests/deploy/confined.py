"""Runs a command within the system calls of a unit: ``python -m tests.deploy.confined UNIT COMMAND ...``.

What systemd does with SystemCallFilter and MemoryDenyWriteExecute, without systemd running: by libseccomp, which it
uses itself, and prctl(PR_SET_MDWE). Exits with 77 where the kernel or the library is too old.
"""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import sys
from pathlib import Path

CANNOT = 77

# seccomp_init(3), prctl(2)
ALLOW = 0x7FFF0000
REFUSE = 0x00050000 | errno.EPERM
PR_SET_MDWE, REFUSE_EXEC_GAIN = 65, 1


def calls_of(name: str) -> set[str]:
    """Return the system calls of a name, or of a group of them such as @system-service."""
    if not name.startswith("@"):
        return {name}
    command = ["systemd-analyze", "syscall-filter", name]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    members = [line.strip() for line in said.splitlines()[1:]]
    return {call for each in members if each and not each.startswith("#") for call in calls_of(each)}


def allowed_by(unit: str) -> set[str]:
    """Return the system calls that a unit allows (systemd.exec(5), SystemCallFilter)."""
    allowed: set[str] = set()
    for line in unit.splitlines():
        key, _, value = line.partition("=")
        if key == "SystemCallFilter":
            calls = {call for name in value.removeprefix("~").split() for call in calls_of(name)}
            allowed = allowed - calls if value.startswith("~") else allowed | calls
    return allowed


def confine(unit: str) -> None:
    """Let this process do what the unit allows, from now on."""
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        sys.exit(CANNOT)
    library.seccomp_init.restype = ctypes.c_void_p
    rules = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(REFUSE)))
    for name in sorted(allowed_by(unit)):
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:  # this processor has it
            assert library.seccomp_rule_add(rules, ctypes.c_uint32(ALLOW), number, 0) == 0, name
    if "MemoryDenyWriteExecute=yes" in unit and ctypes.CDLL(None).prctl(PR_SET_MDWE, REFUSE_EXEC_GAIN, 0, 0, 0) != 0:
        sys.exit(CANNOT)
    assert library.seccomp_load(rules) == 0


if __name__ == "__main__":
    confine(Path(sys.argv[1]).read_text())
    os.execvp(sys.argv[2], sys.argv[2:])
