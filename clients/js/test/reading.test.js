/** Subscriptions: iterators, listeners, gaps, and who reads more slowly than is published. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { ALL, collect, world } from "./world.js";

/** @param {AsyncIterable<any>} subscription @param {number} count */
async function first(subscription, count) {
  const found = [];
  for await (const message of subscription) {
    found.push(message);
    if (found.length === count) break;
  }
  return found;
}

test("an iterator gives every message with its position, and break ends the reading", async () => {
  const { clock, server, client } = world(["websocket"]);
  const subscription = client.subscribe("a");
  const found = first(subscription, 2);
  await clock.advance(0);
  server.publish("a", 1, { event: "greeting", key: "k" });
  server.publish("a", 2);
  await clock.advance(0);
  const messages = await found;
  assert.deepEqual(messages.map(({ data, seq, position, event, key }) => [data, seq, position, event, key]), [
    [1, 1, "aaaa.1", "greeting", "k"],
    [2, 2, "aaaa.2", "message", undefined],
  ]);
  assert.ok(subscription.isEnded);
  await clock.advance(0);
  assert.ok(server.heard.includes("ws unsubscribe"));
  client.close();
});

test("what comes before somebody iterates or listens is kept", async () => {
  const { clock, server, client } = world(["websocket"]);
  const [a, b] = [client.subscribe("a"), client.subscribe("b")];
  await clock.advance(0);
  server.publish("a", 1);
  server.publish("b", 2);
  await clock.advance(0);
  assert.deepEqual((await first(a, 1)).map(({ data }) => data), [1]);
  /** @type {any[]} */
  const had = [];
  b.on("message", (/** @type {any} */ { data }) => had.push(data));
  assert.deepEqual(had, [2]);
  client.close();
});

test("a reader that does not keep up pauses, and has everything in the end", async () => {
  for (const transport of ALL) {
    const { clock, server, client } = world([transport]);
    const subscription = client.subscribe("a", { since: "earliest", queueMaxMessages: 10 });
    const other = collect(client, "b");
    for (let number = 0; number < 95; number += 1) server.publish("a", number);
    await clock.advance(5000);
    for (let number = 95; number < 130; number += 1) server.publish("a", number);
    server.publish("b", "not held up");
    await clock.advance(5000);
    assert.deepEqual(other, ["not held up"], transport);
    assert.equal(subscription.isWanted, false, transport);
    // Nothing was handed out yet: over HTTP it is not even known where that is.
    assert.equal(subscription.cursor, transport === "websocket" ? "aaaa.0" : null);
    const iterator = subscription[Symbol.asyncIterator]();
    const found = [];
    while (found.length < 130) {
      const next = iterator.next();
      await clock.advance(transport === "poll" ? 300 : 0);
      found.push((await next).value.data);
      if (found.length < 130) assert.equal(subscription.cursor, `aaaa.${server.log.filter(({ channel }) => channel === "a")[found.length - 1].seq}`);
      if (found.length % 37 === 0) server.cut();
      if (found.length % 37 === 0) await clock.advance(3000);
    }
    assert.deepEqual(found, [...Array(130).keys()], transport);
    client.close();
  }
});

test("an iterator ends with the client, and throws what ended the reading", async () => {
  const { clock, server, client } = world(["websocket"]);
  server.answer = (what, { channel }) =>
    what === "ws subscribe" && channel === "b" ? { type: "error", code: "forbidden", message: "not you" } : undefined;
  const [a, b] = [client.subscribe("a"), client.subscribe("b")];
  const last = [a, b].map((each) => each[Symbol.asyncIterator]().next());
  last[1].catch(() => {});
  await clock.advance(0);
  await assert.rejects(last[1], { code: "forbidden", message: "not you" });
  await assert.rejects(b.ready, { code: "forbidden" });
  client.close();
  assert.deepEqual(await last[0], { done: true, value: undefined });
  assert.throws(() => client.subscribe("c"), { code: "closed" });
});

test("the server may end a reading", async () => {
  const { clock, server, client } = world(["websocket"]);
  /** @type {any[]} */
  const ends = [];
  client.subscribe("a").on("end", (/** @type {any} */ error) => ends.push(error.code));
  await clock.advance(0);
  for (const connection of server.connections) connection.write({ type: "unsubscribed", channel: "a", code: "forbidden" });
  await clock.advance(0);
  assert.deepEqual(ends, ["forbidden"]);
  client.close();
});

