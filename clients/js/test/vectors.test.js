/** The examples that every implementation has to reproduce: spec/vectors. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { Backoff, waitMs } from "../src/backoff.js";
import { Place, checkSince, parseCursor, parsePosition } from "../src/cursor.js";
import { TellwireError, closed, refused } from "../src/errors.js";
import { SseParser } from "../src/sse-parser.js";
import { FakeClock } from "./fake-clock.js";

const SPEC = new URL("../../../spec/", import.meta.url);
const load = (/** @type {string} */ path) => JSON.parse(readFileSync(new URL(path, SPEC), "utf8"));
const vectors = (/** @type {string} */ name) => load(`vectors/${name}.json`);

/** @param {any} cases @param {(each: any) => void} check */
function every(cases, check) {
  assert.ok(cases.length > 0);
  for (const each of cases) {
    try {
      check(each);
    } catch (error) {
      throw new Error(`${JSON.stringify(each)}: ${error}`, { cause: error });
    }
  }
}
const INVALID_CURSOR = (/** @type {any} */ error) => error instanceof TellwireError && error.code === "invalid_cursor";

test("backoff: the wait after so many failures", () => {
  every(vectors("backoff").cases, ({ failures, random, wait_ms }) => assert.equal(waitMs(failures, random), wait_ms));
});

test("backoff: what the server told wins", () => {
  every(vectors("backoff").told, ({ failures, reconnect_in_ms, retry_ms, wait_ms }) => {
    assert.equal(waitMs(failures, 1, reconnect_in_ms ?? retry_ms), wait_ms);
  });
});

test("backoff: it begins anew after one that worked", () => {
  every(vectors("backoff").reset, ({ outcomes, base_ms }) => {
    const backoff = new Backoff(new FakeClock());
    const waits = outcomes.map((/** @type {string} */ outcome) => {
      if (outcome === "fail") return backoff.next();
      backoff.reset();
      return null;
    });
    assert.deepEqual(waits, base_ms);
  });
});

test("positions", () => {
  const { positions, cursors, invalid_positions, invalid_cursors } = vectors("positions");
  every(positions, ({ text, epoch }) => {
    const position = parsePosition(text);
    assert.equal(position.epoch, epoch);
    assert.equal(`${position.epoch}.${position.seq}`, text);
  });
  every(cursors, ({ text, parts }) => {
    const found = parseCursor(text);
    assert.deepEqual(found.map(({ epoch, seq }) => [epoch, Number(seq)]), parts.map((/** @type {any} */ part) => [part.epoch, part.seq]));
    assert.equal(found.map(({ epoch, seq }) => `${epoch}.${seq}`).join(), text);
  });
  every(invalid_positions, (text) => assert.throws(() => parsePosition(text), INVALID_CURSOR));
  every(invalid_cursors, (text) => assert.throws(() => parseCursor(text), INVALID_CURSOR));
});

test("since", () => {
  every(vectors("since").cases, ({ since, error }) => {
    // JavaScript has no such integers: they have to be written as texts.
    if (typeof since === "number" && since > Number.MAX_SAFE_INTEGER) error = "invalid_cursor";
    if (error) assert.throws(() => checkSince(since), INVALID_CURSOR);
    else checkSince(since);
  });
});

test("gaps: a reader has the messages, is told of the gap, and stands at the cursor", () => {
  const { epoch, cases } = vectors("gaps");
  every(cases, ({ publish, read, seqs, gap, cursor }) => {
    const places = new Map(read.channels.map((/** @type {string} */ name) => [name, new Place()]));
    if (String(read.since).includes(".")) for (const place of places.values()) place.at(read.since);
    const told = [...places].filter(([name, place]) => gap?.channels.includes(name) && place.gap(gap)).map(([name]) => name);
    const had = seqs.filter((/** @type {number} */ seq) => places.get(publish[seq - 1])?.take(epoch, seq));
    for (const place of places.values()) place.at(cursor);
    assert.deepEqual(had, seqs);
    assert.deepEqual(told, gap ? gap.channels : []);
    for (const place of places.values()) assert.equal(place.cursor, cursor);
    // The same answer once more, over another connection: nothing in it is news.
    assert.ok(![...places].some(([name, place]) => gap?.channels.includes(name) && place.gap(gap) && gap.reason !== "epoch"));
    assert.ok(!seqs.some((/** @type {number} */ seq) => places.get(publish[seq - 1])?.take(epoch, seq)) || gap?.reason === "epoch");
  });
});

test("sse: what a parser dispatches", () => {
  every(vectors("sse").streams, ({ chunks, events, last_event_id, retry_ms }) => {
    /** @type {any[]} */
    const found = [];
    const parser = new SseParser((event) => found.push({ ...event }));
    for (const chunk of chunks) {
      parser.feed(typeof chunk === "string" ? new TextEncoder().encode(chunk) : Buffer.from(chunk.hex, "hex"));
    }
    assert.deepEqual(found, events);
    assert.equal(parser.lastEventId, last_event_id);
    assert.equal(parser.retryMs, retry_ms);
  });
});

test("sse: the same in every cut of one byte", () => {
  every(vectors("sse").messages, ({ stream, message, epoch }) => {
    /** @type {any[]} */
    const found = [];
    const parser = new SseParser((event) => found.push(event));
    for (const byte of new TextEncoder().encode(stream)) parser.feed(Uint8Array.of(byte));
    const id = message.seq ? `${epoch}.${message.seq}` : "";
    assert.deepEqual(found, [{ event: message.event, data: message.data, id }]);
  });
});

test("codes: who comes back after which close code", () => {
  every(load("codes.json").close_codes, ({ code, reconnect }) => assert.equal(!closed(code).isFinal, reconnect));
});

test("codes: an answer is what its problem says, or its status", async () => {
  for (const { code, status } of load("codes.json").errors) {
    const body = JSON.stringify({ code, status, detail: "why" });
    const error = await refused(new Response(body, { status, headers: { "Retry-After": "3" } }));
    assert.deepEqual([error.code, error.status, error.message, error.retryAfterMs], [code, status, "why", 3000]);
  }
  assert.equal((await refused(new Response("<html>", { status: 502 }))).code, "internal");
  assert.equal((await refused(new Response("<html>", { status: 401 }))).code, "unauthorized");
});
