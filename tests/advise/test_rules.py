"""The adviser's rules: over every answer there is, in Python and in JavaScript."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tellwire.advise import RULES, Advice, Rules, advise, load_rules
from tellwire.advise.rules import as_json, cannot
from tests.serving import ROOT, WATCHDOG_S

URL = "http://127.0.0.1:4321"

HERE = Path(__file__).parent

VECTORS = json.loads((HERE / "vectors.json").read_text())


@cache
def rules() -> Rules:
    return load_rules()


def answers_of(values: list[str] | tuple[str, ...]) -> dict[str, str]:
    return dict(zip((question.key for question in rules().questions), values, strict=True))


@cache
def every_answer() -> list[dict[str, str]]:
    return [answers_of(values) for values in itertools.product(*(question.values for question in rules().questions))]


def advised(answers: dict[str, str]) -> Advice:
    return advise(rules(), answers, URL)


def unable(transport: str, answers: dict[str, str]) -> bool:
    """Say whether a transport cannot do what was asked, by what transports are, and not by the rules."""
    is_strict = answers["network"] == "strict"
    return {
        "grpc": answers["runs"] != "services" or is_strict or answers["speaks"] == "peers",
        "poll": answers["fresh"] != "late",
        "webrtc": is_strict and answers["speaks"] != "peers",
    }.get(transport, False)


def test_questions_are_six_at_most() -> None:
    assert len(rules().questions) <= 6


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["about"])
def test_scenario_gets_the_wire_of_the_field(vector: dict[str, Any]) -> None:
    advice = advised(answers_of(vector["answers"]))
    assert (advice.transport.key, advice.runner_up.key) == (vector["pick"], vector["next"])


def test_every_answer_has_an_advice_that_can_do_it() -> None:
    names = {transport.key for transport in rules().transports}
    for answers in every_answer():
        advice = advised(answers)
        pick, second = advice.transport.key, advice.runner_up.key
        assert pick != second, answers
        assert {pick, second, *advice.against} == names, answers
        for each in (advice.transport, advice.runner_up):
            assert each.why, answers
            assert all(each.why), answers
            assert not unable(each.key, answers), (each.key, answers)
            assert not cannot(rules(), each.key, answers), (each.key, answers)
        assert all(advice.against.values()), answers
        for other in advice.against:
            assert not unable(other, answers) or advice.against[other], answers


def test_rules_know_what_a_transport_cannot_do() -> None:
    for answers in every_answer():
        for transport in rules().transports:
            if unable(transport.key, answers):
                assert cannot(rules(), transport.key, answers), (transport.key, answers)


def test_decision_table_of_the_documentation_holds() -> None:
    for answers in every_answer():
        advice = advised(answers)
        pick = advice.transport.key
        speaks, runs, network = answers["speaks"], answers["runs"], answers["network"]
        is_late, is_binary = answers["fresh"] == "late", answers["binary"] == "yes"
        if speaks == "peers":
            assert pick == "webrtc", answers
        elif speaks == "server" and is_late:
            assert pick == "poll", answers
        elif network == "strict":
            assert pick == "longpoll", answers
        elif runs == "services" and network == "open":
            assert pick == "grpc", answers
        elif speaks == "both" or is_binary:
            assert pick == "websocket", answers
        else:
            assert pick == "sse", answers


def test_text_wires_that_carry_bytes_are_remarked_on() -> None:
    for answers in every_answer():
        advice = advised(answers)
        for each in (advice.transport, advice.runner_up):
            is_said = any("base64" in remark for remark in each.remarks)
            assert is_said == (answers["binary"] == "yes" and each.key in {"sse", "ndjson", "longpoll", "poll"}), (
                answers
            )


def test_one_way_wires_are_said_to_need_a_post() -> None:
    for answers in every_answer():
        for each in (advised(answers).transport, advised(answers).runner_up):
            is_said = any("POST" in remark for remark in each.remarks)
            assert is_said == (answers["speaks"] != "server" and each.key in {"sse", "ndjson", "longpoll", "poll"})


def test_relayed_runner_up_of_peers_says_that_it_is_relayed() -> None:
    for answers in every_answer():
        if answers["speaks"] == "peers":
            assert any("not peer to peer" in remark for remark in advised(answers).runner_up.remarks), answers


def test_every_rule_is_used_by_some_answer() -> None:
    choices, remarks, against, starts = set(), set(), set(), set()
    for answers in every_answer():
        advice = advised(answers)
        choices.add((advice.transport.key, advice.runner_up.key, *advice.transport.why, *advice.runner_up.why))
        remarks |= {*advice.transport.remarks, *advice.runner_up.remarks}
        against |= {*advice.against.items()}
        assert advice.starts, answers
        starts |= {start["code"] for start in advice.starts}
    assert {(each.pick, each.next, *each.why, each.next_why) for each in rules().choices} == choices
    assert {each.say for each in rules().remarks} == remarks
    assert {(each.transport, each.say) for each in rules().against} <= against
    assert {each.text(key, URL) for each in rules().starts for key in each.transports} == starts


def test_conditions_name_questions_and_answers_that_there_are() -> None:
    values = {question.key: {*question.values} for question in rules().questions}
    conditions = [each.when for each in rules().choices] + [each.when for each in rules().remarks]
    conditions += [each.when for each in rules().against] + [each.when for each in rules().starts]
    for when in conditions:
        for key, wanted in when.items():
            assert wanted, when
            assert {*wanted} <= values[key], when
    keys = {transport.key for transport in rules().transports}
    named = [each.transports for each in rules().remarks] + [each.transports for each in rules().starts]
    assert {*itertools.chain(*named)} <= keys


def test_texts_are_sentences() -> None:
    texts = [text for each in rules().choices for text in (*each.why, each.next_why)]
    texts += [each.say for each in rules().remarks] + [each.say for each in rules().against]
    texts += [each.cost for each in rules().transports]
    assert [text for text in texts if not re.match(r"^[A-Z].*[.?]$", text)] == []


@pytest.mark.parametrize(
    ("answers", "sentence"),
    [
        ({}, "speaks has to be one of: server, both, peers"),
        ({"speaks": "server", "fresh": "yesterday"}, "fresh has to be one of: instant, soon, late"),
    ],
)
def test_missing_or_unknown_answer_is_named(answers: dict[str, str], sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        advise(rules(), answers)


def test_file_that_is_no_rules_is_refused(tmp_path: Path) -> None:
    for text in ("{}", RULES.read_text().replace('"pick"', '"eval"', 1), "[" * 1000):
        path = tmp_path / "rules.json"
        path.write_text(text)
        with pytest.raises(msgspec.DecodeError):
            load_rules(path)


def test_javascript_says_the_same_for_every_answer() -> None:
    node = shutil.which("node")
    if node is None:
        sentence = "there is no Node.js here: install it with `sudo apt-get install nodejs`"
        if os.environ.get("CI") == "true":
            pytest.fail(sentence)
        pytest.skip(sentence)
    engine = ROOT / "src" / "tellwire" / "console" / "advise" / "rules.js"
    done = subprocess.run(
        [node, str(HERE / "every.mjs"), engine.as_uri(), str(RULES), f"{URL}/"],
        input=json.dumps(every_answer()),
        capture_output=True,
        text=True,
        timeout=WATCHDOG_S,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [as_json(advised(answers)) for answers in every_answer()]
