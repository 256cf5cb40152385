"""Servers behind TLS: which certificates the commands accept, and what they say of others."""

from __future__ import annotations

import datetime
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from tellwire.cli import main
from tests.cli.commands import Running, run
from tests.serving import SHARED, WATCHDOG_S, Certificate, Server, make_certificate

COMMANDS = {
    "pub": ("news", "1"), "sub": ("news",), "tail": ("news",), "history": ("news",), "nodes": (), "channels": (),
    "connections": (), "presence": ("news",), "disconnect": ("--user", "ann"), "unsubscribe": ("news", "--user", "ann"),
    "drain": (), "top": (),
}  # fmt: skip
"""All that take --url, and what else they need."""

UNTRUSTED = "nobody who is trusted here has signed it; --ca-file gives the authority that is to be trusted"

BARE: dict[str, str | None] = dict.fromkeys(("TELLWIRE_URL", "TELLWIRE_TOKEN", "TELLWIRE_CA_FILE"))


def ask(command: str, url: str, *args: str, **variables: str) -> Result:
    """Run a command in this process to its end."""
    return CliRunner().invoke(main, [command, *COMMANDS[command], "--url", url, *args], env={**BARE, **variables})


def issued(folder: Path, authority: Certificate) -> Certificate:
    """Make a certificate for ``localhost`` that an authority has signed; the key is the authority's own."""
    signer = x509.load_pem_x509_certificate(authority.cert.read_bytes())
    key = serialization.load_pem_private_key(authority.key.read_bytes(), None)
    now = datetime.datetime.now(datetime.UTC)
    cert = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a server")]))
        .issuer_name(signer.subject)
        .public_key(signer.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())  # type: ignore[arg-type]  # make_certificate's key is one that signs
    )
    path = folder / "issued.pem"
    path.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    return Certificate(path, authority.key)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """Return another authority, of the same name."""
    return make_certificate(tmp_path_factory.mktemp("stranger"))


