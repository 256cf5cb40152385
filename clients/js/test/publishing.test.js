/** The outbox, and requests that are answered or not. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { json } from "./fake-server.js";
import { ALL, collect, world } from "./world.js";

test("publishes wait for a connection, in order, and each has an id of its own", async () => {
  for (const transport of ALL) {
    const { clock, server, client } = world([transport]);
    server.isDown = true;
    const answers = [1, 2, 3].map((data) => client.publish("a", data));
    await clock.advance(10_000);
    assert.equal(server.log.length, 0);
    server.isDown = false;
    await clock.advance(10_000);
    assert.deepEqual(await Promise.all(answers), [1, 2, 3].map((seq) => ({ position: `aaaa.${seq}`, duplicate: false })));
    assert.deepEqual(server.log.map(({ data }) => data), [1, 2, 3]);
    assert.equal(new Set(server.log.map(({ id }) => id)).size, 3);
    client.close();
  }
});

test("a message is what it was when it was published", async () => {
  const { clock, server, client } = world(["websocket"]);
  const data = { list: [1] };
  client.publish("a", data, { event: "e", key: "k", id: "i" });
  data.list.push(2);
  await clock.advance(0);
  const [{ event, key, id, data: had }] = server.log;
  assert.deepEqual([event, key, id, had], ["e", "k", "i", { list: [1] }]);
  client.close();
});

test("what cannot be published rejects", async () => {
  const { clock, server, client } = world(["websocket"]);
  const circle = /** @type {any} */ ({});
  circle.circle = circle;
  await assert.rejects(client.publish("a", undefined), { code: "invalid_data" });
  await assert.rejects(client.publish("a", circle), TypeError);
  const first = client.publish("a", 1, { expect: "aaaa.0" });
  const second = client.publish("a", 2, { expect: "aaaa.0" });
  second.catch(() => {});
  await clock.advance(0);
  assert.equal((await first).position, "aaaa.1");
  await assert.rejects(second, { code: "conflict", head: "aaaa.1" });
  server.answer = (what) => (what === "ws publish" ? { type: "error", code: "forbidden", message: "no" } : undefined);
  const third = client.publish("a", 3);
  third.catch(() => {});
  await clock.advance(0);
  await assert.rejects(third, { code: "forbidden" });
  client.close();
});

test("the outbox is bounded in number and size, and refuses what comes last", async () => {
  const { clock, server, client } = world(["websocket"], { outboxMaxMessages: 3, outboxMaxChars: 500 });
  server.isDown = true;
  const kept = [1, 2, 3].map((data) => client.publish("a", data));
  await assert.rejects(client.publish("a", 4), { code: "outbox_full" });
  server.isDown = false;
  await clock.advance(10_000);
  await Promise.all(kept);
  await assert.rejects(client.publish("a", "x".repeat(500)), { code: "outbox_full" });
  const again = client.publish("a", "there is room again");
  await clock.advance(0);
  assert.equal((await again).position, "aaaa.4");
  client.close();
});

test("an acknowledgement that was lost doubles nothing", async () => {
  for (const transport of ALL) {
    const { clock, server, client } = world([transport]);
    await clock.advance(0);
    server.fuse = transport === "websocket" ? 2 : 2; // the message arrives, its answer does not
    const answer = client.publish("a", 1);
    await clock.advance(10_000);
    assert.deepEqual(await answer, { position: "aaaa.1", duplicate: true }, transport);
    assert.equal(server.log.length, 1);
    client.close();
  }
});

test("sent, but unacknowledged for longer than the server remembers, it cannot be told", async () => {
  const { clock, server, client } = world(["websocket"], { idempotencyWindowMs: 60_000 });
  await clock.advance(0);
  server.fuse = 2;
  server.onBurn = () => (server.isDown = true);
  const sent = client.publish("a", 1);
  sent.catch(() => {});
  await clock.advance(10);
  const held = client.publish("a", 2); // was never sent
  await clock.advance(200_000);
  server.isDown = false;
  await clock.advance(61_000);
  await assert.rejects(sent, { code: "uncertain" });
  assert.equal((await held).position, "aaaa.2");
  client.close();
});

test("what is refused for a moment is not overtaken by what was sent behind it", async () => {
  for (const transport of ALL) {
    for (let refused = 1; refused < 8; refused += 1) {
      const { clock, server, client } = world([transport]);
      await clock.advance(0);
      server.patience = refused;
      const answers = [1, 2, 3, 4].map((data) => client.publish("a", data));
      await clock.advance(100);
      answers.push(...[5, 6, 7, 8].map((data) => client.publish("a", data)));
      await clock.advance(10_000);
      await Promise.all(answers);
      const log = server.log.map(({ data }) => data);
      assert.deepEqual(log, [1, 2, 3, 4, 5, 6, 7, 8], `${transport}, the ${refused}th is refused`);
      client.close();
    }
  }
});

