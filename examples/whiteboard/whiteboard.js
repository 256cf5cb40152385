// A board to draw on together, and everybody's pointer on it.
// .venv/bin/python examples/pages.py, then open http://127.0.0.1:8001/whiteboard/ in two windows.
//
// Where a pointer is matters now or never: ephemeral messages, at most one a frame, and none while one is on its way.
// What was drawn stays: each finished line is a message in the log, so who comes later reads the whole board.

import { Tellwire } from "/realtime/client/tellwire.js";

const BOARD = "room:board";
const QUIET_MS = 5000; // a pointer of which nothing is heard for so long has gone
const $ = (id) => document.getElementById(id);
const canvas = document.querySelector("canvas");
const pen = canvas.getContext("2d");
const me = { id: crypto.randomUUID(), hue: Math.floor(Math.random() * 360) };
$("name").value = localStorage.name ??= `Guest ${Math.floor(Math.random() * 900) + 100}`;
$("name").addEventListener("change", () => (localStorage.name = $("name").value));

const client = new Tellwire("/realtime");
client.on("state", ({ state }) => {
  $("state").dataset.state = state;
  $("state").textContent = state === "disconnected" ? "connection lost, trying again" : state;
});

let lines = []; // those in the log, as far back as the last wipe
const mine = new Map(); // those of this tab that are not in the log yet, by the id of their message
const others = new Map(); // pointers, by who has them: {x, y, line, element, heard}

client.subscribe(BOARD, {
  since: "earliest",
  onMessage: ({ event, data, id }) => {
    if (event === "pointer") return point(data);
    if (event === "wipe") {
      lines = [];
      for (const other of others.values()) other.line = undefined;
    } else if (Array.isArray(data?.points)) lines.push(data);
    mine.delete(id);
    redraw();
  },
});

// Sending

let line; // the one that is being drawn
let place; // where the pointer is, while that has not been said
let isSending = false;

function say() {
  if (isSending || !place) return;
  isSending = true;
  requestAnimationFrame(async () => {
    const data = { ...me, ...place, name: $("name").value, line: line?.points.slice(-200) };
    place = undefined;
    await client.publish(BOARD, data, { event: "pointer", ephemeral: true, echo: false }).catch(() => {});
    isSending = false;
    say();
  });
}

/** From 0 to 1 in both directions, as boards are of different size. */
function at({ clientX, clientY }) {
  const { left, top, width, height } = canvas.getBoundingClientRect();
  return { x: round((clientX - left) / width), y: round((clientY - top) / height) };
}
const round = (value) => Math.round(value * 10_000) / 10_000;

canvas.addEventListener("pointerdown", (event) => {
  if (!event.isPrimary) return;
  canvas.setPointerCapture(event.pointerId);
  line = { hue: me.hue, points: [] };
});
canvas.addEventListener("pointermove", (event) => {
  if (!event.isPrimary) return;
  place = at(event);
  if (line && line.points.length < 2000) line.points.push([place.x, place.y]);
  say();
  if (line) redraw();
});
for (const name of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(name, (event) => {
    if (!event.isPrimary || !line) return;
    const id = crypto.randomUUID();
    if (line.points.length > 1) {
      mine.set(id, line);
      client.publish(BOARD, line, { event: "line", id }).catch(() => mine.delete(id) && redraw());
    }
    line = undefined;
  });
}
$("clear").addEventListener("click", () => client.publish(BOARD, null, { event: "wipe" }).catch(() => {}));

// Showing

function point({ id, name, hue, x, y, line: drawing }) {
  let other = others.get(id);
  if (!other) {
    const element = Object.assign(document.createElement("span"), { className: "pointer person" });
    $("board").append(element);
    others.set(id, (other = { element }));
  }
  Object.assign(other, { heard: performance.now(), line: Array.isArray(drawing) ? { hue, points: drawing } : undefined });
  other.element.textContent = String(name);
  other.element.style.setProperty("--hue", Number(hue) || 0);
  other.element.style.translate = `${Number(x) * canvas.clientWidth}px ${Number(y) * canvas.clientHeight}px`;
  redraw();
}

setInterval(() => {
  for (const [id, { heard, element }] of others) {
    if (performance.now() - heard < QUIET_MS) continue;
    element.remove();
    others.delete(id);
  }
}, 1000);

let isDue = false;
function redraw() {
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(() => {
    isDue = false;
    pen.clearRect(0, 0, canvas.width, canvas.height);
    const drawn = [...lines, ...mine.values(), ...[...others.values()].map((other) => other.line), line];
    for (const each of drawn) if (each) draw(each);
    canvas.ariaLabel = lines.length ? `Whiteboard with ${lines.length} lines` : "Whiteboard, empty";
  });
}

function draw({ hue, points }) {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  Object.assign(pen, { lineWidth: 5, lineCap: "round", lineJoin: "round", strokeStyle: `hsl(${Number(hue)} 60% ${dark ? 70 : 40}%)` });
  pen.beginPath();
  for (const [x, y] of points) pen.lineTo(x * canvas.width, y * canvas.height);
  pen.stroke();
}
