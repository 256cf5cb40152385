"""``tellwire token``: makes tokens that servers take, keys, and explanations."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jwt
import pytest
from click.testing import CliRunner, Result

from tellwire.auth import AuthSettings, Identity, Verifier
from tellwire.cli import main
from tests.auth.signing import at_once, b64
from tests.cli.commands import run

KEY = "a secret that is long enough for HS256"


def token(*args: str, stdin: str = "", **variables: str) -> Result:
    """Run the command with a key in its environment; in this process, since there are many runs."""
    others = {name: None for name in os.environ if name.startswith("TELLWIRE_")}
    environment = {**others, "TELLWIRE_TOKEN_KEY": KEY, **variables}
    done = CliRunner().invoke(main, ["token", *args], input=stdin, env=environment)
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return done


def made(*args: str, **variables: str) -> str:
    done = token(*args, **variables)
    assert done.exit_code == 0, done.stderr
    return done.stdout.removesuffix("\n")


def identity(text: str, **settings: Any) -> Identity:
    return at_once(Verifier(AuthSettings(**{"token_key": KEY, **settings})), text)


def explained(*args: str, stdin: str = "", code: int = 0, **variables: str) -> dict[str, str]:
    """Return what an explanation says, by the word before it."""
    done = token("--explain", *args, stdin=stdin, **variables)
    assert done.exit_code == code, done.stderr
    lines: dict[str, str] = {}
    word = ""
    for line in done.stdout.splitlines():
        word = line[:14].strip() or word
        lines[word] = f"{lines[word]}\n{line[14:]}" if word in lines else line[14:]
    return lines


def test_a_token_says_what_was_asked_for() -> None:
    text = made(
        *("--user", "alice", "--subscribe", "news:*", "--subscribe", "room:1", "--publish", "room:42"),
        *("--presence", "room:*", "--call", "sum", "--channel", "inbox:alice", "--info", '{"name": "Ä"}'),
        *("--expires", "2h", "--id", "t1"),
    )
    who = identity(text)
    assert (who.user, who.token_id, who.channels) == ("alice", "t1", ("inbox:alice",))
    assert who.info is not None
    assert json.loads(who.info) == {"name": "Ä"}
    assert dict(who.grants.can) == {
        "subscribe": ("news:*", "room:1", "inbox:alice"),
        "publish": ("room:42",),
        "presence": ("room:*",),
        "call": ("sum",),
    }
    claims = jwt.decode(text, KEY, algorithms=["HS256"])
    assert claims["exp"] - claims["iat"] == 7200


def test_admin() -> None:
    grants = identity(made("--admin")).grants
    assert grants.may("admin", "disconnect")
    assert not grants.may("publish", "a")


@pytest.mark.parametrize(
    ("time", "seconds"), [("90s", 90), ("90", 90), ("15m", 900), ("1h", 3600), ("7d", 604_800), ("2w", 1_209_600)]
)
def test_how_long_it_is_good(time: str, seconds: int) -> None:
    claims = jwt.decode(made("--admin", "--expires", time), KEY, algorithms=["HS256"])
    assert claims["exp"] - claims["iat"] == seconds


def test_it_may_be_good_for_ever_and_is_for_an_hour() -> None:
    assert "exp" not in jwt.decode(made("--admin", "--expires", "never"), KEY, algorithms=["HS256"])
    claims = jwt.decode(made("--admin"), KEY, algorithms=["HS256"])
    assert claims["exp"] - claims["iat"] == 3600


@pytest.mark.parametrize("time", ["", "0", "-1h", "1y", "soon", "1.5h", "0s"])
def test_what_is_no_time(time: str) -> None:
    done = token("--admin", f"--expires={time}")
    assert done.exit_code == 2
    assert "is not a time; write 90s, 15m, 12h, 7d, or never" in done.stderr


def test_every_token_can_be_revoked_by_its_id() -> None:
    first, second = (identity(made("--admin")).token_id for _ in range(2))
    assert first
    assert second
    assert first != second


def test_audience_and_issuer_come_from_the_settings_of_the_server() -> None:
    text = made("--admin", TELLWIRE_TOKEN_AUDIENCE="app", TELLWIRE_TOKEN_ISSUER="me")
    identity(text, token_audience="app", token_issuer="me")
    assert "is for the audience (aud) 'app'" in explained(text, "--audience", "other", code=1)["good"]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--info", "{"], "--info is not JSON"),
        (["--channel", "no spaces"], "claim channels: 'no spaces' is not a channel name"),
        (["--channel", "$control"], "claim channels"),
        (["--subscribe", ""], "can.subscribe holds a pattern of 0 characters"),
        (["--user", ""], "claim sub has to be"),
        (["--user", "a\nb"], "claim sub has to be"),
        (["--info", json.dumps("x" * 9000)], "no server takes more than 8192"),
        (["--algorithm", "none"], "'none' is not an algorithm"),
        (["--algorithm", "RS256"], "a secret cannot be used with RS256"),
        (["--algorithm", "HS512"], "HS512 needs at least 64"),
        (["--key", "short"], "the secret has 5 bytes"),
        (["--key", KEY, "--key-file", "x"], "there are two keys"),
        (["--key-file", "/nowhere"], "/nowhere cannot be read: No such file"),
        (["--explain", "x", "--new-key"], "ask for one at a time"),
        (["--public"], "has no public half"),
        (["--explain", "a.b"], "this is not a token"),
        (["--explain", "a" * 9000], "this has 9000 characters"),
        (["--explain", "-", "--key-file", "-"], "not both"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(args: list[str], says: str) -> None:
    done = token(*args)
    assert done.exit_code in {1, 2}
    assert done.stdout == ""
    assert says in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert KEY not in done.stderr


def test_without_a_key_it_says_where_to_get_one() -> None:
    done = token("--user", "alice", TELLWIRE_TOKEN_KEY="")
    assert done.exit_code == 1
    assert "TELLWIRE_TOKEN_KEY" in done.stderr
    assert "--new-key" in done.stderr


def test_a_token_that_may_nothing_is_made_and_mentioned() -> None:
    done = token("--user", "alice")
    assert identity(done.stdout.strip()).user == "alice"
    assert "may nothing" in done.stderr


# Keys


@pytest.mark.parametrize("algorithm", [None, "HS256", "HS384", "HS512"])
def test_new_secrets(algorithm: str | None) -> None:
    args = ["--algorithm", algorithm] if algorithm else []
    secret = token("--new-key", *args).stdout
    assert secret != token("--new-key", *args).stdout
    text = made("--user", "alice", *args, TELLWIRE_TOKEN_KEY=secret)
    assert identity(text, token_key=secret, token_algorithms=tuple(args[1:])).user == "alice"


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "ES384", "ES512", "EdDSA"])
def test_new_pairs(algorithm: str, tmp_path: Path) -> None:
    pair, public = tmp_path / "pair.pem", tmp_path / "public.pem"
    pair.write_text(token("--new-key", "--algorithm", algorithm).stdout)
    public.write_text(token("--public", "--key-file", str(pair)).stdout)
    assert "PRIVATE" not in public.read_text()
    assert public.read_text() in pair.read_text()
    text = made("--user", "alice", "--key-file", str(pair), "--algorithm", algorithm)
    who = identity(text, token_key=None, token_key_file=str(public), token_algorithms=(algorithm,))
    assert who.user == "alice"
    done = token("--user", "alice", "--key-file", str(public), "--algorithm", algorithm)
    assert "signing one needs the private key" in done.stderr


@pytest.mark.parametrize("algorithm", ["RS256", "ES384", "EdDSA"])
def test_the_public_half_as_a_set(algorithm: str, tmp_path: Path) -> None:
    pair, keys = tmp_path / "pair.pem", tmp_path / "keys.json"
    pair.write_text(token("--new-key", "--algorithm", algorithm).stdout)
    keys.write_text(token("--public", "--key-file", str(pair), "--key-id", "k1").stdout)
    assert json.loads(keys.read_text())["keys"][0].keys().isdisjoint({"d", "p", "q"})
    text = made("--user", "alice", "--subscribe", "a", "--key-file", str(pair), "--key-id", "k1")
    assert identity(text, token_key=None, token_jwks=str(keys)).user == "alice"
    assert explained(text, "--jwks", str(keys))["good"] == "yes: the signature fits the key"
    assert explained(text, "--jwks", str(keys))["signed with"] == f"{algorithm}, key k1"
    other = made("--user", "alice", "--key-file", str(pair), "--key-id", "k2")
    assert "not known here (kid 'k2')" in explained(other, "--jwks", str(keys), code=1)["good"]


def test_a_key_from_standard_input(tmp_path: Path) -> None:
    other = "another secret, just as long as that one"
    done = token("--admin", "--key-file", "-", stdin=other + "\n")
    identity(done.stdout.strip(), token_key=other)


def test_a_key_has_a_name_where_there_are_several() -> None:
    assert jwt.get_unverified_header(made("--admin", "--key-id", "k1"))["kid"] == "k1"


# Explanations


def test_a_good_token_is_explained() -> None:
    said = explained(made("--user", "alice", "--subscribe", "news:*", "--channel", "inbox:alice", "--info", '{"a":1}'))
    assert said["signed with"] == "HS256"
    assert said["good"] == "yes: the signature fits the key"
    assert said["user"] == "alice"
    assert said["may subscribe"] == "news:* inbox:alice"
    assert said["reads"] == "inbox:alice"
    assert said["info"] == '{"a": 1}'
    assert "in 60 minutes" in said["expires"]
    assert "beware" not in said


def test_a_token_from_standard_input() -> None:
    text = made("--user", "alice", "--subscribe", "a")
    assert explained("-", stdin=f"  {text}\n\n")["user"] == "alice"


def test_a_token_with_another_key_is_refused_and_explained_all_the_same() -> None:
    text = made("--user", "alice", "--subscribe", "a", TELLWIRE_TOKEN_KEY=KEY[::-1])
    said = explained(text, code=1)
    assert said["good"].startswith("no: the token's signature does not fit")
    assert said["user"] == "alice"


def test_without_a_key_the_signature_is_not_judged() -> None:
    said = explained(made("--user", "alice", "--subscribe", "a"), TELLWIRE_TOKEN_KEY="")
    assert said["good"].startswith("not checked")


def test_an_expired_token_is_refused() -> None:
    text = jwt.encode({"sub": "alice", "exp": 1_000_000_000}, KEY)
    for key in (KEY, ""):
        said = explained(text, code=1, TELLWIRE_TOKEN_KEY=key)
        assert said["good"].startswith("no: the token expired")
        assert said["expires"].startswith("2001-09-09 01:46:40 UTC, ")


@pytest.mark.parametrize(
    ("claims", "says"),
    [
        ({"sub": "a", "jti": "b"}, "it never expires"),
        ({"exp": 4_000_000_000, "iat": 1_000_000_000}, "it lasts 34722 days"),
        ({}, "it names no user"),
        ({}, "it has no id (jti)"),
        ({}, "it may nothing"),
        ({"can": {"publish": ["*"]}}, "it may publish without bounds: every channel"),
        ({"can": {"admin": ["**"]}}, "everything that operators do"),
        ({"can": {"subscibe": ["a"]}}, "can names what is no operation here, and grants nothing: subscibe"),
        ({"channel": ["a"], "role": 1}, "claims that are not read here: channel, role"),
        ({"info": "x" * 4000}, "browsers keep no cookie above 4096 bytes"),
    ],
)
def test_what_is_odd_is_mentioned(claims: dict[str, Any], says: str) -> None:
    assert says in explained(jwt.encode(claims, KEY))["beware"]


def test_an_unsigned_token_is_explained_but_not_good() -> None:
    said = explained(f"{b64({'alg': 'none'})}.{b64({'sub': 'alice'})}.", code=1)
    assert "signed with 'none'" in said["good"]
    assert "not signed: anybody can make such a token" in said["beware"]


def test_a_hostile_token_does_nothing_to_a_terminal() -> None:
    evil = "\x1b[2J\x9b\u2028\r\n"
    text = jwt.encode(
        {"iss": evil, "aud": [evil], "info": {evil: evil}, evil: 1, "can": {evil: 1, "publish": [evil]}},
        KEY,
        headers={"kid": evil},
    )
    done = token("--explain", text)
    assert not set(done.stdout) & {"\x1b", "\x9b", "\u2028", "\r"}
    assert "not read here" in done.stdout


def test_the_command_reads_its_environment_and_standard_input() -> None:
    done = run("token", "--user", "alice", "--subscribe", "a", TELLWIRE_TOKEN_KEY=KEY)
    assert (done.returncode, done.stderr) == (0, "")
    done = run("token", "--explain", "-", stdin=done.stdout, TELLWIRE_TOKEN_KEY=KEY)
    assert (done.returncode, done.stderr) == (0, "")
    assert "yes: the signature fits the key" in done.stdout


def test_the_help_shows_how() -> None:
    done = run("token", "--help")
    assert done.returncode == 0
    assert "tellwire token --user alice --subscribe 'news:*'" in done.stdout
