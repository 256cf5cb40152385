/** Who is here: kept right by pushes, and by asking again wherever those may have been missed. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Presence } from "../src/presence.js";
import { deferred, json } from "./fake-server.js";
import { ALL, collect, world } from "./world.js";

const ann = { client: "A", user: "ann" };
const bob = { client: "B", user: "bob", state: 1 };
const nobody = { client: "N" };

/** @param {any[] | null} members @param {number} seq @param {object} [more] */
function reply(members, seq, more = {}) {
  const count = members?.length ?? 0;
  return { type: "presence", channel: "a", client: "A", members, clients: count, users: count, cursor: `aaaa.${seq}`, ...more };
}

/** @param {Presence} room */
function hear(room) {
  /** @type {any[]} */
  const heard = [];
  for (const name of /** @type {const} */ (["join", "update", "leave"])) {
    room.on(name, (member) => heard.push([name, member.client, member.state]));
  }
  room.on("count", ({ clients, users }) => heard.push(["count", clients, users]));
  return heard;
}

const room = () => new Presence("a", { ask: async () => {}, ended: () => {} });
const push = (/** @type {any} */ type, /** @type {any} */ member, /** @type {number} */ seq) => ({ type, channel: "a", member, seq });

test("pushes change the members, each once", () => {
  const here = room();
  here.know(/** @type {any} */ (reply([ann], 10)), true);
  const heard = hear(here);
  here.take(push("join", bob, 9), "aaaa"); // is in the reply already
  here.take(push("join", bob, 11), "aaaa");
  here.take(push("join", bob, 11), "aaaa");
  here.take(push("update", { ...bob, state: 2 }, 12), "aaaa");
  here.take(push("join", nobody, 13), "aaaa");
  here.take(push("leave", bob, 14), "aaaa");
  here.take(push("leave", bob, 15), "aaaa");
  assert.deepEqual(heard, [
    ["join", "B", 1], ["count", 2, 2],
    ["update", "B", 2],
    ["join", "N", undefined], ["count", 3, 3],
    ["leave", "B", 1], ["count", 2, 2],
  ]); // prettier-ignore
  assert.deepEqual([...here.members.keys()], ["A", "N"]);
});

test("what is different when it is asked again is told", () => {
  const here = room();
  here.know(/** @type {any} */ (reply([ann, bob], 10)), true);
  const heard = hear(here);
  here.know(/** @type {any} */ (reply([{ ...bob, state: 2 }, nobody], 20)), true);
  assert.deepEqual(heard, [["leave", "A", undefined], ["update", "B", 2], ["join", "N", undefined]]);
});

test("what comes while it is asked is sorted in", () => {
  const here = room();
  const heard = hear(here);
  here.expect();
  here.take(push("join", ann, 9), "aaaa");
  here.take(push("join", bob, 11), "aaaa");
  assert.equal(heard.length, 0);
  here.know(/** @type {any} */ (reply([ann], 10)), true);
  assert.deepEqual(heard.filter(([name]) => name === "join"), [["join", "A", undefined], ["join", "B", 1]]);
});

test("a room that is too large is only counted", () => {
  const here = room();
  here.know(/** @type {any} */ (reply(null, 10, { clients: 500, users: 400 })), true);
  const heard = hear(here);
  here.take({ type: "count", channel: "a", clients: 501, users: 401, seq: 11 }, "aaaa");
  assert.deepEqual([heard, here.members.size, here.clients, here.users], [[["count", 501, 401]], 0, 501, 401]);
});

test("after each connection it is entered and asked for again", async () => {
  const { clock, server, client } = world(["websocket"]);
  /** @type {any[]} */
  const asked = [];
  server.answer = (what, fields) => {
    if (what !== "ws presence") return undefined;
    asked.push([fields.enter, fields.watch, fields.state]);
    return reply([ann], server.head);
  };
  const here = client.presence("a");
  assert.equal(client.presence("a"), here);
  await here.enter("s"); // there is no connection yet
  await clock.advance(0);
  server.cut();
  await clock.advance(5000);
  await here.enter("t");
  await here.leave();
  await here.close();
  server.cut();
  await clock.advance(5000);
  assert.deepEqual(asked, [
    [true, true, "s"], [true, true, "s"], [true, true, "t"],
    [false, true, undefined], [undefined, false, undefined],
  ]); // prettier-ignore
  client.close();
});

