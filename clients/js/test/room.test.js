/** What a room stands on, without a browser: streams over bad lanes, checksums, negotiation, recovery, transfers. */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { test } from "node:test";
import { Files } from "../src/room/files.js";
import { Mail, fromBase64, toBase64 } from "../src/room/mail.js";
import { Negotiation } from "../src/room/negotiation.js";
import { Recovery } from "../src/room/recovery.js";
import { Sha256 } from "../src/room/sha256.js";
import { MESSAGE_MAX_BYTES, Stream } from "../src/room/stream.js";
import { TellwireError } from "../src/errors.js";
import { FakeClock, settle } from "./fake-clock.js";

test("SHA-256 is that of everybody, however the bytes come", () => {
  for (const size of [0, 1, 55, 56, 63, 64, 65, 119, 120, 128, 1000, 100_003]) {
    const bytes = new Uint8Array(randomBytes(size));
    const ours = new Sha256();
    for (let at = 0; at < size; ) {
      const step = 1 + Math.floor(Math.random() * 150);
      ours.update(bytes.subarray(at, at + step));
      at += step;
    }
    assert.equal(ours.hex(), createHash("sha256").update(bytes).digest("hex"), `${size} bytes`);
  }
});

test("base64 there and back", () => {
  const bytes = new Uint8Array(randomBytes(50_001));
  assert.equal(toBase64(bytes), Buffer.from(bytes).toString("base64"));
  assert.deepEqual(fromBase64(toBase64(bytes)), bytes);
});

/**
 * Two streams, and lanes between them that do to frames what they are told.
 * @param {{lose?: () => boolean}} [how]
 */
function ends({ lose = () => false } = {}) {
  const clock = new FakeClock();
  /** @type {[any[], any[]]} */
  const had = [[], []];
  const streams = [0, 1].map((side) => new Stream(1, clock, (data) => had[side]?.push(data)));
  const [left, right] = /** @type {[Stream, Stream]} */ (streams);
  let isUp = true;
  let flying = 0;
  /** @param {"direct" | "channel"} name @param {Stream} to @returns {import("../src/room/stream.js").Lane} */
  const lane = (name, to) => ({
    name,
    windowBytes: 100_000,
    get isWritable() {
      return isUp;
    },
    write: (_, frame) => {
      if (!isUp || lose()) return;
      flying += frame.length;
      setImmediate(() => {
        flying -= frame.length;
        to.take(frame);
      });
    },
  });
  const use = (/** @type {"direct" | "channel"} */ name) => {
    left.use(lane(name, right));
    right.use(lane(name, left));
  };
  use("direct");
  return { clock, had, left, right, use, flying: () => flying, cut: (/** @type {boolean} */ cut) => (isUp = !cut) };
}

const numbers = (/** @type {number} */ count) => Array.from({ length: count }, (_, number) => String(number));

test("a stream delivers both kinds, in order, and forgets what has arrived", async () => {
  const { clock, had, left } = ends();
  left.send("one");
  left.send(new Uint8Array([1, 2]));
  left.send("");
  await clock.advance(100);
  assert.deepEqual(had[1], ["one", new Uint8Array([1, 2]), ""]);
  assert.equal(left.bufferedAmount, 0);
});

test("a stream over lanes that lose, and change, loses and doubles nothing", async () => {
  let chance = 1;
  // A small generator of its own, so that a failure can be seen again.
  const random = () => (chance = (chance * 48_271) % 2_147_483_647) / 2_147_483_647;
  const { clock, had, left, right, use } = ends({ lose: () => random() < 0.1 });
  for (const number of numbers(2000)) {
    left.send(number);
    if (Number(number) % 3 === 0) right.send(number);
    if (Number(number) % 100 === 0) {
      use(Number(number) % 200 ? "direct" : "channel");
      await clock.advance(10);
    }
  }
  for (let turn = 0; turn < 2000 && left.bufferedAmount + right.bufferedAmount > 0; turn += 1) await clock.advance(1000);
  assert.deepEqual(had[1], numbers(2000));
  assert.deepEqual(had[0], numbers(2000).filter((number) => Number(number) % 3 === 0));
});

test("what is on its way is bounded by the window, what waits by a limit, and what is too large is refused", async () => {
  const { clock, had, left, cut, flying } = ends();
  left.send(new Uint8Array(MESSAGE_MAX_BYTES));
  assert.throws(() => left.send(new Uint8Array(MESSAGE_MAX_BYTES + 1)), { code: "too_large" });
  assert.throws(() => left.send("é".repeat(MESSAGE_MAX_BYTES / 2 + 1)), { code: "too_large" });
  for (let more = 0; more < 20; more += 1) left.send(new Uint8Array(40_000));
  assert.ok(flying() < 200_000);
  await clock.advance(1000);
  assert.equal(had[1].length, 21);
  cut(true);
  assert.throws(() => {
    for (;;) left.send(new Uint8Array(40_000));
  }, { code: "outbox_full" }); // prettier-ignore
  assert.ok(left.bufferedAmount < 9 * 1024 * 1024);
  const waiting = left.drained(0);
  left.close();
  await assert.rejects(waiting, { code: "closed" });
  assert.throws(() => left.send("x"), { code: "closed" });
});