test("a channel is read once, and what cannot be is said at once", () => {
  const { client } = world(["websocket"]);
  client.subscribe("a");
  assert.throws(() => client.subscribe("a"), { code: "bad_request" });
  assert.throws(() => client.subscribe("b", { since: "yesterday" }), { code: "invalid_cursor" });
  assert.throws(() => client.subscribe("b", { since: 1.5 }), { code: "invalid_cursor" });
  assert.throws(() => client.subscribe("b", { since: "now", last: 1 }), { code: "bad_request" });
  client.subscribe("b"); // none of these was in the way
  assert.throws(() => world(/** @type {any} */ (["pigeon"])), { code: "bad_request" });
  assert.throws(() => world(["websocket"], { WebSocket: undefined }), { code: "bad_request" });
  client.close();
});

test("subscribed again at once, a channel begins anew and mixes nothing up", async () => {
  for (const transport of ALL) {
    const { clock, server, client } = world([transport]);
    const one = collect(client, "a");
    await clock.advance(0);
    server.publish("a", "for the first");
    // What is under way to the first must not come to the second.
    const [subscription] = [client.subscribe("b")];
    subscription.unsubscribe();
    const two = collect(client, "b", { since: "earliest" });
    await clock.advance(3000);
    server.publish("b", "for the second");
    await clock.advance(3000);
    assert.deepEqual([one, two], [["for the first"], ["for the second"]], transport);
    client.close();
  }
});

test("a gap is told once, before what comes after it", async () => {
  for (const transport of ALL) {
    const { clock, server, client } = world([transport]);
    server.history = 3;
    /** @type {any[]} */
    const had = [];
    const onGap = (/** @type {any} */ gap) => had.push(gap.reason);
    client.subscribe("a", { since: "aaaa.0", onGap, onMessage: (/** @type {any} */ { data }) => had.push(data) });
    collect(client, "quiet");
    for (let number = 1; number <= 5; number += 1) server.publish("a", number);
    await clock.advance(3000);
    assert.deepEqual(had, ["trimmed", 3, 4, 5], transport);
    // Lost between two connections.
    server.isDown = true;
    server.cut();
    for (let number = 6; number <= 9; number += 1) server.publish("a", number);
    server.isDown = false;
    await clock.advance(5000);
    assert.deepEqual(had.slice(4), ["trimmed", 7, 8, 9], transport);
    server.wipe("bbbb");
    server.publish("a", "new");
    await clock.advance(5000);
    assert.deepEqual(had.slice(8), ["epoch", "new"], transport);
    server.cut();
    server.publish("a", "newer");
    await clock.advance(5000);
    assert.deepEqual(had.slice(10), ["newer"], transport);
    client.close();
  }
});

test("ephemeral messages have no place, and come once", async () => {
  for (const transport of /** @type {const} */ (["websocket", "sse"])) {
    const { clock, server, client } = world([transport]);
    /** @type {any[]} */
    const had = [];
    const subscription = client.subscribe("a", { onMessage: (/** @type {any} */ message) => had.push([message.data, message.position]) });
    await clock.advance(0);
    const { cursor } = subscription;
    server.publish("a", "typing", { ephemeral: true });
    await clock.advance(0);
    assert.deepEqual([had, subscription.cursor], [[["typing", undefined]], cursor], transport);
    client.close();
  }
});

test("a channel that the token subscribes by itself is read from the place that the application wants", async () => {
  const { clock, server, client } = world(["websocket"]);
  server.publish("a", "old");
  let isOwn = true;
  server.answer = (what, { channel }) => {
    if (what === "ws connect") {
      for (const connection of server.connections) {
        queueMicrotask(() => connection.write({ type: "subscribed", channel: "a", cursor: server.cursor, gap: null }));
        connection.channels.add("a");
      }
    } else if (what === "ws subscribe" && isOwn && channel === "a") {
      isOwn = false;
      return { type: "error", code: "bad_request", message: "this connection reads a already" };
    }
    return undefined;
  };
  const had = collect(client, "a", { since: "earliest" });
  await clock.advance(0);
  server.publish("a", "new");
  await clock.advance(0);
  assert.deepEqual(had, ["old", "new"]);
  client.close();
});