test("who may not enter is told, and is no member the next time either", async () => {
  for (const transport of /** @type {const} */ (["websocket", "sse"])) {
    const { clock, server, client } = world([transport]);
    server.answer = (what) => {
      if (what === "ws presence") return { type: "error", code: "forbidden", message: "no" };
      return what.endsWith("/v1/presence") ? json({ code: "forbidden", detail: "no" }, 403) : undefined;
    };
    /** @type {any[]} */
    const had = [];
    client.subscribe("a", { onMessage: (/** @type {any} */ { data }) => had.push(data) });
    await clock.advance(0);
    const here = client.presence("a");
    const entered = here.enter();
    entered.catch(() => {});
    await clock.advance(0);
    await assert.rejects(entered, { code: "forbidden" });
    assert.equal(here.isIn, false);
    server.publish("a", 1);
    await clock.advance(0);
    assert.deepEqual([had, client.state.state], [[1], "connected"], transport);
    client.close();
  }
});

test("a member whose lease was over enters again", async () => {
  const { clock, server, client } = world(["websocket"]);
  /** @type {any[]} */
  const states = [];
  server.answer = (what, { state }) => (what === "ws presence" ? (states.push(state), reply([ann], server.head)) : undefined);
  await clock.advance(0);
  await client.presence("a").enter("s");
  await clock.advance(0);
  const before = states.length;
  const leave = (/** @type {string} */ who) => {
    for (const connection of server.connections) connection.write(push("leave", { client: who }, 100));
  };
  leave("B");
  await clock.advance(0);
  assert.equal(states.length, before);
  leave(client.client);
  await clock.advance(0);
  assert.deepEqual(states.slice(before), ["s"]);
  client.close();
});

test("requests that want the same of presence are one, and others go apart", async () => {
  const { clock, server, client } = world(["sse"]);
  /** @type {string[]} */
  const streams = [];
  server.answer = (what, { query, channel, enter }) => {
    if (what === "GET /v1/events") streams.push(`${query.getAll("channel").sort()} ${query.get("presence")}`);
    if (!what.endsWith("/v1/presence")) return undefined;
    const { type, ...fields } = reply([], server.head, { channel: channel ?? query?.get("channel"), entered: enter });
    return json(fields);
  };
  for (const name of ["a", "b", "c"]) client.subscribe(name);
  await clock.advance(0);
  assert.deepEqual(streams, ["a,b,c null"]);
  client.presence("a");
  await clock.advance(0);
  await client.presence("b").enter();
  await clock.advance(0);
  await client.presence("d").enter();
  await clock.advance(0);
  const newest = new Map(streams.map((stream) => [stream.split(" ")[1], stream]));
  assert.deepEqual(new Set(newest.values()), new Set(["c null", "a watch", "b,d enter"]));
  assert.equal(streams.filter((stream) => stream === "a watch").length, 1); // nothing else is a reason to ask again
  assert.equal(server.connections.size, 3);
  client.close();
  await clock.advance(0);
  assert.equal(server.connections.size, 0);
});

test("what is said from one's entry on is not missed, whatever else is read before one knows of it", async () => {
  for (const transport of /** @type {const} */ (["sse", "longpoll", "poll"])) {
    const { clock, server, client } = world([transport]);
    const had = collect(client, "other");
    await clock.advance(0);
    const told = deferred();
    /** @type {(string | null)[]} */
    const since = [];
    server.answer = (what, { query }) => {
      if (what === "GET /v1/presence") return json(reply([], server.head));
      if (what === "POST /v1/presence") return told.promise.then(() => json(reply([], server.head)));
      if (query?.get("presence") === "enter") since.push(query.get("since"));
      return undefined;
    };
    const entering = client.presence("a").enter();
    await clock.advance(0);
    const entered = server.cursor;
    server.publish("other", 1);
    await clock.advance(30_000);
    assert.deepEqual(had, [1], transport);
    told.resolve();
    await entering;
    await clock.advance(0);
    assert.equal(since[0], entered, transport);
    client.close();
  }
});

