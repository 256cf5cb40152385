"""The command ``tellwire advise``: six questions, and which transport that comes to."""

from __future__ import annotations

import json
import re
import shutil
import sys
import textwrap
from pathlib import Path
from typing import Any

import click

from tellwire.advise import Advice, Figures, Question, Rules, advise, figures_of, load_rules
from tellwire.advise.rules import as_json

_RULES = load_rules()

WIDTH = 100
"""Columns of text at most: longer lines are no pleasure to read."""


class _QuestionsCommand(click.Command):
    """A command with a flag for every question."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        flags = [
            click.Option([f"--{question.key}"], type=click.Choice(question.values), help=question.ask)
            for question in _RULES.questions
        ]
        self.params[:0] = flags


@click.command(
    "advise",
    cls=_QuestionsCommand,
    epilog="""\b
Examples:
  tellwire advise                                       asks
  tellwire advise --speaks server --runs browsers       asks what is left
  tellwire compare --json > here.json; tellwire advise --figures here.json
""",
)
@click.option(
    "--figures",
    "path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="What `tellwire compare --json` wrote; else its last run here, or the figures that come with Tellwire.",
)
@click.option(
    "--url",
    envvar="TELLWIRE_URL",
    default="http://127.0.0.1:8000",
    show_default=True,
    show_envvar=True,
    help="Where the server is or will be, for the lines to begin with.",
)
@click.option("--json", "is_json", is_flag=True, help="Print JSON; what is asked goes to standard error.")
def advise_command(path: Path | None, url: str, is_json: bool, **given: str | None) -> None:
    """Say which transport to take, from at most six questions.

    Answers with a transport and the runner-up, why these and not the others, what was measured of them, and the lines
    to begin with. The server's page /advise does the same.
    """
    if not re.fullmatch(r"https?://[^/\s]+\S*", url):
        raise click.UsageError(f"--url {url!a} is no address of a server; it begins with http:// or https://")
    try:
        figures_of(path)  # a file that is none is no matter for six questions first
        answers = _ask_what_is_left(_RULES, given)
        advice = advise(_RULES, answers, url)
        figures = figures_of(path, advice.transport.key, advice.runner_up.key)
    except ValueError as exc:
        raise click.ClickException(str(exc)) from None
    if is_json:
        click.echo(json.dumps(as_json(advice) | {"figures": figures.as_json() if figures else None}, indent=2))
    else:
        _show(advice, figures)


def _ask_what_is_left(rules: Rules, given: dict[str, str | None]) -> dict[str, str]:
    """Ask each question that no flag has answered."""
    left = [question for question in rules.questions if given[question.key] is None]
    if left and not sys.stdin.isatty():
        flags = ", ".join(f"--{question.key}" for question in left)
        raise click.UsageError(f"there is nobody to ask here: give {flags}, too")
    return {question.key: given[question.key] or _ask(question) for question in rules.questions}


def _ask(question: Question) -> str:
    click.echo(f"{question.ask}", err=True)
    for number, option in enumerate(question.options, 1):
        click.echo(f"  {number}  {option.say}", err=True)
    number = click.prompt("Which", type=click.IntRange(1, len(question.options)), err=True)
    click.echo(err=True)
    return question.options[number - 1].value


def _show(advice: Advice, figures: Figures | None) -> None:
    for word, advised in (("Take", advice.transport), ("\nElse", advice.runner_up)):
        click.echo(f"{word} {click.style(advised.name, bold=True)}.")
        for text in advised.why:
            _say(text)
        for text in advised.remarks:
            _say(f"Mind: {text}")
    click.echo("\nNot the others:")
    for key, why in advice.against.items():
        _say(f"{_RULES.name(key)}: {why}")
    if figures is not None:
        click.echo()
        _say(f"Measured {figures.about}:", "")
        for advised in (advice.transport, advice.runner_up):
            lines = figures.lines(_RULES, advised.key)
            _say(f"{advised.name}: {'; '.join(f'{name} {value}' for name, value in lines) or 'not measured'}")
    for start in advice.starts:
        click.echo(f"\n{_LANGUAGES[start['language']]}:\n")
        click.echo(textwrap.indent(start["code"], "    "))  # never wrapped: it is there to be copied


_LANGUAGES = {
    "js": "To begin with, in a page",
    "python": "To begin with, in Python",
    "console": "To publish, from a shell or any HTTP client",
}


def _say(text: str, sign: str = "- ") -> None:
    """Print a point, wrapped to the width of the terminal."""
    columns = min(shutil.get_terminal_size((80, 24)).columns, WIDTH)
    rest = " " * len(sign)
    click.echo(textwrap.fill(text, columns, initial_indent=sign, subsequent_indent=rest, break_long_words=False))
