/** Which transport is used when, how a client comes back, and what it takes for the end. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { json } from "./fake-server.js";
import { ALL, collect, world } from "./world.js";

/** @param {any} client */
function states(client) {
  /** @type {any[]} */
  const seen = [];
  client.on("state", (/** @type {any} */ state) => seen.push(state));
  return seen;
}
const problem = (/** @type {number} */ status, /** @type {string} */ code, more = {}) => json({ code, detail: code, ...more }, status);

test("transports are tried in order, each within its deadline", async () => {
  /** @type {[Record<string, any>, number, string][]} */
  const cases = [
    [{}, 0, "websocket"],
    [{ websocket: "refuse" }, 0, "sse"],
    [{ websocket: "hang" }, 5000, "sse"],
    [{ websocket: "refuse", sse: "buffer" }, 5000, "longpoll"],
    [{ websocket: "hang", sse: "hang" }, 10_000, "longpoll"],
  ];
  for (const [blocked, afterMs, expected] of cases) {
    const { clock, server, client } = world();
    server.blocked = blocked;
    const had = collect(client, "a");
    if (afterMs > 0) {
      await clock.advance(afterMs - 1);
      assert.notEqual(client.state.state, "connected");
    }
    await clock.advance(1);
    assert.equal(client.state.transport, expected, JSON.stringify(blocked));
    server.publish("a", 1);
    await clock.advance(0);
    assert.deepEqual(had, [1], JSON.stringify(blocked));
    client.close();
  }
});

test("a transport that ends as soon as it has begun is left for the next", async () => {
  const { clock, server, client } = world();
  server.blocked = { websocket: "refuse", sse: "refuse", longpoll: "refuse" };
  const had = collect(client, "a");
  await clock.advance(3000);
  assert.equal(client.state.transport, "poll");
  server.publish("a", 1);
  await clock.advance(2000);
  assert.deepEqual(had, [1]);
  client.close();
});

test("a better transport is tried again, later and later, and taken over to without a break", async () => {
  const { clock, server, client } = world(ALL, { upgradeAfterMs: 10_000 });
  server.blocked = { websocket: "refuse", sse: "refuse" };
  const had = collect(client, "a");
  const seen = states(client);
  await clock.advance(0);
  assert.equal(client.state.transport, "longpoll");
  const tries = () => server.heard.filter((what) => what === "ws").length;
  assert.equal(tries(), 1);
  await clock.advance(10_000);
  assert.equal(tries(), 2);
  await clock.advance(19_999);
  assert.equal(tries(), 2);
  server.blocked = { websocket: "refuse" };
  await clock.advance(1);
  assert.equal(client.state.transport, "sse");
  server.blocked = {};
  server.publish("a", 1);
  await clock.advance(40_000);
  assert.equal(client.state.transport, "websocket");
  server.publish("a", 2);
  await clock.advance(0);
  assert.deepEqual(had, [1, 2]);
  assert.deepEqual(seen.map(({ state }) => state), ["connecting", "connected", "connected", "connected"]);
  assert.equal(server.connections.size, 1);
  client.close();
});

test("what worked is tried first the next time", async () => {
  const { clock, server, client } = world(ALL);
  server.blocked = { websocket: "refuse" };
  client.subscribe("a");
  await clock.advance(0);
  server.heard.length = 0;
  server.cut();
  await clock.advance(1500);
  assert.equal(client.state.transport, "sse");
  assert.ok(!server.heard.includes("ws"));
  client.close();
});

test("a client that lost its server waits as long as the schedule says", async () => {
  const { clock, server, client } = world(["websocket"]);
  await clock.advance(5000);
  const seen = states(client);
  server.isDown = true;
  clock.chance = 0.5;
  server.cut();
  await clock.advance(400_000);
  const waits = seen.filter(({ state }) => state === "disconnected").map(({ retryInMs }) => retryInMs);
  assert.deepEqual(waits.slice(0, 8), [1250, 2250, 4250, 8250, 16_250, 32_250, 60_250, 60_250]);
  server.isDown = false;
  await clock.advance(60_500);
  assert.equal(client.state.state, "connected");
  await clock.advance(5000);
  server.isDown = true;
  seen.length = 0;
  server.cut();
  await clock.advance(0);
  assert.equal(seen.at(-1).retryInMs, 1250);
  client.close();
});

