"""``tellwire check-config`` says what is wrong with settings before anything is started, and shows no secret."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tellwire.cli import main

KEY = "a secret that is long enough for HS256"


def check(*args: str, **variables: Any) -> Result:
    others = {name: None for name in os.environ if name.startswith("TELLWIRE_")}
    return CliRunner().invoke(main, ["check-config", *args], env={**others, **variables})


def test_defaults_can_be_used() -> None:
    done = check()
    assert done.exit_code == 0
    assert done.stdout == "the settings can be used\n"


def test_what_is_set_is_shown_and_no_secret_is(tmp_path: Path) -> None:
    file = tmp_path / "tellwire.toml"
    file.write_text(
        "[server]\nhost = '0.0.0.0'\n[hooks]\nhook_publish_url = 'https://backend.example/ask?key=hidden'\n"
        "[namespaces.chat]\nhistory_messages = 5\n"
    )
    hook_secret = "another secret that nobody sees"
    done = check("--config", str(file), TELLWIRE_TOKEN_KEY=KEY, TELLWIRE_HOOK_SECRET=hook_secret)
    assert done.exit_code == 0, done.stderr
    for line in (
        "server.host = 0.0.0.0",
        "auth.token_key = (set)",
        "hooks.hook_publish_url = https://backend.example/ask?…",
        "hooks.hook_secret = (set)",
        "namespaces.chat.history_messages = 5",
    ):
        assert line in done.stdout
    for secret in (KEY, hook_secret, "hidden"):
        assert secret not in done.output


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--host", "0.0.0.0"), "--host: "),
        (("--token-key", "short"), "token_key: the secret has 5 bytes"),
        (("--token-key-file", "/nonexistent/key"), "token_key_file"),
        (("--tls-cert", "/nonexistent/cert.pem"), "--tls-cert: "),
        (("--broker", "carrier-pigeon://x"), "--broker: "),
        (("--hook-call-url", "ftp://x"), "hook_call_url"),
        (("--hook-call-url", "http://x"), "hook_secret"),
        (("--namespace", "chat:histry=1"), "did you mean history"),
        (("--trusted-proxies", "everybody"), "--trusted-proxies: "),
        (("--jsonp",), "--jsonp: "),
        (("--open", "--token-key", KEY), "--open: "),
    ],
)
def test_fault_is_named_with_its_place(args: tuple[str, ...], says: str) -> None:
    done = check(*args)
    assert done.exit_code == 1
    assert says in done.stderr
    assert "the settings can be used" not in done.output
