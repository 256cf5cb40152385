"""The steward: where a command meets the checks, the broker, the hub and whoever has to be asked."""

from tellwire.node.callers import Caller, caller_of
from tellwire.node.control import DisconnectWanted
from tellwire.node.drafts import LAST_MAX, RESERVED_EVENTS, check_count, check_session
from tellwire.node.entrance import OPEN, OPEN_TO_ALL, Entrance, Handshake
from tellwire.node.figures import ChannelsWanted, ConnectionsWanted, stats_of
from tellwire.node.local import Local, LocalReading
from tellwire.node.members import Attendance
from tellwire.node.operating import DrainWanted, UnsubscribeWanted
from tellwire.node.roster import DEADLINE_S, Answers, Known, Title, own_title
from tellwire.node.steward import Node

__all__ = [
    "DEADLINE_S", "LAST_MAX", "OPEN", "OPEN_TO_ALL", "RESERVED_EVENTS", "Answers", "Attendance", "Caller",
    "ChannelsWanted", "ConnectionsWanted", "DisconnectWanted", "DrainWanted", "Entrance", "Handshake", "Known",
    "Local", "LocalReading", "Node", "Title", "UnsubscribeWanted", "caller_of", "check_count", "check_session",
    "own_title", "stats_of",
]  # fmt: skip
