"""Write docs/reference/cli.md out of the commands' own help.

``make docs`` runs it; tests/docs/test_docs.py fails while the page is not up to date.
"""

from __future__ import annotations

from pathlib import Path

import click

from tellwire.cli import main as cli

PAGE = Path(__file__).parent / "reference" / "cli.md"

WIDTH = 100

_HEAD = """# The command line

`make serve` starts `tellwire serve`, with what stands in `ARGS`; the command itself is `.venv/bin/tellwire`.
`tellwire COMMAND --help` says what stands here. [Settings](settings.md) has the flags of `serve` as environment
variables and TOML keys too.
"""


def text() -> str:
    """Return the text of the page."""
    assert isinstance(cli, click.Group)
    root = _context(cli, "tellwire", None)
    parts = [_HEAD, _block(cli.get_help(root))]
    for name in cli.list_commands(root):
        command = cli.get_command(root, name)
        assert command is not None
        parts += [f"## tellwire {name}\n", _block(command.get_help(_context(command, name, root)))]
    return "\n".join(parts)


def _context(command: click.Command, name: str, parent: click.Context | None) -> click.Context:
    return command.make_context(
        name, [], parent=parent, resilient_parsing=True, terminal_width=WIDTH, max_content_width=WIDTH
    )


def _block(help_text: str) -> str:
    lines = "\n".join(line.rstrip() for line in help_text.splitlines())
    return f"```text\n{lines}\n```\n"


def write() -> None:
    """Bring the page up to date."""
    PAGE.write_text(text())


if __name__ == "__main__":
    write()