test("what a server refuses for now is sent again when it says", async () => {
  for (const transport of ALL) {
    const { clock, server, client } = world([transport]);
    await clock.advance(0);
    let room = 2;
    /** @type {any[]} */
    const refused = [];
    server.answer = (what, fields) => {
      if (what === "ws publish") {
        if (room-- > 0) return undefined;
        refused.push(fields.data);
        return { type: "error", code: "rate_limited", message: "later", retry_after_ms: 700 };
      }
      if (what !== "POST /v1/messages") return undefined;
      return json(
        fields.map((/** @type {any} */ each) => {
          if (room-- > 0) return server.publish(each.channel, each.data, each);
          refused.push(each.data);
          return { error: { code: "rate_limited", message: "later", retry_after_ms: 700 } };
        }),
      );
    };
    const answers = [1, 2, 3, 4, 5].map((data) => client.publish("a", data));
    await clock.advance(699);
    assert.deepEqual([server.log.map(({ data }) => data), refused], [[1, 2], [3, 4, 5]], transport);
    room = 100;
    await clock.advance(1);
    await Promise.all(answers);
    assert.deepEqual(server.log.map(({ data }) => data), [1, 2, 3, 4, 5], transport);
    client.close();
  }
});

test("a message that is too large for the connection is refused, and not sent for ever", async () => {
  const { clock, server, client } = world(["websocket"]);
  await clock.advance(0);
  server.answer = (what, { data }) => (what === "ws publish" && String(data).length > 100 ? 1009 : undefined);
  const large = client.publish("a", "x".repeat(1000));
  large.catch(() => {});
  const small = client.publish("a", "small");
  await clock.advance(5000);
  await assert.rejects(large, { code: "too_large" });
  assert.equal((await small).duplicate, false);
  client.close();
});

test("ephemeral messages do not wait, and are not sent again", async () => {
  for (const transport of ALL) {
    const { clock, server, client } = world([transport]);
    const dropped = { position: null, duplicate: false, dropped: true };
    assert.deepEqual(await client.publish("a", 1, { ephemeral: true }), dropped);
    await clock.advance(0);
    const sent = client.publish("a", 2, { ephemeral: true });
    await clock.advance(0);
    assert.deepEqual(await sent, { position: null, duplicate: false }, transport);
    server.fuse = 1;
    const lost = client.publish("a", 3, { ephemeral: true });
    await clock.advance(20_000);
    assert.deepEqual(await lost, dropped, transport);
    client.close();
  }
});

test("a call waits for a connection, but not longer than it may, and is made once", async () => {
  for (const transport of ALL) {
    const { clock, server, client } = world([transport]);
    let calls = 0;
    server.answer = (what, { method }) => {
      if (what === "ws call") return method === "hang" ? undefined : (calls++, { type: "result", data: 6 });
      if (what === "POST /v1/call") return calls++, method === "hang" ? new Promise(() => {}) : json({ data: 6 });
      return undefined;
    };
    server.isDown = true;
    const answer = client.call("add", [1, 2, 3]);
    const late = client.call("add", [], { timeoutMs: 500 });
    late.catch(() => {});
    await clock.advance(600);
    await assert.rejects(late, { code: "timeout" });
    server.isDown = false;
    await clock.advance(3000);
    assert.equal(await answer, 6, transport);
    assert.equal(calls, 1, transport);
    client.close();
    await assert.rejects(client.call("add"), { code: "closed" });
    await clock.advance(0);
    assert.equal(clock.pending, 0, transport);
  }
});

test("a call whose connection is lost fails, as only the caller knows whether to call again", async () => {
  const { clock, server, client } = world(["websocket"]);
  await clock.advance(0);
  server.answer = (what) => (what === "ws call" ? (server.cut(), { type: "result", data: 1 }) : undefined);
  const call = client.call("transfer");
  call.catch(() => {});
  await clock.advance(0);
  await assert.rejects(call, { code: "disconnected" });
  client.close();
});

test("close rejects what waits", async () => {
  const { clock, server, client } = world(["websocket"]);
  server.isDown = true;
  const [publish, call] = [client.publish("a", 1), client.call("x")];
  for (const each of [publish, call]) each.catch(() => {});
  client.close();
  await assert.rejects(publish, { code: "closed" });
  await assert.rejects(call, { code: "closed" });
  await clock.advance(0);
  assert.equal(clock.pending, 0);
});

test("a publisher that reads gets its own messages once", async () => {
  for (const transport of ALL) {
    const { clock, client } = world([transport]);
    const had = collect(client, "a");
    await clock.advance(0);
    for (let number = 0; number < 200; number += 1) client.publish("a", number);
    await clock.advance(10_000);
    assert.deepEqual(had, [...Array(200).keys()], transport);
    client.close();
  }
});