test("the server says when to come back: closing, retry and Retry-After", async () => {
  const { clock, server, client } = world(["websocket"]);
  await clock.advance(0);
  const seen = states(client);
  for (const connection of server.connections) connection.say({ type: "closing", code: 1012, reason: "going", reconnect_in_ms: 70 }, 1012);
  await clock.advance(0);
  assert.equal(seen[0].retryInMs, 70);
  assert.equal(seen[0].error.code, "draining");
  await clock.advance(70);
  assert.equal(client.state.state, "connected");
  client.close();

  const stream = world(["sse"]);
  stream.client.subscribe("a");
  await stream.clock.advance(0);
  const streamed = states(stream.client);
  stream.server.cut();
  await stream.clock.advance(0);
  assert.equal(streamed[0].retryInMs, 1000);
  await stream.clock.advance(1000);
  for (const connection of stream.server.connections) connection.close({ code: 1012, reason: "going", reconnect_in_ms: 5 });
  await stream.clock.advance(0);
  assert.equal(streamed.at(-1).retryInMs, 5);
  stream.client.close();

  const busy = world(["sse", "longpoll"]);
  busy.client.subscribe("a");
  busy.server.answer = () => new Response(JSON.stringify({ code: "rate_limited" }), { status: 429, headers: { "Retry-After": "7" } });
  await busy.clock.advance(0);
  assert.equal(busy.client.state.retryInMs, 7000);
  // A server that is busy is not asked over another transport as well.
  assert.equal(busy.server.heard.length, 1);
  busy.client.close();
});

test("a server that falls silent is given up after 2.5 heartbeats", async () => {
  for (const [transport, limit] of /** @type {const} */ ([["websocket", 62_500], ["sse", 62_500], ["longpoll", 30_000]])) {
    const { clock, server, client } = world([transport]);
    const had = collect(client, "a");
    await clock.advance(60_000); // two heartbeats
    server.blackHole();
    server.publish("a", "while it was away");
    await clock.advance(limit);
    assert.notEqual(client.state.state, "connected", transport);
    server.isSilent = false;
    await clock.advance(120_000);
    assert.deepEqual(had, ["while it was away"], transport);
    client.close();
    await clock.advance(0);
    assert.equal(clock.pending, 0, transport);
  }
});

test("a quiet server with heartbeats is not given up", async () => {
  for (const transport of ALL) {
    const { clock, client } = world([transport]);
    client.subscribe("a");
    await clock.advance(0);
    const seen = states(client);
    await clock.advance(3_600_000);
    assert.deepEqual(seen, [], transport);
    client.close();
  }
});

test("wrong credentials are the end at once, and nothing is tried after them", async () => {
  /** @type {[any[], (what: string) => any][]} */
  const cases = [
    [["websocket", "sse"], (what) => (what === "ws connect" ? 4500 : undefined)],
    [["websocket", "sse"], (what) => (what === "ws connect" ? 4502 : undefined)],
    [["sse", "longpoll"], () => problem(401, "unauthorized")],
    [["longpoll", "poll"], () => problem(403, "forbidden_origin")],
    [["poll"], () => new Response("<html>", { status: 401 })],
  ];
  for (const [transports, answer] of cases) {
    const { clock, server, client } = world(transports, { token: "t" });
    server.answer = answer;
    const subscription = client.subscribe("a");
    const waiting = client.publish("a", 1);
    waiting.catch(() => {});
    const next = subscription[Symbol.asyncIterator]().next();
    next.catch(() => {});
    await clock.advance(100_000);
    assert.equal(client.state.state, "failed");
    await assert.rejects(waiting, client.state.error);
    await assert.rejects(next, client.state.error);
    await assert.rejects(subscription.ready, client.state.error);
    await assert.rejects(client.publish("a", 2), client.state.error);
    assert.ok(server.heard.length <= 2, server.heard.join());
    assert.equal(clock.pending, 0);
  }
});

