"""What the answers to six questions come to, by the rules of ``rules.json``.

The rules are data: a condition (`when`) names for some questions the answers that meet it, and is met where all of
them do; of the choices the first that is met counts, as does the first word against each transport. The page at
``/advise`` reads the same file with ``console/advise/rules.js``, and tests hold the two together over every answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

RULES = Path(__file__).with_name("rules.json")

Answers = Mapping[str, str]
When = dict[str, list[str]]


class Option(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One answer to a question; ``count`` stands for it where something is multiplied."""

    value: str
    say: str
    count: int | None = None


class Question(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked, and what can be answered."""

    key: str
    ask: str
    options: list[Option]

    @property
    def values(self) -> list[str]:
        """What can be answered, as it is written in rules and flags."""
        return [option.value for option in self.options]


class Transport(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A way in; ``cost`` is what is said against it where nothing better is."""

    key: str
    name: str
    cost: str


class Choice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The transport and the runner-up for some answers."""

    when: When
    pick: str
    next: str
    why: list[str]
    next_why: str


class Remark(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What has to be known by whoever takes one of these transports."""

    transports: list[str]
    when: When
    say: str


class Against(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why a transport is not it; ``cannot`` where it is not able to do what was asked."""

    transport: str
    when: When
    say: str
    cannot: bool = False


class Start(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Lines to begin with, in which ``{url}``, ``{grpc}`` (on its host) and ``{transport}`` have to be filled in."""

    transports: list[str]
    when: When
    language: str
    code: list[str]

    def text(self, transport: str, url: str) -> str:
        """Return the program, for a server at `url`."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        host = f"[{host}]" if ":" in host else host
        grpc = f"{'grpcs' if parts.scheme == 'https' else 'grpc'}://{host}:50051"
        filled = {"{url}": url.rstrip("/"), "{grpc}": grpc, "{transport}": transport}
        return re.sub(r"\{(?:url|grpc|transport)\}", lambda found: filled[found[0]], "\n".join(self.code))


class Figure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A figure worth a line, and where it stands in what `tellwire compare` wrote of a transport.

    A step of the path is the name of a field or, in a list, fields that the entry has to have.
    """

    name: str
    path: list[str | dict[str, int]]
    unit: str


class Rules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of ``rules.json``."""

    questions: list[Question]
    transports: list[Transport]
    choices: list[Choice]
    remarks: list[Remark]
    against: list[Against]
    starts: list[Start]
    figures: list[Figure]

    def name(self, transport: str) -> str:
        """Return what a transport is called."""
        return next(each.name for each in self.transports if each.key == transport)


class Advised(msgspec.Struct, frozen=True):
    """A transport that is advised."""

    key: str
    name: str
    why: list[str]
    remarks: list[str]


class Advice(msgspec.Struct, frozen=True):
    """The answer: what to take, what else would do, and why not the others."""

    answers: dict[str, str]
    transport: Advised
    runner_up: Advised
    against: dict[str, str]
    starts: list[dict[str, str]]


def load_rules(path: Path = RULES) -> Rules:
    """Read the rules; raises msgspec.ValidationError where the file is not made so."""
    return msgspec.json.decode(path.read_bytes(), type=Rules)


def is_met(when: When, answers: Answers) -> bool:
    """Say whether the answers meet a condition."""
    return all(answers[key] in values for key, values in when.items())


def advise(rules: Rules, answers: Answers, url: str = "http://127.0.0.1:8000") -> Advice:
    """Say what the answers come to; every question has to have one, else ValueError says which has none.

    Args:
        rules: What `load_rules` returned.
        answers: For the key of each question one of its values.
        url: Where the server is, for the lines to begin with.
    """
    for question in rules.questions:
        if answers.get(question.key) not in question.values:
            raise ValueError(f"{question.key} has to be one of: {', '.join(question.values)}")
    answers = {question.key: answers[question.key] for question in rules.questions}
    choice = next(each for each in rules.choices if is_met(each.when, answers))
    advised = (choice.pick, choice.next)
    return Advice(
        answers=dict(answers),
        transport=_advised(rules, choice.pick, choice.why, answers),
        runner_up=_advised(rules, choice.next, [choice.next_why], answers),
        against={
            transport.key: _against(rules, transport, answers)
            for transport in rules.transports
            if transport.key not in advised
        },
        starts=[
            {"language": start.language, "code": start.text(choice.pick, url)}
            for start in rules.starts
            if choice.pick in start.transports and is_met(start.when, answers)
        ],
    )


def cannot(rules: Rules, transport: str, answers: Answers) -> bool:
    """Say whether the rules take a transport for unable to do what was asked."""
    return any(each.cannot and each.transport == transport and is_met(each.when, answers) for each in rules.against)


def _advised(rules: Rules, transport: str, why: list[str], answers: Answers) -> Advised:
    remarks = [each.say for each in rules.remarks if transport in each.transports and is_met(each.when, answers)]
    return Advised(transport, rules.name(transport), why, remarks)


def _against(rules: Rules, transport: Transport, answers: Answers) -> str:
    for each in rules.against:
        if each.transport == transport.key and is_met(each.when, answers):
            return each.say
    return transport.cost


def as_json(advice: Advice) -> dict[str, Any]:
    """Return an advice as JSON has it, with ``why`` and all."""
    made: dict[str, Any] = msgspec.to_builtins(advice)
    return made
