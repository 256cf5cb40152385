"""Inside an application: a node as an object that a Python program holds, mounts and talks to."""

from tellwire.application.embedded import Tellwire
from tellwire.application.reading import History, Occupancy, Occupant, Received, Subscription
from tellwire.auth import Grants, Identity
from tellwire.errors import (
    Conflict,
    Forbidden,
    InvalidData,
    NotFound,
    TellwireError,
    Timeout,
    Unauthorized,
    Unavailable,
)
from tellwire.hooks import Client, ConnectRequest, Disconnected, Publishing
from tellwire.limits import Limits
from tellwire.message import Appended, Gap, Position
from tellwire.names import Namespace

__all__ = [
    "Appended", "Client", "Conflict", "ConnectRequest", "Disconnected", "Forbidden", "Gap", "Grants", "History",
    "Identity", "InvalidData", "Limits", "Namespace", "NotFound", "Occupancy", "Occupant", "Position", "Publishing",
    "Received", "Subscription", "Tellwire", "TellwireError", "Timeout", "Unauthorized", "Unavailable",
]  # fmt: skip