test("frames that are none change nothing", async () => {
  const { clock, had, left, right } = ends();
  for (const bytes of [[], [2], [9, 0, 0, 0, 1, 7], [2, 255, 255, 255, 255, 7], [0, 255, 255, 255, 255], [1, 0, 0, 0, 9]]) {
    left.take(Uint8Array.from(bytes));
    right.take(Uint8Array.from(bytes));
  }
  left.send("still");
  await clock.advance(100);
  assert.deepEqual(had, [[], ["still"]]);
});

/** As much of a peer connection as negotiation sees: descriptions, in the states of the specification. */
class FakePc {
  signalingState = "stable";
  /** @type {any} */
  localDescription = null;
  /** @type {string[]} */
  done = [];
  /** @type {any} */
  onnegotiationneeded;
  /** @type {any} */
  onicecandidate;
  isBroken = false;

  async setLocalDescription() {
    await settle();
    const type = this.signalingState === "have-remote-offer" ? "answer" : "offer";
    this.signalingState = type === "offer" ? "have-local-offer" : "stable";
    this.localDescription = { type, sdp: `${type} of ${this.done.length}` };
    this.done.push(`local ${type}`);
  }

  /** @param {{type: string}} description */
  async setRemoteDescription({ type }) {
    await settle();
    if (this.isBroken) throw new Error("not SDP");
    if (type === "offer" && this.signalingState === "have-local-offer") this.done.push("rollback");
    this.signalingState = type === "offer" ? "have-remote-offer" : "stable";
    this.done.push(`remote ${type}`);
  }

  async addIceCandidate() {
    if (!this.done.some((each) => each.startsWith("remote"))) throw new Error("too early");
    this.done.push("candidate");
  }
}

/** @param {boolean} isPolite @param {boolean} isCaller */
function negotiator(isPolite, isCaller) {
  const pc = new FakePc();
  /** @type {any[]} */
  const said = [];
  /** @type {any[]} */
  const failed = [];
  /** @type {any[]} */
  const yielded = [];
  const negotiation = new Negotiation(/** @type {any} */ (pc), {
    isPolite,
    isCaller,
    send: (signal) => said.push(signal),
    failed: (error) => failed.push(error),
    yield_: async (signal) => void yielded.push(signal),
  });
  return { pc, negotiation, said, failed, yielded };
}

const offer = { description: { type: /** @type {const} */ ("offer"), sdp: "theirs" } };
const answer = { description: { type: /** @type {const} */ ("answer"), sdp: "theirs" } };
const candidate = { candidate: { candidate: "candidate:1", sdpMid: "0" } };

test("who was not named waits for the call, and calls where none comes", async () => {
  const { pc, negotiation, said } = negotiator(true, false);
  pc.onnegotiationneeded();
  await settle();
  assert.equal(said.length, 0);
  negotiation.permit();
  await settle();
  assert.deepEqual(pc.done, ["local offer"]);
  assert.equal(said[0].description.type, "offer");
});

test("candidates that come before the offer wait for it, and are bounded", async () => {
  const { pc, negotiation, failed } = negotiator(true, false);
  for (let number = 0; number < 1000; number += 1) await negotiation.take(candidate);
  await negotiation.take(offer);
  assert.equal(pc.done.filter((each) => each === "candidate").length, 64);
  assert.deepEqual(failed, []);
});

test("first offers that collide: one is ignored with its candidates, the other side begins anew with it", async () => {
  const strong = negotiator(false, true);
  const weak = negotiator(true, true);
  for (const { pc } of [strong, weak]) pc.onnegotiationneeded();
  await settle();
  await strong.negotiation.take(weak.said[0]);
  await strong.negotiation.take(candidate);
  await weak.negotiation.take(strong.said[0]);
  assert.deepEqual(strong.pc.done, ["local offer"]);
  assert.deepEqual(weak.yielded, [strong.said[0]]);
  await strong.negotiation.take(answer);
  await strong.negotiation.take(candidate);
  assert.deepEqual(strong.pc.done, ["local offer", "remote answer", "candidate"]);
  assert.deepEqual([...strong.failed, ...weak.failed], []);
});

test("later offers that collide are rolled back on one side", async () => {
  const weak = negotiator(true, false);
  await weak.negotiation.take(offer);
  weak.pc.onnegotiationneeded();
  await settle();
  await weak.negotiation.take(offer);
  assert.deepEqual(weak.pc.done.slice(-3), ["rollback", "remote offer", "local answer"]);
  assert.deepEqual(weak.yielded, []);
});

