/** Whatever happens on the way: every message once and in order, and every publish in the log once. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { ALL, collect, world } from "./world.js";

/** A small generator, so that a failing run can be run again. @param {number} seed */
function chances(seed) {
  return () => {
    seed = (seed * 1664525 + 1013904223) % 2 ** 32;
    return seed / 2 ** 32;
  };
}

for (const first of ALL) {
  test(`cut at every event of a conversation: ${first}`, async () => {
    for (let at = 1; at < 70; at += 1) {
      const { clock, server, client } = world([first]);
      for (let number = 0; number < 3; number += 1) server.publish("a", `old ${number}`);
      const had = [collect(client, "a", { since: "earliest" }), collect(client, "b", { last: 5 })];
      server.fuse = at;
      await clock.advance(3000);
      const answers = [];
      for (let number = 0; number < 8; number += 1) {
        answers.push(client.publish("a", `mine ${number}`));
        server.publish("b", `theirs ${number}`);
        if (number % 3 === 0) await clock.advance(700);
      }
      await clock.advance(60_000);
      await Promise.all(answers);
      for (const [number, channel] of ["a", "b"].entries()) {
        const log = server.log.filter((message) => message.channel === channel).map(({ data }) => data);
        assert.deepEqual(had[number], log, `cut at ${at}`);
      }
      const mine = server.log.filter(({ data }) => data.startsWith("mine")).map(({ data }) => data);
      assert.deepEqual(mine, [0, 1, 2, 3, 4, 5, 6, 7].map((number) => `mine ${number}`), `cut at ${at}`);
      client.close();
      await clock.advance(0);
      assert.equal(server.connections.size, 0);
      assert.equal(clock.pending, 0, `cut at ${at}: a timer is left`);
    }
  });
}

test("anything at any time, on any transport", async () => {
  for (let seed = 1; seed <= 150; seed += 1) {
    const chance = chances(seed);
    const pick = (/** @type {any[]} */ list) => list[Math.floor(chance() * list.length)];
    const { clock, server, client } = world(ALL, { upgradeAfterMs: 5000 });
    const channels = ["a", "b", "c"];
    const had = new Map(channels.map((channel) => [channel, collect(client, channel, { since: "earliest" })]));
    const answers = [];
    for (let step = 0; step < 150; step += 1) {
      const what = chance();
      const place = String(step).padStart(3, "0");
      if (what < 0.3) server.publish(pick(channels), `theirs ${step}`);
      else if (what < 0.5) answers.push(client.publish(pick(channels), `mine ${place}`));
      else if (what < 0.56) server.cut();
      else if (what < 0.6) server.fuse = 1 + Math.floor(chance() * 20);
      else if (what < 0.63) server.blackHole();
      else if (what < 0.7) server.isSilent = false;
      else if (what < 0.73) {
        server.isDown = true;
        server.cut();
      } else if (what < 0.8) server.isDown = false;
      else if (what < 0.85) server.blocked = { [pick([...ALL, "post"])]: pick(["refuse", "hang"]) };
      else if (what < 0.88) server.blocked = { websocket: "refuse", sse: pick(["buffer", "refuse"]) };
      else if (what < 0.9) server.blocked = {};
      else if (what < 0.92) server.patience = 1 + Math.floor(chance() * 10);
      else if (what < 0.94) server.isBusy = !server.isBusy;
      else if (what < 0.97) for (const part of "abc") answers.push(client.publish("a", `mine ${place}${part}`));
      else await clock.advance(chance() * 20_000);
      if (chance() < 0.2) await clock.advance(chance() * 500);
    }
    Object.assign(server, { isDown: false, isSilent: false, blocked: {}, fuse: Infinity, isBusy: false, patience: Infinity });
    await clock.advance(1_500_000);
    const published = await Promise.allSettled(answers);
    for (const [channel, found] of had) {
      const log = server.log.filter((message) => message.channel === channel).map(({ data }) => data);
      assert.deepEqual(found, log, `seed ${seed}, channel ${channel}`);
    }
    const mine = server.log.filter(({ data }) => data.startsWith("mine")).map(({ data }) => data);
    assert.equal(new Set(mine).size, mine.length, `seed ${seed}: twice in the log`);
    assert.deepEqual(mine, mine.toSorted(), `seed ${seed}: out of order`);
    const failed = published.filter(({ status }) => status === "rejected");
    assert.ok(failed.every((/** @type {any} */ { reason }) => reason.code === "uncertain"), `seed ${seed}`);
    assert.ok(mine.length >= published.length - failed.length, `seed ${seed}: acknowledged, but not in the log`);
    assert.equal(client.state.transport, "websocket", `seed ${seed}: ${JSON.stringify(client.state)}`);
    client.close();
    await clock.advance(0);
    assert.equal(clock.pending, 0, `seed ${seed}: a timer is left`);
  }
});

