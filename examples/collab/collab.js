// A text that several people write at once, also while one of them is without a connection (Yjs, a CRDT).
// npm ci --prefix tests && .venv/bin/python examples/pages.py, then open http://127.0.0.1:8001/collab/ in two windows.
//
// tellwire-provider.js is what joins Yjs and Tellwire; this binds it to a plain <textarea>. Editors that know Yjs
// (CodeMirror, ProseMirror, Monaco ...) have bindings that take the same provider.awareness.

import { Tellwire } from "/realtime/client/tellwire.js";
import * as Y from "yjs";
import { TellwireProvider } from "./tellwire-provider.js";

const $ = (id) => document.getElementById(id);
const area = $("text");
const doc = new Y.Doc();
const text = doc.getText("text");
$("name").value = localStorage.name ??= `Guest ${Math.floor(Math.random() * 900) + 100}`;

const client = new Tellwire("/realtime");
const provider = new TellwireProvider(client, "doc:notes", doc, {
  onError: (error) => ($("saved").textContent = `Not saved: ${error.message}`),
});
provider.ready.then(() => (area.readOnly = false), () => {});
provider.onWaiting = (waiting) => {
  $("saved").textContent = waiting ? `${waiting} changes not sent yet` : "All changes are in the log";
};
client.on("state", ({ state }) => {
  $("state").dataset.state = state;
  $("state").textContent = state === "disconnected" ? "no connection; go on writing" : state;
});

// The text

/** What changed between two texts is one stretch, between what they have in common before and after it. */
area.addEventListener("input", () => {
  const before = text.toString();
  const now = area.value;
  const most = Math.min(before.length, now.length);
  let start = 0;
  while (start < most && before[start] === now[start]) start += 1;
  let end = 0;
  while (end < most - start && before[before.length - 1 - end] === now[now.length - 1 - end]) end += 1;
  doc.transact(() => {
    text.delete(start, before.length - start - end);
    text.insert(start, now.slice(start, now.length - end));
  }, area);
});

text.observe((event, { origin }) => {
  if (origin === area) return;
  // What others insert or delete before the caret moves it along.
  const moved = [area.selectionStart, area.selectionEnd].map((place) => {
    let at = 0;
    for (const { retain, insert, delete: gone } of event.delta) {
      if (at >= place && !gone) break;
      if (retain) at += retain;
      if (insert) [at, place] = [at + insert.length, place + insert.length];
      if (gone) place = Math.max(at, place - gone);
    }
    return place;
  });
  area.value = text.toString();
  area.setSelectionRange(...moved);
});

// Who is here

function tell() {
  const lineNumber = area.value.slice(0, area.selectionStart).split("\n").length;
  const mine = { name: $("name").value, hue: doc.clientID % 360, line: document.activeElement === area ? lineNumber : null };
  // Awareness goes out with every change; a caret that stays in its line is none.
  if (JSON.stringify(mine) !== JSON.stringify(provider.awareness.getLocalState())) provider.awareness.setLocalState(mine);
}

provider.awareness.on("change", () => {
  const chips = [...provider.awareness.getStates()].map(([id, { name, hue, line }]) => {
    const chip = document.createElement("li");
    chip.className = "person";
    chip.style.setProperty("--hue", Number(hue) || 0);
    chip.textContent = id === doc.clientID ? `${name} (you)` : line ? `${name} · line ${line}` : String(name);
    return chip;
  });
  $("people").replaceChildren(...chips);
});

for (const name of ["selectionchange", "focusin", "focusout"]) document.addEventListener(name, () => setTimeout(tell));
addEventListener("pageshow", tell); // it may have been put away for a while
$("name").addEventListener("input", () => {
  localStorage.name = $("name").value;
  tell();
});
tell();
