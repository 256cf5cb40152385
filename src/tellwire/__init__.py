"""Tellwire: one channel, over any wire.

Importing this package loads nothing else; a test holds it to that. What an application needs of it is loaded when it is
named: ``from tellwire import Tellwire``.
"""

__version__ = "0.1.0"

TYPE_CHECKING = False  # as type checkers read it; `typing` itself is not loaded
if TYPE_CHECKING:
    from tellwire.application import (
        Appended,
        Client,
        Conflict,
        ConnectRequest,
        Disconnected,
        Forbidden,
        Gap,
        Grants,
        History,
        Identity,
        InvalidData,
        Limits,
        Namespace,
        NotFound,
        Occupancy,
        Occupant,
        Position,
        Publishing,
        Received,
        Subscription,
        Tellwire,
        TellwireError,
        Timeout,
        Unauthorized,
        Unavailable,
    )

__all__ = [
    "Appended", "Client", "Conflict", "ConnectRequest", "Disconnected", "Forbidden", "Gap", "Grants", "History",
    "Identity", "InvalidData", "Limits", "Namespace", "NotFound", "Occupancy", "Occupant", "Position", "Publishing",
    "Received", "Subscription", "Tellwire", "TellwireError", "Timeout", "Unauthorized", "Unavailable", "__version__",
]  # fmt: skip


if not TYPE_CHECKING:  # else every name would seem to be there

    def __getattr__(name):
        if name in __all__:
            from importlib import import_module

            found = getattr(import_module("tellwire.application"), name)
            globals()[name] = found
            return found
        raise AttributeError(f"module 'tellwire' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