@pytest.fixture(scope="module")
def secure(authority: Certificate, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose certificate only `authority` vouches for."""
    server = Server(**{**SHARED, "server": issued(tmp_path_factory.mktemp("issued"), authority).settings})
    yield server
    server.close()


@pytest.fixture(scope="module")
def url(secure: Server) -> str:
    return f"https://localhost:{secure.port}"


def test_every_command_that_talks_to_a_server_takes_an_authority() -> None:
    assert isinstance(main, click.Group)
    takes = {name: {parameter.name for parameter in command.params} for name, command in main.commands.items()}
    assert {name for name, known in takes.items() if "url" in known} == {*COMMANDS, "advise", "compare"}
    # The adviser asks nobody.
    assert {name for name, known in takes.items() if "ca_file" in known} == {*COMMANDS, "compare"}


@pytest.mark.parametrize("command", COMMANDS)
def test_certificate_of_another_authority_ends_it_with_a_sentence(
    url: str, stranger: Certificate, command: str
) -> None:
    done = ask(command, url, "--ca-file", str(stranger.cert))
    assert done.exit_code == 1, done
    address = url.removeprefix("https://")
    assert done.stderr == f"Error: the certificate of {address} is not accepted: {UNTRUSTED}\n"


@pytest.mark.parametrize("command", ["pub", "sub", "nodes"])
def test_certificate_without_a_known_authority_ends_it_with_a_sentence(url: str, command: str) -> None:
    done = ask(command, url)
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1), done
    assert UNTRUSTED in done.stderr


def test_commands_accept_what_the_authority_has_signed(
    url: str, authority: Certificate, channel: str, start: Callable[..., Running]
) -> None:
    variables = {"TELLWIRE_URL": url, "TELLWIRE_CA_FILE": str(authority.cert)}
    reading = start("sub", channel, "--since", "earliest", **variables)
    given = ("--url", url, "--ca-file", str(authority.cert))
    published = CliRunner().invoke(main, ["pub", channel, "kept", *given], env=BARE)
    assert (published.exit_code, published.stderr) == (0, ""), published
    assert reading.lines(1) == ["kept"]
    assert CliRunner().invoke(main, ["history", channel, *given], env=BARE).output == "kept\n"
    assert channel in CliRunner().invoke(main, ["top"], env={**BARE, **variables}).output
    quick = ("--seconds", "0.2", "--readers", "1", "--payload", "16", "--idle", "0", "--transports", "sse")
    compared = run("compare", url, *quick, **variables)
    assert compared.returncode == 0, compared


def test_any_certificate_is_accepted_where_that_is_asked_for(url: str, stranger: Certificate) -> None:
    assert ask("history", url, "--insecure").exit_code == 0
    assert ask("history", url, "--insecure", "--ca-file", str(stranger.cert)).exit_code == 0


def test_reading_ends_where_another_certificate_is_shown_after_a_drop(
    start_server: Callable[..., Server], certificate: Certificate, stranger: Certificate, start: Callable[..., Running]
) -> None:
    server = start_server(server=certificate.settings)
    where = {"TELLWIRE_URL": f"https://localhost:{server.port}", "TELLWIRE_CA_FILE": str(certificate.cert)}
    assert ask("pub", where["TELLWIRE_URL"], **where).exit_code == 0
    reading = start("tail", *COMMANDS["tail"], **where)
    assert reading.lines(1) == ["1"]
    server.kill()
    server.wait()
    start_server(server={**stranger.settings, "port": server.port})
    assert reading.process.wait(WATCHDOG_S) == 1
    *drops, said = reading.err.read().splitlines()
    assert all("connecting again in" in line for line in drops)
    assert UNTRUSTED in said


def test_certificate_that_no_authority_would_mend_is_said_without_one(secure: Server, authority: Certificate) -> None:
    done = ask("pub", f"https://127.0.0.1:{secure.port}", "--ca-file", str(authority.cert))
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1), done
    assert f"the certificate of 127.0.0.1:{secure.port} is not accepted: IP address mismatch" in done.stderr
    assert "--ca-file" not in done.stderr


def test_server_without_tls_is_said_to_have_none(server: Server) -> None:
    done = ask("sub", f"https://127.0.0.1:{server.port}")
    says = f"Error: 127.0.0.1:{server.port} does not speak TLS: it may want http://\n"
    assert (done.exit_code, done.stderr) == (1, says)


@pytest.mark.parametrize("command", COMMANDS)
def test_file_without_a_certificate_is_refused_before_anything_is_connected(
    authority: Certificate, tmp_path: Path, command: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        for path, says in (
            (tmp_path / "nowhere.pem", f"'{tmp_path}/nowhere.pem' does not exist"),
            (authority.key, f"--ca-file: there is no certificate in PEM to be read from {authority.key}"),
        ):
            done = ask(command, url, "--ca-file", str(path))
            assert done.exit_code == 2, done
            assert says in done.stderr
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_file_that_the_environment_names_is_held_to_the_same(authority: Certificate, tmp_path: Path) -> None:
    broken = tmp_path / "broken.pem"
    broken.write_text(authority.cert.read_text()[:200])
    for path, says in (
        (tmp_path, f"Invalid value for '--ca-file' (env var: 'TELLWIRE_CA_FILE'): File '{tmp_path}' is a directory"),
        (broken, f"--ca-file: there is no certificate in PEM to be read from {broken}"),
    ):
        done = ask("nodes", "http://127.0.0.1:1", TELLWIRE_CA_FILE=str(path))
        assert done.exit_code == 2, done
        assert says in done.stderr


def test_certificates_of_the_system_that_are_not_there_are_said(tmp_path: Path) -> None:
    done = ask("history", "http://127.0.0.1:1", SSL_CERT_FILE=str(tmp_path / "nowhere.pem"))
    assert done.exit_code == 2
    assert "SSL_CERT_FILE: no certificates can be read there" in done.stderr


def test_variable_does_no_harm_to_what_needs_none(authority: Certificate) -> None:
    env = {**BARE, "TELLWIRE_CA_FILE": str(authority.cert)}
    checked = CliRunner().invoke(main, ["check-config"], env=env)
    assert checked.exit_code == 0, checked
    done = CliRunner().invoke(main, ["compare", "--transports", "pigeon"], env={**env, "TELLWIRE_TOKEN": "a.b.c"})
    assert "there is no transport 'pigeon'" in done.stderr
