"""What somebody may do: patterns of names for each operation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

Operation = Literal["subscribe", "publish", "presence", "call", "admin"]
"""What is asked for. ``call`` is about the name of a method, ``admin`` about that of an admin operation, all others
about a channel."""

OPERATIONS: tuple[Operation, ...] = get_args(Operation)
PATTERNS_MAX = 1000
PATTERN_MAX_CHARS = 255


class InvalidGrants(ValueError):
    """Grants that cannot be read; the text begins with the place at fault, such as ``can.publish``."""


@dataclass(frozen=True, slots=True)
class _Glob:
    """A pattern with a ``*`` somewhere else than only at its end."""

    head: str
    middles: tuple[str, ...]
    tail: str

    def fits(self, name: str) -> bool:
        end = len(name) - len(self.tail)
        at = len(self.head)
        if end < at or not name.startswith(self.head) or not name.endswith(self.tail):
            return False
        # The first place where a part is found leaves the most for those after it, so none has to be tried twice.
        for part in self.middles:
            at = name.find(part, at, end)
            if at < 0:
                return False
            at += len(part)
        return True


class _Patterns:
    """Patterns of one operation, sorted by how fast they are looked up."""

    __slots__ = ("_any", "_exact", "_globs", "_prefixes")

    def __init__(self, patterns: Iterable[str]) -> None:
        exact, prefixes, globs = set(), [], []
        for pattern in patterns:
            head, *rest = pattern.split("*")
            if not rest:
                exact.add(pattern)
            elif not any(rest):
                prefixes.append(head)
            else:
                globs.append(_Glob(head, tuple(part for part in rest[:-1] if part), rest[-1]))
        self._exact = frozenset(exact)
        self._prefixes = tuple(prefixes)
        self._any = "" in self._prefixes
        self._globs = tuple(globs)

    def fit(self, name: str) -> bool:
        return (
            self._any
            or name in self._exact
            or name.startswith(self._prefixes)
            or any(glob.fits(name) for glob in self._globs)
        )


@dataclass(frozen=True, slots=True)
class Grants:
    """What somebody may do, as a token's claim ``can`` says it.

    A pattern is a name, in which ``*`` stands for any run of characters, also for none and also over colons.
    """

    ALL: ClassVar[Grants]
    """All but the operator's part."""
    EVERYTHING: ClassVar[Grants]
    """All, also what is for operators."""
    NONE: ClassVar[Grants]

    can: tuple[tuple[Operation, tuple[str, ...]], ...] = ()
    """The patterns of each operation that has any, as they were given."""
    _patterns: Mapping[str, _Patterns] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        compiled = {operation: _Patterns(patterns) for operation, patterns in self.can}
        object.__setattr__(self, "_patterns", compiled)

    @classmethod
    def of(cls, can: Mapping[str, Any], *, channels: Iterable[str] = ()) -> Grants:
        """Read grants such as ``{"subscribe": ["news:*"], "publish": ["room:42"]}``.

        Operations that are not known grant nothing: a token may have been made for a newer server. `channels` may be
        subscribed to besides. Raises InvalidGrants.
        """
        found: dict[Operation, tuple[str, ...]] = {}
        for operation in OPERATIONS:
            patterns = can.get(operation, ())
            if not isinstance(patterns, (list, tuple)):
                raise InvalidGrants(f"can.{operation} has to be a list of patterns, such as ['news:*']")
            for pattern in patterns:
                if not isinstance(pattern, str):
                    raise InvalidGrants(f"can.{operation} holds something that is not a text")
                if not 0 < len(pattern) <= PATTERN_MAX_CHARS:
                    raise InvalidGrants(
                        f"can.{operation} holds a pattern of {len(pattern)} characters; "
                        f"it needs 1 to {PATTERN_MAX_CHARS}"
                    )
            found[operation] = tuple(patterns)
        found["subscribe"] += tuple(channels)
        count = sum(map(len, found.values()))
        if count > PATTERNS_MAX:
            raise InvalidGrants(f"can holds {count} patterns; at most {PATTERNS_MAX} are taken, channels among them")
        return cls(tuple((operation, patterns) for operation, patterns in found.items() if patterns))

    def may(self, operation: Operation, name: str) -> bool:
        """Tell whether `operation` is allowed on `name`."""
        patterns = self._patterns.get(operation)
        return patterns is not None and patterns.fit(name)


Grants.NONE = Grants()
Grants.ALL = Grants.of({operation: ["*"] for operation in OPERATIONS if operation != "admin"})
Grants.EVERYTHING = Grants.of({operation: ["*"] for operation in OPERATIONS})
