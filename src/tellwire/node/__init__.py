"""The steward: where a command meets the checks, the broker, the hub and whoever has to be asked."""

from tellwire.node.callers import Caller, caller_of
from tellwire.node.drafts import LAST_MAX, RESERVED_EVENTS, check_count, check_session
from tellwire.node.entrance import OPEN, OPEN_TO_ALL, Entrance, Handshake
from tellwire.node.local import Local, LocalReading
from tellwire.node.members import Attendance
from tellwire.node.steward import Node

__all__ = [
    "LAST_MAX", "OPEN", "OPEN_TO_ALL", "RESERVED_EVENTS", "Attendance", "Caller", "Entrance", "Handshake", "Local",
    "LocalReading", "Node", "caller_of", "check_count", "check_session",
]  # fmt: skip