test("a channel that is forbidden ends its reading, and the others go on", async () => {
  for (const transport of ALL) {
    for (const since of [undefined, "earliest", "aaaa.0"]) {
      const { clock, server, client } = world([transport]);
      server.answer = (what, { channel, query }) => {
        const names = query?.getAll("channel") ?? [channel];
        if (!names.includes("secret")) return undefined;
        return what.startsWith("ws") ? { type: "error", code: "forbidden", message: "not for you" } : problem(403, "forbidden");
      };
      /** @type {any[]} */
      const errors = [];
      const had = [collect(client, "a", { since }), collect(client, "secret", { since, onError: (/** @type {any} */ error) => errors.push(error.code) }), collect(client, "b", { since })];
      await clock.advance(5000);
      assert.deepEqual(errors, ["forbidden"], `${transport} ${since}`);
      assert.equal(client.state.state, "connected", `${transport} ${since}`);
      server.publish("a", 1);
      server.publish("b", 2);
      await clock.advance(3000);
      assert.deepEqual(had, [[1], [], [2]], `${transport} ${since}`);
      client.close();
    }
  }
});

test("a token that has expired is asked for again, and the connection comes back at once", async () => {
  for (const transport of ALL) {
    let made = 0;
    const { clock, server, client } = world([transport], { token: async () => `token ${++made}` });
    let good = "token 1";
    server.answer = (what, { token, headers }) => {
      if (what === "ws connect") return token === good ? undefined : 4002; // not in the handshake: it has a space
      if (what.startsWith("ws")) return undefined;
      return headers && headers.Authorization !== `Bearer ${good}` ? problem(401, "expired") : undefined;
    };
    const had = collect(client, "a");
    await clock.advance(0);
    assert.equal(client.state.state, "connected", transport);
    good = "token 2";
    server.publish("a", 1);
    for (const connection of [...server.connections]) {
      const push = { type: "closing", code: 4002, reason: "expired" };
      if (transport === "websocket") connection.say(push, 4002);
      else if (transport === "sse") connection.close({ code: 4002, reason: "expired" });
    }
    await clock.advance(transport === "poll" ? 2000 : 0);
    server.publish("a", 2);
    await clock.advance(2000);
    assert.deepEqual([had, made, client.state.state], [[1, 2], 2, "connected"], transport);
    // Where the fresh one is not good either, the server is not asked in circles.
    good = "none";
    server.heard.length = 0;
    server.cut();
    await clock.advance(30_000);
    assert.ok(server.heard.length < 60, `${transport}: ${server.heard.length}`);
    client.close();
    await clock.advance(0);
    assert.equal(clock.pending, 0, transport);
  }
});

test("a token given as text that has expired is the end", async () => {
  for (const transport of ALL) {
    const { clock, server, client } = world([transport], { token: "old" });
    server.answer = (what) => (what === "ws connect" ? 4002 : what.startsWith("ws") ? undefined : problem(401, "expired"));
    client.subscribe("a");
    await clock.advance(0);
    assert.equal(client.state.state, "failed", transport);
    assert.match(client.state.error.message, /function/);
  }
});

test("a token is refreshed in band shortly before it is over", async () => {
  let made = 0;
  const { clock, server, client } = world(["websocket"], { token: () => `token ${++made}` });
  /** @type {string[]} */
  const refreshed = [];
  server.answer = (what, { token }) => {
    const more = { client: "c", epoch: "aaaa", cursor: "aaaa.0", heartbeat_ms: 25_000 };
    if (what === "ws connect") return { type: "connected", ...more, expires_in_ms: 60_000 };
    if (what === "ws refresh") return refreshed.push(token), { type: "refreshed", expires_in_ms: 60_000 };
    return undefined;
  };
  await clock.advance(44_999);
  assert.deepEqual(refreshed, []);
  await clock.advance(1);
  assert.deepEqual(refreshed, ["token 2"]);
  await clock.advance(45_000);
  assert.deepEqual(refreshed, ["token 2", "token 3"]);
  client.close();
});