/** Set the highest bit of the byte at which `text` stands, or of the first. @param {string} text @param {boolean} [isFirst] */
function damaging(text, isFirst = false) {
  return (/** @type {Uint8Array} */ bytes) => {
    const at = Buffer.from(bytes).indexOf(text);
    return at < 0 ? bytes : bytes.with(isFirst ? 0 : at, (bytes[isFirst ? 0 : at] ?? 0) | 0x80);
  };
}

for (const transport of ALL) {
  test(`what was damaged on its way is read again: ${transport}`, async () => {
    const { clock, server, client } = world([transport]);
    const had = collect(client, "a");
    await clock.advance(100);
    // A text inside of a frame is checked before the client sees it.
    server.damage = damaging("theirs 5", transport === "websocket");
    for (let number = 0; number < 10; number += 1) server.publish("a", `theirs ${number}`);
    await clock.advance(2500);
    assert.ok(!had.includes("theirs 6"));
    server.damage = (bytes) => bytes;
    await clock.advance(30_000);
    assert.deepEqual(had, server.log.map(({ data }) => data));
    assert.equal(client.state.state, "connected");
    client.close();
    await clock.advance(0);
    assert.equal(clock.pending, 0);
  });
}

test("an answer to a publish that was damaged is one that did not come", async () => {
  for (const transport of ALL) {
    const { clock, server, client } = world([transport]);
    await clock.advance(100);
    let left = 1;
    server.damage = (bytes) => {
      const isAnswer = Buffer.from(bytes).includes('"position"');
      return isAnswer && left-- > 0 ? bytes.slice(1) : bytes;
    };
    const answer = client.publish("a", 1);
    await clock.advance(30_000);
    assert.deepEqual(Object.keys(await answer), ["position", "duplicate"]);
    assert.equal(server.log.length, 1);
    client.close();
  }
});

test("what comes after a frame that cannot be read is not taken", async () => {
  const { clock, server, client } = world(["websocket"]);
  const had = collect(client, "a");
  await clock.advance(0);
  server.damage = (bytes) => (Buffer.from(bytes).includes("theirs 5") ? undefined : bytes);
  for (let number = 0; number < 10; number += 1) server.publish("a", `theirs ${number}`);
  await clock.advance(0);
  assert.equal(had.length, 5);
  server.damage = (bytes) => bytes;
  await clock.advance(5000);
  assert.deepEqual(had, server.log.map(({ data }) => data));
  client.close();
});

test("over a line on which only little gets through at once, all of it comes in the end", async () => {
  for (const transport of /** @type {const} */ (["longpoll", "poll"])) {
    const { clock, server, client } = world([transport]);
    for (let number = 0; number < 300; number += 1) server.publish("a", `theirs ${number}`);
    server.damage = (bytes) => (bytes.length > 1500 ? bytes.slice(0, 1000) : bytes);
    const had = collect(client, "a", { since: "earliest" });
    await clock.advance(3_600_000);
    assert.deepEqual(had, server.log.map(({ data }) => data));
    client.close();
  }
});
