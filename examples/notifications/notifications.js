// Notifications over plain EventSource, with no library: what was not read yet is there again after a reload.
// .venv/bin/python examples/pages.py, then open http://127.0.0.1:8001/notifications/ (?user=ann for another inbox).
//
// The log is the inbox, and a cursor in localStorage says how far it was read. What comes after it is unread, so
// nothing else has to be kept, here or on the server. (Your server decides whose channel a user may read.)

const user = new URLSearchParams(location.search).get("user") ?? "ann";
const channel = `inbox:${user}`;
const KEY = `read of ${channel}`;
const $ = (id) => document.getElementById(id);

let newest = localStorage[KEY]; // what came last: where to go on from, and what "read" is set to
let retryMs = 1000;

function listen() {
  const query = new URLSearchParams({ channel, since: newest, envelope: 1 });
  const source = new EventSource(`/realtime/v1/events?${query}`);
  source.onopen = () => {
    retryMs = 1000;
    state("connected");
  };
  source.onmessage = ({ data, lastEventId }) => {
    newest = lastEventId;
    add(JSON.parse(data), lastEventId);
  };
  source.addEventListener("gap", (event) => {
    const { to, reason } = JSON.parse(event.data);
    newest = to;
    if (reason === "epoch") localStorage[KEY] = to; // another log: the old place in it means nothing any more
    $("note").textContent = "Some older notifications are no longer kept.";
  });
  source.onerror = () => {
    state("connection lost, trying again");
    // A stream that broke is opened again by the browser, from its Last-Event-ID. An answer that was no stream, such as
    // a 503 while the server is replaced, ends an EventSource for good: then it is for us to come back.
    if (source.readyState !== EventSource.CLOSED) return;
    setTimeout(listen, retryMs + Math.random() * 500);
    retryMs = Math.min(retryMs * 2, 60_000);
  };
}

function add({ data, time }, position) {
  const item = document.createElement("li");
  item.className = "unread";
  item.dataset.position = position;
  const at = document.createElement("time");
  at.dateTime = new Date(time).toISOString();
  at.textContent = new Date(time).toLocaleString();
  item.append(String(data?.text), at); // as text: nothing from a message is ever taken for HTML
  $("list").prepend(item);
  count();
}

function count() {
  const unread = $("list").querySelectorAll(".unread").length;
  $("badge").value = unread;
  $("badge").hidden = $("read").disabled = unread === 0;
  document.title = unread ? `(${unread}) Notifications` : "Notifications";
  // On the icon of an installed page, where there is one.
  navigator.setAppBadge?.(unread).catch(() => {});
}

function state(text) {
  $("state").dataset.state = $("state").textContent = text;
}

/** Everything up to a place is read. */
function markRead(position) {
  const items = [...$("list").children];
  for (const item of items.slice(items.findIndex((each) => each.dataset.position === position))) item.className = "";
  count();
}

$("read").addEventListener("click", () => {
  localStorage[KEY] = newest;
  markRead(newest);
});

// What was read in another tab is read here too.
addEventListener("storage", ({ key, newValue }) => key === KEY && newValue && markRead(newValue));

$("send").addEventListener("submit", (event) => {
  event.preventDefault();
  const message = { channel, data: { text: $("text").value }, id: crypto.randomUUID() };
  fetch("/realtime/v1/messages", { method: "POST", body: JSON.stringify(message) }).catch(() => {
    $("note").textContent = "Not sent: the server cannot be reached.";
  });
});

/** The first time there is no cursor yet: an empty read says where the channel stands. */
async function begin() {
  try {
    const answer = await fetch(`/realtime/v1/messages?${new URLSearchParams({ channel })}`);
    newest = localStorage[KEY] = (await answer.json()).cursor;
    listen();
  } catch {
    state("no server, trying again");
    setTimeout(begin, 2000);
  }
}

count();
newest ? listen() : begin();
