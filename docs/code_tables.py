"""Write spec/codes.json, and the tables of codes in the spec and the reference, out of ``tellwire.errors``.

``make docs`` runs it; tests/spec/test_codes.py fails while what is written is not up to date.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from tellwire.errors import CLOSE_MEANINGS, comes_back, error_classes

ROOT = Path(__file__).parent.parent
CODES = ROOT / "spec" / "codes.json"
PAGES = (ROOT / "spec" / "protocol.md", ROOT / "docs" / "reference" / "codes.md")
"""Pages that hold the tables, between comments that name them."""


def codes_json() -> str:
    """Return the text of spec/codes.json."""
    errors = [
        {
            "code": code,
            "status": error.status,
            "close_code": None if error.close_code is None else int(error.close_code),
            "meaning": error.meaning,
        }
        for code, error in sorted(error_classes().items(), key=lambda item: (item[1].status, item[0]))
    ]
    closes = [
        {"code": int(code), "name": code.name.lower(), "reconnect": comes_back(code), "meaning": meaning}
        for code, meaning in CLOSE_MEANINGS.items()
    ]
    return json.dumps({"errors": errors, "close_codes": closes}, indent=2) + "\n"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def tables() -> dict[str, str]:
    """Return the tables by name."""
    known = json.loads(codes_json())
    return {
        "errors": _table(
            ("code", "status", "close code", "meaning"),
            ((f"`{e['code']}`", str(e["status"]), str(e["close_code"] or ""), e["meaning"]) for e in known["errors"]),
        ),
        "close": _table(
            ("code", "name", "reconnect", "meaning"),
            (
                (str(c["code"]), f"`{c['name']}`", "yes" if c["reconnect"] else "no", c["meaning"])
                for c in known["close_codes"]
            ),
        ),
    }


def with_tables(page: str) -> str:
    """Return a page with the tables between their comments as they are now."""
    for name, table in tables().items():
        begin, end = f"<!-- codes: {name} -->", "<!-- end -->"
        page = re.sub(rf"{begin}\n.*?{end}", lambda _, t=f"{begin}\n{table}\n{end}": t, page, flags=re.DOTALL)  # type: ignore[misc]  # mypy cannot type a lambda's default
    return page


def write() -> None:
    """Bring everything that is written here up to date."""
    CODES.write_text(codes_json())
    for page in PAGES:
        page.write_text(with_tables(page.read_text()))


if __name__ == "__main__":
    write()
