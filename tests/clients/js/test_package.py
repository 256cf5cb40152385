"""What is packed is what runs: types, size, and an import in a folder that knows nothing of this one."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

USE = """
import { Tellwire, TellwireError, type Message, type State } from "tellwire";

const client = new Tellwire("https://example.org", { token: async () => "t", transports: ["websocket", "sse"] });
client.on("state", (state: State) => {
  if (state.state === "failed") console.error(state.error.code);
});
client.on("signal", ({ from, data }) => console.log(from, data));
const subscription = client.subscribe("news", { last: 10, onGap: (gap) => console.log(gap.reason) });
for await (const message of subscription) {
  const { seq, data }: Message = message;
  console.log(seq, data);
}
const room = client.presence("room");
room.on("join", (member) => console.log(member.client, room.members.size));
await room.enter({ typing: true });
try {
  const { position } = await client.publish("news", { a: 1 }, { key: "k", expect: "k.1" });
  console.log(position);
} catch (error) {
  if (error instanceof TellwireError && error.code === "conflict") console.log(error.head);
}
const answer: unknown = await client.call("add", [1, 2], { timeoutMs: 100 });
console.log(answer, (await client.history("news", { limit: 5 })).messages.length);
const call = await client.room("r1", { connectMs: 5000 });
call.onTrack(({ peer, kind, track }) => console.log(peer.path, kind, track.id));
call.on("file", (file) => void file.accept().then((blob) => console.log(file.name, blob?.size)));
await call.join({ audio: true, video: { width: 640 }, state: { name: "Ann" } });
for (const peer of call.peers.values()) {
  call.dataChannel(peer, { unreliable: true }).send("quick");
  await call.sendFile(peer, new Blob([]), { onProgress: ({ bytes, size }) => console.log(bytes / size) }).done;
}
client.close();
// @ts-expect-error there is no such transport
new Tellwire("https://example.org", { transports: ["pigeon"] });
// @ts-expect-error nor such an option
client.subscribe("news", { from: "earliest" });
"""


def run(*command: str, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_types_are_right(client_tools: Path) -> None:
    run(
        "npx",
        "tsc",
        "-p",
        ".",
        "--noEmit",
        "--emitDeclarationOnly",
        "false",
        "--declaration",
        "false",
        cwd=client_tools,
    )


def test_tests_have_types_too(client_tools: Path) -> None:
    flags = ["--noEmit", "--allowJs", "--checkJs", "--strict", "--target", "ES2023", "--module", "NodeNext"]
    libraries = ["--lib", "ES2023,DOM,DOM.Iterable,DOM.AsyncIterable", "--types", "node"]
    files = [str(path) for path in (client_tools / "test").glob("*.js")]
    run("npx", "tsc", *flags, *libraries, *files, cwd=client_tools)


@pytest.fixture(scope="module")
def installed(client_tools: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pack the client, and install it in a folder of its own."""
    (packed,) = json.loads(run("npm", "pack", "--json", "--silent", cwd=client_tools))
    names = {file["path"] for file in packed["files"]}
    assert {"src/tellwire.js", "types/tellwire.d.ts", "README.md", "LICENSE", "package.json"} <= names
    assert not [name for name in names if name.startswith(("test/", "node_modules/"))]
    folder = tmp_path_factory.mktemp("fresh")
    (folder / "package.json").write_text('{"name": "fresh", "private": true, "type": "module"}')
    run(
        "npm",
        "install",
        "--silent",
        "--no-audit",
        "--no-fund",
        "--offline",
        str(client_tools / packed["filename"]),
        cwd=folder,
    )
    return folder


def test_package_can_be_imported(installed: Path) -> None:
    script = (
        "import('tellwire').then(({ Tellwire, TellwireError }) => console.log(typeof Tellwire, typeof TellwireError))"
    )
    assert run("node", "-e", script, cwd=installed) == "function function\n"
    assert not [
        path for path in (installed / "node_modules").iterdir() if path.name not in ("tellwire", ".package-lock.json")
    ]


def test_package_brings_its_types(installed: Path, client_tools: Path) -> None:
    (installed / "use.ts").write_text(USE)
    flags = ["--noEmit", "--strict", "--target", "ES2022", "--module", "NodeNext", "--lib", "ES2022,DOM"]
    run(str(client_tools / "node_modules" / ".bin" / "tsc"), *flags, "use.ts", cwd=installed)