test("who cannot get a token tries again", async () => {
  let fails = 2;
  const token = async () => {
    if (fails-- > 0) throw new Error("the login server is away");
    return "t";
  };
  for (const transport of /** @type {const} */ (["websocket", "sse"])) {
    fails = 2;
    const { clock, client } = world([transport], { token });
    client.subscribe("a");
    await clock.advance(0);
    assert.equal(client.state.state, "disconnected");
    await clock.advance(4000);
    assert.equal(client.state.state, "connected");
    client.close();
  }
});

test("suspended, a client holds no connection; resumed, it is back at once and has missed nothing", async () => {
  /** @type {Map<string, () => void>} */
  const heard = new Map();
  const scope = /** @type {any} */ (globalThis);
  scope.addEventListener = (/** @type {string} */ name, /** @type {any} */ listener) => heard.set(name, listener);
  scope.removeEventListener = (/** @type {string} */ name) => heard.delete(name);
  try {
    for (const transport of ALL) {
      const { clock, server, client } = world([transport]);
      const had = collect(client, "a");
      await clock.advance(0);
      heard.get("offline")?.();
      await clock.advance(0);
      assert.equal(server.connections.size, 0);
      assert.equal(client.state.state, "disconnected");
      const published = client.publish("a", "mine");
      server.publish("a", "theirs");
      await clock.advance(100_000);
      assert.deepEqual(had, []);
      heard.get("online")?.();
      await clock.advance(2000);
      await published;
      assert.deepEqual(had, ["theirs", "mine"], transport);
      client.close();
      assert.equal(heard.size, 0);
    }
  } finally {
    delete scope.addEventListener;
    delete scope.removeEventListener;
  }
});

test("1,000 rounds of connecting and closing leave nothing behind", async () => {
  /** @type {unknown[]} */
  const unhandled = [];
  const hear = (/** @type {unknown} */ error) => unhandled.push(error);
  process.on("unhandledRejection", hear);
  /** What listens to the page. @type {Set<unknown>} */
  const listening = new Set();
  const scope = /** @type {any} */ (globalThis);
  scope.addEventListener = (/** @type {string} */ _, /** @type {unknown} */ listener) => listening.add(listener);
  scope.removeEventListener = (/** @type {string} */ _, /** @type {unknown} */ listener) => listening.delete(listener);
  const { clock, server, client: first } = world(["poll"]);
  assert.equal(listening.size, 2);
  for (let round = 0; round < 1000; round += 1) {
    const transport = /** @type {any} */ (ALL[round % 4]);
    const { Tellwire } = await import("../src/tellwire.js");
    const { fetch, WebSocket } = server;
    const client = new Tellwire("http://fake", { transports: [transport], fetch, WebSocket, clock });
    client.subscribe("a");
    client.publish("a", round).catch(() => {});
    client.presence("a");
    // Closed at another moment each time.
    for (let turn = 0; turn < round % 13; turn += 1) await new Promise((resolve) => setImmediate(resolve));
    client.close();
  }
  first.close();
  await clock.advance(0);
  process.off("unhandledRejection", hear);
  delete scope.addEventListener;
  delete scope.removeEventListener;
  assert.deepEqual(unhandled, []);
  assert.equal(listening.size, 0);
  assert.equal(server.connections.size, 0);
  assert.equal(clock.pending, 0);
});

test("1,000 clients that lose their server at once come back spread out", async () => {
  const { clock, server, client } = world(["websocket"]);
  client.close();
  const { Tellwire } = await import("../src/tellwire.js");
  const { fetch, WebSocket } = server;
  let seed = 1;
  clock.random = () => (seed = (seed * 16_807) % 2_147_483_647) / 2_147_483_647;
  const clients = Array.from({ length: 1000 }, () => new Tellwire("http://fake", { transports: ["websocket"], fetch, WebSocket, clock }));
  await clock.advance(0);
  server.cut();
  await clock.advance(999);
  assert.equal(server.connections.size, 0);
  /** @type {number[]} */
  const histogram = [];
  for (let before = 0, slot = 0; slot < 10; slot += 1) {
    await clock.advance(slot === 0 ? 51 : 50);
    histogram.push(server.connections.size - before);
    before = server.connections.size;
  }
  assert.equal(server.connections.size, 1000);
  assert.ok(histogram.every((count) => count > 60 && count < 140), histogram.join());
  for (const each of clients) each.close();
});