test("what is said in one channel is not missed while another is entered", async () => {
  for (const transport of /** @type {const} */ (["longpoll", "poll"])) {
    const { clock, server, client } = world([transport]);
    await clock.advance(0);
    const [looked, read] = [deferred(), deferred()];
    const signal = { type: "signal", channel: "b", from: "X", event: "message", data: "psst", id: "", time: 1, seq: 1 };
    server.answer = (what, { query, channel = query.get("channel") }) => {
      const presence = () => json(reply([], server.head, { channel }));
      if (what === "GET /v1/presence" && channel === "a") return looked.promise.then(presence);
      if (what.endsWith("/v1/presence")) return presence();
      if (query.get("presence") !== "enter" || query.get("since") !== "aaaa.0") return undefined;
      return read.promise.then(() => json({ messages: [signal], cursor: "aaaa.1", gap: null }));
    };
    /** @type {any[]} */
    const heard = [];
    client.on("signal", (/** @type {any} */ { data }) => heard.push(data));
    const entering = client.presence("a").enter();
    await client.presence("b").enter();
    await clock.advance(0);
    server.publish("b", "what is said has a place of its own");
    looked.resolve();
    await entering;
    read.resolve();
    await clock.advance(5000);
    assert.deepEqual(heard, ["psst"], transport);
    client.close();
  }
});

test("who comes into a channel is not missed while it is about to be watched", async () => {
  for (const transport of /** @type {const} */ (["sse", "longpoll", "poll"])) {
    const { clock, server, client } = world([transport]);
    const begun = deferred();
    /** @type {(string | null)[]} */
    const since = [];
    server.answer = (what, { query }) => {
      const channels = query.getAll("channel").join();
      if (what === "GET /v1/presence") return json(reply([], server.head, { channel: channels }));
      // Where the reading of b begins is told late.
      if (channels === "b") return begun.promise.then(() => json({ messages: [], cursor: server.cursor, gap: null }));
      if (channels.includes("b") && query.get("presence") === "watch") since.push(query.get("since"));
      return undefined;
    };
    client.presence("a");
    const had = collect(client, "a");
    await clock.advance(1000);
    client.presence("b");
    client.subscribe("b");
    await clock.advance(0);
    const known = server.cursor;
    server.publish("a", 1);
    await clock.advance(1000);
    assert.deepEqual(had, [1], transport);
    begun.resolve();
    await clock.advance(1000);
    assert.equal(since[0], known, transport);
    client.close();
  }
});

test("a room is asked about once at a time, so that what is wanted last is what is told last", async () => {
  for (const transport of ALL) {
    const { clock, server, client } = world([transport]);
    await clock.advance(0);
    const answered = deferred();
    /** @type {boolean[]} */
    const asked = []; // to come in, or to go
    server.answer = (what, { enter }) => {
      if (what === "GET /v1/presence") return json(reply([], server.head));
      if (!what.endsWith("presence")) return undefined;
      if (enter !== undefined) asked.push(enter);
      if (what.startsWith("ws")) return reply([], server.head);
      return answered.promise.then(() => json(reply([], server.head)));
    };
    const here = client.presence("a");
    const all = [here.enter(), here.leave(), here.enter(1), here.leave()];
    await clock.advance(0);
    if (transport !== "websocket") assert.deepEqual(asked, [true], transport);
    answered.resolve();
    await clock.advance(0);
    await Promise.all(all);
    assert.deepEqual(asked, [true, false], transport);
    client.close();
  }
});
