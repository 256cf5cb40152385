// Files from one browser to the others, directly: with progress, going on after a break, and checked at the end.
// .venv/bin/python examples/pages.py, then open http://127.0.0.1:8001/drop/ in two windows.
//
// Where two browsers find no way to each other, the same files go through the channel, only slower.

import { Tellwire } from "/realtime/client/tellwire.js";

const $ = (id) => document.getElementById(id);
const name = (localStorage.name ??= `Guest ${Math.floor(Math.random() * 900) + 100}`);
const client = new Tellwire("/realtime");
const room = await client.room("room:drop", { maxFileBytes: 2 ** 31 });

client.on("state", showState);
showState(client.state);
for (const what of ["peer", "peerleft", "path", "update"]) room.on(what, showPeople);
room.on("error", ({ message }) => ($("complaint").textContent = message));

// What somebody sends is taken only when the user says so.
room.on("file", (file) => {
  const row = addRow(`${file.name} from ${nameOf(file.peer)}`, file.size);
  const accept = button("Accept", async () => {
    for (const each of [accept, refuse]) each.remove();
    try {
      file.on("progress", row.show);
      save(await file.accept(), file.name, row);
    } catch (error) {
      row.say(`did not arrive: ${error.message}`);
    }
  });
  const refuse = button("Refuse", () => {
    file.refuse();
    row.remove();
  });
  row.line.append(accept, refuse);
});

$("file").addEventListener("change", () => {
  send([...$("file").files]);
  $("file").value = ""; // so that the same file can be chosen once more
});
$("file").disabled = false; // now that choosing does something: pages come before their scripts
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  $("zone").addEventListener(kind, (event) => {
    event.preventDefault();
    $("zone").classList.toggle("over", kind === "dragenter" || kind === "dragover");
    if (kind === "drop") send(event.dataTransfer.files);
  });
}
await room.join({ state: { name } });
showPeople();

function send(files) {
  $("complaint").textContent = room.peers.size ? "" : "Nobody is here to send to: open this page in a second window.";
  for (const peer of room.peers.values()) {
    for (const file of files) void sendOne(peer, file);
  }
}

async function sendOne(peer, file) {
  const row = addRow(`${file.name} to ${nameOf(peer)}`, file.size);
  row.say("waits to be accepted");
  const sending = room.sendFile(peer, file, { onProgress: row.show });
  row.line.append(button("Cancel", () => sending.cancel()));
  try {
    await sending.done;
    row.say("has arrived, whole");
  } catch (error) {
    row.say(error.code === "refused" ? "was refused" : `was not sent: ${error.message}`);
  }
  row.line.querySelector("button")?.remove();
}

function save(blob, fileName, row) {
  row.say("is here, and whole: ");
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: fileName, textContent: "save it" });
  row.line.append(link);
}

// Showing

function nameOf(peer) {
  return String(peer?.state?.name ?? "somebody");
}

function showState({ state }) {
  $("state").dataset.state = state;
  $("state").textContent = state === "disconnected" ? "connection lost, trying again" : state;
}

function showPeople() {
  const ways = { connecting: "is being called", direct: "directly", relay: "over a relay", channel: "through the server" };
  const people = [...room.peers.values()].map((peer) => {
    const item = document.createElement("li");
    item.textContent = `${nameOf(peer)}: ${ways[peer.path]}`;
    return item;
  });
  $("people").replaceChildren(...people);
}

function addRow(title, size) {
  const item = Object.assign(document.createElement("li"), { className: "panel" });
  const line = Object.assign(document.createElement("div"), { className: "line" });
  const what = Object.assign(document.createElement("strong"), { textContent: title });
  const status = Object.assign(document.createElement("span"), { className: "soft small", textContent: sizeOf(size) });
  const bar = Object.assign(document.createElement("progress"), { max: Math.max(size, 1), value: 0, ariaLabel: title });
  line.append(what, status);
  item.append(line, bar);
  $("files").prepend(item);
  return {
    line,
    say: (text) => (status.textContent = `${sizeOf(size)}, ${text}`),
    show: ({ bytes }) => {
      bar.value = bytes;
      status.textContent = `${sizeOf(bytes)} of ${sizeOf(size)}`;
    },
    remove: () => item.remove(),
  };
}

function button(text, onClick) {
  const made = Object.assign(document.createElement("button"), { type: "button", textContent: text });
  made.addEventListener("click", onClick);
  return made;
}

function sizeOf(bytes) {
  const unit = bytes < 1e3 ? ["B", 1] : bytes < 1e6 ? ["kB", 1e3] : bytes < 1e9 ? ["MB", 1e6] : ["GB", 1e9];
  return `${(bytes / unit[1]).toFixed(unit[1] === 1 ? 0 : 1)} ${unit[0]}`;
}