test("what is not SDP, or far too much of it, is told and changes nothing", async () => {
  const { pc, negotiation, failed } = negotiator(true, false);
  pc.isBroken = true;
  await negotiation.take(offer);
  await negotiation.take({ description: { type: "offer", sdp: "v=0\r\n" + "m=audio\r\n".repeat(100) } });
  assert.deepEqual(failed.map(({ message }) => message), ["not SDP", "a description has too many sections"]);
  pc.signalingState = "closed";
  await negotiation.take(offer);
  assert.equal(failed.length, 2);
});

test("recovery restarts at once, then further and further apart, then makes a new connection", async () => {
  const clock = new FakeClock();
  const start = clock.now();
  /** @type {[string, number][]} */
  const done = [];
  const note = (/** @type {string} */ what) => () => void done.push([what, (clock.now() - start) / 1000]);
  const what = { deadlineMs: 10_000, isFirst: true, late: note("late"), restart: note("restart"), rebuild: note("rebuild") };
  const recovery = new Recovery(clock, what);
  recovery.broken();
  recovery.broken();
  await clock.advance(60_000);
  assert.deepEqual(done, [["restart", 0], ["restart", 6], ["late", 10], ["restart", 18], ["rebuild", 37]]);
  recovery.recovered();
  await clock.advance(600_000);
  assert.equal(done.length, 5);
  // Nothing was heard for a moment, and then something was.
  recovery.doubted();
  await clock.advance(4000);
  recovery.recovered();
  await clock.advance(60_000);
  assert.equal(done.length, 5);
  recovery.lost();
  await clock.advance(1000);
  assert.equal(done.at(-1)?.[0], "rebuild");
  recovery.close();
  await clock.advance(600_000);
  assert.equal(clock.pending, 0);
});

test("mail goes one after the other, is sent again under its id, and stops at what cannot be", async () => {
  const clock = new FakeClock();
  /** @type {any[]} */
  const sent = [];
  /** @type {any[]} */
  const lost = [];
  let code = "";
  const mail = new Mail({
    clock,
    head: () => ({ g: 1 }),
    lost: (error) => lost.push(error.code),
    send: async (data, id) => {
      sent.push([id, data]);
      if (code) throw new TellwireError(code, "no");
    },
  });
  code = "timeout";
  mail.signal({ candidate: 1 });
  mail.signal({ candidate: 2 });
  mail.frame(1, new Uint8Array([1]));
  await settle();
  code = "";
  await clock.advance(1000);
  assert.equal(sent.length, 2);
  assert.equal(sent[0][0], sent[1][0]);
  assert.deepEqual(sent[1][1], { g: 1, signals: [{ g: 1, candidate: 1 }, { g: 1, candidate: 2 }], frames: [[1, "AQ=="]] });
  for (let frame = 0; frame < 5; frame += 1) mail.frame(1, new Uint8Array(30_000));
  await clock.advance(10);
  assert.ok(sent.every(([, data]) => JSON.stringify(data).length < 65_536));
  assert.equal(sent.length, 7);
  code = "too_large";
  mail.signal({});
  await settle();
  assert.deepEqual(lost, ["too_large"]);
});

test("a file goes on where the other page stands after both have lost each other", async () => {
  const clock = new FakeClock();
  const bytes = new Uint8Array(randomBytes(3_000_000));
  /** @type {any} */
  let offered;
  const [here, there] = [
    new Files(clock, 2 ** 30, () => false),
    new Files(clock, 2 ** 30, (file) => ((offered = file), true)),
  ]; // prettier-ignore
  /** Two peers, as each sees the other, and a wire that ends after so many bytes. */
  const connect = (/** @type {number} */ endsAfter) => {
    let left = endsAfter;
    const end = (/** @type {string} */ client, /** @type {() => any} */ to) => ({
      client,
      files: {
        bufferedAmount: 0,
        drained: async () => settle(),
        send: (/** @type {any} */ data) => {
          left -= data.length;
          if (left > 0) to()(data);
        },
      },
    });
    /** @type {any} */
    const toThere = end("there", () => (/** @type {any} */ data) => there.take(toHere, data));
    /** @type {any} */
    const toHere = end("here", () => (/** @type {any} */ data) => here.take(toThere, data));
    return { toThere, toHere };
  };
  const first = connect(1_500_000);
  const sending = here.send(first.toThere, new File([bytes], "a.bin"));
  const got = offered.accept();
  for (let turn = 0; turn < 100; turn += 1) await settle();
  const had = offered.bytes;
  assert.ok(had > 1_000_000 && had < 1_500_000);
  here.detach(first.toThere);
  there.detach(first.toHere);
  await clock.advance(30_000);
  const second = connect(Infinity);
  there.attach(second.toHere);
  here.attach(second.toThere);
  await sending.done;
  assert.deepEqual(new Uint8Array(await (await got).arrayBuffer()), bytes);
  // Whoever does not come back is waited for, but not for ever.
  const third = connect(1000);
  const lost = here.send(third.toThere, new File([bytes], "b.bin"));
  here.detach(third.toThere);
  await clock.advance(61_000);
  await assert.rejects(lost.done, { code: "disconnected" });
});
