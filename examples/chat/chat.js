// A room to talk in: names, who is here, who types, and what was said before.
// .venv/bin/python examples/pages.py, then open http://127.0.0.1:8001/chat/ in two windows.

import { Tellwire } from "/realtime/client/tellwire.js";

const ROOM = "room:lobby";
const PAGE = 50;
const TYPING_MS = 3000;
const $ = (id) => document.getElementById(id);
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });

// Who writes, so that their own messages stand on the right after a reload too. It is no secret, unlike a session.
const me = (localStorage.author ??= crypto.randomUUID());
$("name").value = localStorage.name ??= `Guest ${Math.floor(Math.random() * 900) + 100}`;

const client = new Tellwire("/realtime");
client.on("state", ({ state }) => {
  $("state").dataset.state = state;
  $("state").textContent = state === "disconnected" ? "connection lost, trying again" : state;
});

// Messages

/** Every text goes in as text: what people write is never taken for HTML. */
function element(name, className, text = "") {
  return Object.assign(document.createElement(name), { className, textContent: text });
}

function hue(text) {
  return [...text].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) % 360, 7);
}

function line({ id, time, position, data }) {
  const { author, name, text } = data ?? {};
  const item = element("li", author === me ? "mine" : "");
  const by = element("div", "by");
  const who = element("span", "person", String(name));
  who.style.setProperty("--hue", hue(String(author)));
  const at = element("time", "", clock.format(time));
  at.dateTime = new Date(time).toISOString();
  by.append(who, at);
  item.append(by, element("p", "said", String(text)));
  Object.assign(item.dataset, { id, author, position });
  return item;
}

function show(...items) {
  const { scrollHeight, scrollTop, clientHeight } = $("scroller");
  const wasAtEnd = scrollHeight - scrollTop - clientHeight < 80; // who reads above is left there
  $("messages").append(...items);
  group();
  if (wasAtEnd) $("scroller").scrollTop = $("scroller").scrollHeight;
}

/** A person's messages in a row have their name once. */
function group() {
  let before = "";
  for (const item of $("messages").children) {
    item.classList.toggle("same", item.dataset.author !== undefined && item.dataset.author === before);
    before = item.dataset.author;
  }
}

let had = 0;
client.subscribe(ROOM, {
  last: PAGE,
  onMessage: (message) => {
    // It was shown when it was sent; its place is where the log has it.
    $("messages").querySelector(`[data-id="${CSS.escape(message.id)}"]`)?.remove();
    show(line(message));
    had += 1;
    if (had === PAGE) $("earlier").hidden = false; // there may be more than was asked for
  },
  onGap: () => show(element("li", "note", "Some messages may be missing here.")),
});

$("earlier").addEventListener("click", async () => {
  const [first] = $("messages").children;
  const { messages } = await client.history(ROOM, { before: first.dataset.position, limit: PAGE });
  const height = $("scroller").scrollHeight;
  $("messages").prepend(...messages.map(line));
  group();
  $("scroller").scrollTop += $("scroller").scrollHeight - height; // what was being read stays in sight
  $("earlier").hidden = messages.length < PAGE;
});

$("composer").addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (!text) return;
  const message = { id: crypto.randomUUID(), time: Date.now(), data: { author: me, name: localStorage.name, text } };
  const waiting = line(message);
  waiting.classList.add("waiting");
  show(waiting);
  $("text").value = $("complaint").textContent = "";
  setTyping(false);
  try {
    // Without a connection this waits for one; with the same id a retry is not said twice.
    await client.publish(ROOM, message.data, { id: message.id });
  } catch (error) {
    waiting.remove();
    $("complaint").textContent = `Not sent: ${error.message}`;
    $("text").value ||= text;
  }
});

// Who is here, and types: a member's state, which everybody is told of when it changes.

const room = client.presence(ROOM);
let isTyping = false;
let timer = 0;
const enter = () => room.enter({ author: me, name: localStorage.name, typing: isTyping }).catch(() => {});

function setTyping(typing) {
  clearTimeout(timer);
  if (typing) timer = setTimeout(setTyping, TYPING_MS, false);
  if (typing === isTyping) return;
  isTyping = typing;
  enter();
}

room.on("members", (members) => {
  // Two tabs of one browser are one person.
  const people = new Map([...members.values()].filter(({ state }) => state).map(({ state }) => [state.author, state]));
  $("people").replaceChildren(...[...people.values()].map(({ author, name }) => {
    const chip = element("li", "person", author === me ? `${name} (you)` : String(name));
    chip.style.setProperty("--hue", hue(String(author)));
    return chip;
  }));
  const names = [...members.values()].filter(({ state }) => state?.typing && state.author !== me).map(({ state }) => state.name);
  $("typing").textContent = names.length ? `${names.join(", ")} ${names.length > 1 ? "are" : "is"} typing …` : "";
});

$("text").addEventListener("input", () => setTyping($("text").value !== ""));
$("name").addEventListener("change", () => {
  if (!$("name").value.trim()) $("name").value = localStorage.name;
  localStorage.name = $("name").value.trim();
  enter();
});
enter();
