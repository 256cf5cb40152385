// A game over an unreliable data channel, beside the same game over a WebSocket, with the latency of both.
// .venv/bin/python examples/pages.py, then open http://127.0.0.1:8001/game/ in two windows.
//
// Where somebody is matters now or never, so moves are ephemeral: over the data channel a lost one is not sent again, and
// holds up none that come after it. Who has the coin matters for good: that is in the log, and `expect` lets one win.

import { Tellwire } from "/realtime/client/tellwire.js";

const WIRES = ["webrtc", "websocket"];
const GAME = "room:game";
const QUIET_MS = 3000; // a player of whom nothing is heard for so long has gone
const REACH = 0.05;
const STEP = 0.02;
const SAMPLES = 60; // moves that a latency is of
const $ = (id) => document.getElementById(id);
const me = { id: crypto.randomUUID(), hue: Math.floor(Math.random() * 360), x: Math.random(), y: Math.random() };

const wires = WIRES.map((name) => {
  const client = new Tellwire("/realtime", { transports: [name], session: crypto.randomUUID() });
  const wire = { name, client, players: new Map(), latencies: [], isBusy: false };
  client.on("state", ({ state }) => {
    if (state !== "connected") wire.latencies.length = 0;
    showLatency(wire);
    showState();
  });
  // `unreliable`: over the data channel nothing is sent twice, elsewhere whoever lags gets the newest.
  client.subscribe(`${GAME}-${name}`, { unreliable: true, onMessage: ({ data }) => moved(wire, data) });
  return wire;
});

// The coin: where it is, and who had it how often. One log for both wires.
const scores = new Map();
let coin = { x: 0.5, y: 0.5, position: undefined };
let isTaking = false;
const table = wires[1].client;
const coins = table.subscribe(`${GAME}-coins`, {
  since: "earliest",
  onMessage: ({ data, position }) => {
    coin = { x: clamp(data.x), y: clamp(data.y), position };
    const score = scores.get(data.by) ?? { hue: data.hue, count: 0 };
    scores.set(data.by, { ...score, count: score.count + 1 });
    showScores();
    draw();
  },
});

function moved(wire, { id, x, y, hue, at }) {
  wire.players.set(id, { x: clamp(x), y: clamp(y), hue, heard: performance.now() });
  if (id === me.id) {
    wire.latencies.push(performance.now() - at);
    if (wire.latencies.length > SAMPLES) wire.latencies.shift();
    showLatency(wire);
  }
  draw();
}

/** Say where this player is, at most once a frame on each wire. */
function say() {
  for (const wire of wires) {
    if (wire.isBusy || wire.client.state.state !== "connected") continue;
    wire.isBusy = true;
    requestAnimationFrame(async () => {
      await wire.client.publish(`${GAME}-${wire.name}`, { ...me, at: performance.now() }, { ephemeral: true }).catch(() => {});
      wire.isBusy = false;
    });
  }
  if (Math.hypot(me.x - coin.x, me.y - coin.y) < REACH) void take();
}

/** Take the coin, if nobody was quicker: the log decides. */
async function take() {
  const expect = coin.position ?? coins.cursor?.replace(/\d+$/, "0"); // epoch.0: nobody has had one yet
  if (isTaking || !expect || table.state.state !== "connected") return;
  isTaking = true;
  const next = { by: me.id, hue: me.hue, x: 0.1 + Math.random() * 0.8, y: 0.1 + Math.random() * 0.8 };
  await table.publish(`${GAME}-coins`, next, { expect }).catch(() => {});
  isTaking = false;
}

for (const name of WIRES) {
  $(name).addEventListener("pointermove", ({ clientX, clientY }) => {
    const { left, top, width, height } = $(name).getBoundingClientRect();
    go((clientX - left) / width, (clientY - top) / height);
  });
}
const KEYS = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] };
addEventListener("keydown", (event) => {
  const way = KEYS[event.key];
  if (!way) return;
  event.preventDefault();
  go(me.x + way[0], me.y + way[1]);
});

function go(x, y) {
  me.x = clamp(x);
  me.y = clamp(y);
  say();
}
const clamp = (value) => Math.min(Math.max(Number(value) || 0, 0), 1);
setInterval(say, 1000); // who stands still is still there

function draw() {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  for (const { name, players } of wires) {
    const { width, height } = $(name);
    const pen = $(name).getContext("2d");
    pen.clearRect(0, 0, width, height);
    disc(pen, coin.x * width, coin.y * height, 12, dark ? "#e8b64c" : "#b07d12");
    for (const [id, { x, y, hue, heard }] of players) {
      if (performance.now() - heard > QUIET_MS) players.delete(id);
      else disc(pen, x * width, y * height, id === me.id ? 18 : 14, `hsl(${Number(hue) || 0} 60% ${dark ? 65 : 40}%)`);
    }
  }
}

function disc(pen, x, y, radius, color) {
  pen.fillStyle = color;
  pen.beginPath();
  pen.arc(x, y, radius, 0, 2 * Math.PI);
  pen.fill();
}

function showLatency({ name, client, latencies }) {
  const sorted = [...latencies].sort((a, b) => a - b);
  const at = (share) => `${sorted[Math.min(Math.floor(sorted.length * share), sorted.length - 1)].toFixed(1)} ms`;
  const there = sorted.length ? `p50 ${at(0.5)}, p99 ${at(0.99)}` : "no move yet";
  $(`${name}-latency`).textContent = client.state.state === "connected" ? there : "not connected";
}

function showScores() {
  const best = [...scores].sort(([, a], [, b]) => b.count - a.count).slice(0, 10);
  $("scores").replaceChildren(...best.map(([id, { hue, count }]) => {
    const item = Object.assign(document.createElement("li"), { className: "person", textContent: `${id === me.id ? "You" : "Player"} ${count}` });
    item.style.setProperty("--hue", Number(hue) || 0);
    return item;
  }));
}

function showState() {
  const open = wires.filter(({ client }) => client.state.state === "connected").length;
  $("state").dataset.state = open === WIRES.length ? "connected" : "connecting";
  $("state").textContent = open === WIRES.length ? "connected over both" : `${open} of ${WIRES.length} wires connected`;
}
