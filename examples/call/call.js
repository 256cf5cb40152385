// A video call for up to four, and anybody's screen.
// .venv/bin/python examples/pages.py, then open http://127.0.0.1:8001/call/ in two windows.
//
// Everybody sends to everybody (a mesh): fine for four, too much for a dozen. Tellwire brings the pages together, and
// pictures and sound go from browser to browser; a server of yours may have TURN for those that find no way (docs/calls.md).

import { Tellwire } from "/realtime/client/tellwire.js";

const $ = (id) => document.getElementById(id);
const pictures = new Map(); // <figure> by stream

$("name").value = localStorage.name ??= `Guest ${Math.floor(Math.random() * 900) + 100}`;
const client = new Tellwire("/realtime");
const room = await client.room("room:call", { maxPeers: 3 });
client.on("state", showState);
showState(client.state);

room.on("peer", say);
room.on("update", (peer) => {
  for (const [, { caption, by }] of pictures) if (by === peer) caption.textContent = captionOf(peer);
});
room.on("path", say);
room.on("peerleft", (peer) => {
  for (const [stream, { by }] of pictures) if (by === peer) take(stream);
  say();
});
room.onTrack(({ peer, stream, kind }) => show(stream, peer, kind));
room.on("trackended", ({ stream }) => stream.getTracks().every((track) => track.readyState === "ended") && take(stream));
room.on("local", ({ kind, stream }) => {
  for (const [shown, { by, kind: was }] of pictures) if (!by && was === kind) take(shown);
  if (stream) show(stream, undefined, kind);
  $("screen").setAttribute("aria-pressed", room.local.has("screen"));
});
room.on("error", ({ code, message }) => {
  complain(code === "too_many_peers" ? "This call is full: four can talk at once." : message);
});

$("bar").addEventListener("submit", async (event) => {
  event.preventDefault();
  const name = (localStorage.name = $("name").value.trim());
  $("join").disabled = true;
  complain("");
  try {
    await room.join({ audio: true, video: { width: 640, height: 480 }, state: { name } });
    there(true);
  } catch (error) {
    complain(error.name === "NotAllowedError" ? "The browser may not use the camera: allow it, and join again." : error.message);
  }
  $("join").disabled = false;
});
$("join").disabled = false; // now that pressing it does something: pages come before their scripts

$("mute").addEventListener("click", () => {
  const tracks = room.local.get("camera")?.getAudioTracks() ?? [];
  const isMuted = $("mute").getAttribute("aria-pressed") !== "true";
  for (const track of tracks) track.enabled = !isMuted;
  $("mute").setAttribute("aria-pressed", isMuted);
});

$("screen").addEventListener("click", async () => {
  if (room.local.has("screen")) return room.stopScreen();
  await room.shareScreen().catch((error) => complain(error.name === "NotAllowedError" ? "" : error.message));
});

$("leave").addEventListener("click", async () => {
  there(false);
  await room.leave();
  for (const stream of [...pictures.keys()]) take(stream);
});

function there(isIn) {
  $("join").hidden = isIn;
  $("name").disabled = isIn;
  for (const id of ["mute", "screen", "leave"]) $(id).hidden = !isIn;
  $("mute").setAttribute("aria-pressed", false);
  say();
}

function captionOf(peer) {
  return peer ? String(peer.state?.name ?? "somebody") : "You";
}

function show(stream, by, kind) {
  if (pictures.has(stream)) return;
  const figure = document.createElement("figure");
  figure.classList.toggle("screen", kind === "screen");
  figure.classList.toggle("mine", !by);
  const video = Object.assign(document.createElement("video"), { autoplay: true, playsInline: true, muted: !by, srcObject: stream });
  const caption = document.createElement("figcaption");
  caption.textContent = kind === "screen" ? `${captionOf(by)}: screen` : captionOf(by);
  figure.append(video, caption);
  pictures.set(stream, { figure, caption, by, kind });
  if (kind === "screen") $("stage").prepend(figure);
  else $("stage").append(figure);
}

function take(stream) {
  pictures.get(stream)?.figure.remove();
  pictures.delete(stream);
}

function say() {
  if ($("leave").hidden) return showState(client.state);
  const ways = [...room.peers.values()].map((peer) => `${captionOf(peer)} ${WAYS[peer.path]}`);
  $("state").dataset.state = "connected";
  $("state").textContent = ways.length ? ways.join(", ") : "nobody else is here yet";
}
const WAYS = { connecting: "is being called", direct: "is connected", relay: "is connected over a relay", channel: "cannot be reached directly" };

function showState({ state }) {
  if (!$("leave").hidden) return;
  $("state").dataset.state = state;
  $("state").textContent = state === "disconnected" ? "connection lost, trying again" : state;
}

function complain(text) {
  $("complaint").textContent = text;
}
