// Prices as they change. Who cannot keep up is given the newest of each share, not a queue of old ones.
// .venv/bin/python examples/pages.py, .venv/bin/python examples/ticker/publish.py, open http://127.0.0.1:8001/ticker/
//
// Twice the newest is enough: what waits in the server for a slow connection is conflated by the messages' key (policy
// latest), and what waits here for the next frame by the same.

import { Tellwire } from "/realtime/client/tellwire.js";

const $ = (id) => document.getElementById(id);
const figures = new Intl.NumberFormat();
const price = new Intl.NumberFormat(undefined, { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const change = new Intl.NumberFormat(undefined, { style: "percent", minimumFractionDigits: 2, signDisplay: "exceptZero" });

const client = new Tellwire("/realtime");
client.on("state", ({ state }) => {
  $("state").dataset.state = state;
  $("state").textContent = state === "disconnected" ? "connection lost, trying again" : state;
});

const changed = new Map(); // the newest of each share that is not drawn yet
const rows = new Map();
const numbers = new Map(); // the publisher numbers each share's prices, so that one can see what was left out
let received = 0;
let drawn = 0;
let skipped = 0;

client.subscribe("stocks:all", {
  last: 100, // the shares' prices before the next change
  policy: "latest",
  onMessage: ({ key, data }) => {
    if (changed.size === 0) requestAnimationFrame(draw);
    received += 1;
    const before = numbers.get(key);
    if (before !== undefined && data.number > before) skipped += data.number - before - 1;
    numbers.set(key, data.number);
    changed.set(key, data);
  },
});

function draw() {
  for (const [share, data] of changed) {
    const [newest, since] = (rows.get(share) ?? addRow(share)).querySelectorAll("td");
    newest.textContent = price.format(data.price);
    since.textContent = change.format(data.price / data.open - 1);
    since.className = data.price < data.open ? "down" : "up";
    drawn += 1;
  }
  changed.clear();
  $("received").textContent = figures.format(received);
  $("drawn").textContent = figures.format(drawn);
  $("skipped").textContent = figures.format(skipped);
  if ($("slow").checked) for (const until = performance.now() + 500; performance.now() < until; );
}

function addRow(share) {
  const row = document.createElement("tr");
  const name = document.createElement("th");
  name.scope = "row";
  name.textContent = share;
  row.append(name, document.createElement("td"), document.createElement("td"));
  rows.set(share, row);
  $("prices").append(...[...rows].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, each]) => each));
  $("empty").hidden = true;
  return row;
}
