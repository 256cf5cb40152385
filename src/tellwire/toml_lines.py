"""A TOML file whose errors can name the line: tomllib reads the values, and this finds where each of them stands."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_KEY = r"""(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')"""
_DOTTED = rf"{_KEY}(?:\s*\.\s*{_KEY})*"
_HEADER = re.compile(rf"\s*\[\[?\s*({_DOTTED})\s*\]\]?\s*(?:#.*)?")
_ENTRY = re.compile(rf"\s*({_DOTTED})\s*=")
_PART = re.compile(_KEY)
_AT_LINE = re.compile(r"\(at line (\d+), column \d+\)")


class TomlSyntaxError(Exception):
    """The file is not TOML; ``line`` is where."""

    def __init__(self, detail: str, line: int) -> None:
        super().__init__(detail)
        self.line = line


@dataclass(frozen=True)
class TomlFile:
    """A TOML file's values, and the lines that they stand on."""

    path: Path
    values: dict[str, Any]
    lines: dict[tuple[str, ...], int]

    @classmethod
    def read(cls, path: Path) -> TomlFile:
        """Read a file; raises TomlSyntaxError, OSError."""
        raw = path.read_bytes()
        try:
            text = raw.decode()
        except UnicodeDecodeError as exc:
            raise TomlSyntaxError("it is not UTF-8", raw[: exc.start].count(b"\n") + 1) from None
        try:
            values = tomllib.loads(text)
        except tomllib.TOMLDecodeError as exc:
            found = _AT_LINE.search(str(exc))
            line = int(found[1]) if found else text.count("\n") + 1
            raise TomlSyntaxError(_AT_LINE.sub("", str(exc)).strip(), line) from None
        return cls(path, values, _find_lines(text))

    def where(self, path: tuple[str, ...]) -> str:
        """Return ``file:line`` of a key or table, or of the nearest table around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return f"{self.path}:{self.lines.get(path, 1)}"


def _find_lines(text: str) -> dict[tuple[str, ...], int]:
    lines: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.fullmatch(line):
            table = _parts(header[1])
            _note(lines, table, number)
        elif entry := _ENTRY.match(line):
            _note(lines, (*table, *_parts(entry[1])), number)
    return lines


def _note(lines: dict[tuple[str, ...], int], path: tuple[str, ...], number: int) -> None:
    for length in range(1, len(path) + 1):
        lines.setdefault(path[:length], number)


def _parts(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip("\"'") for part in _PART.findall(dotted))
