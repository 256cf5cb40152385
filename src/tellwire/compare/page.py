"""The report as one page, which needs nothing from anywhere (report.html, report.css, report.js beside this)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent


def write_page(found: dict[str, Any]) -> str:
    """Return the page.

    What was measured is in it as JSON, which the page's script turns into text nodes and SVG attributes, never into
    markup. In a script element only ``<`` can end it or open a comment (HTML, section 4.12.1.3), so there is none.
    """
    data = json.dumps(found).replace("<", "\\u003c")
    page = (_HERE / "report.html").read_text(encoding="utf-8")
    for name, text in (("report.css", _read("report.css")), ("report.js", _read("report.js")), ("report.json", data)):
        page = page.replace(f"{{{{{name}}}}}", text, 1)
    return page


def _read(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8").rstrip("\n")
