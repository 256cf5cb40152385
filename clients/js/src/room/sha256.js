/**
 * SHA-256 (FIPS 180-4) of what comes bit by bit: `crypto.subtle` wants all of it at once, and is not there in pages
 * without TLS.
 */

const K = new Uint32Array(64);
const START = new Uint32Array(8);
{
  // Section 4.2.2 and 5.3.3: the first 32 bits of the fractions of the roots of the first primes.
  const fraction = (/** @type {number} */ root) => (root - Math.floor(root)) * 2 ** 32;
  for (let candidate = 2, count = 0; count < 64; candidate += 1) {
    let isPrime = true;
    for (let by = 2; by * by <= candidate; by += 1) if (candidate % by === 0) isPrime = false;
    if (!isPrime) continue;
    if (count < 8) START[count] = fraction(Math.sqrt(candidate));
    K[count] = fraction(Math.cbrt(candidate));
    count += 1;
  }
}

export class Sha256 {
  #state = START.slice();
  #block = new Uint8Array(64);
  #words = new Int32Array(64);
  #held = 0;
  /** Bytes so far. */
  length = 0;

  /** @param {Uint8Array} bytes */
  update(bytes) {
    this.length += bytes.length;
    let at = 0;
    if (this.#held > 0) {
      at = Math.min(64 - this.#held, bytes.length);
      this.#block.set(bytes.subarray(0, at), this.#held);
      this.#held += at;
      if (this.#held < 64) return;
      this.#compress(this.#block, 0);
      this.#held = 0;
    }
    for (; at + 64 <= bytes.length; at += 64) this.#compress(bytes, at);
    this.#block.set(bytes.subarray(at), 0);
    this.#held = bytes.length - at;
  }

  /** The digest in hexadecimal; nothing can be added after it. */
  hex() {
    const bits = this.length * 8;
    const end = new Uint8Array((this.#held < 56 ? 64 : 128) - this.#held);
    end[0] = 0x80;
    const view = new DataView(end.buffer);
    view.setUint32(end.length - 8, Math.floor(bits / 2 ** 32));
    view.setUint32(end.length - 4, bits % 2 ** 32);
    this.update(end);
    return Array.from(this.#state, (word) => word.toString(16).padStart(8, "0")).join("");
  }

  /** @param {Uint8Array} bytes @param {number} at */
  #compress(bytes, at) {
    const w = this.#words;
    const s = this.#state;
    const word = (/** @type {Int32Array | Uint32Array} */ all, /** @type {number} */ index) => /** @type {number} */ (all[index]);
    for (let t = 0; t < 16; t += 1, at += 4) {
      w[t] = (bytes[at] ?? 0) << 24 | (bytes[at + 1] ?? 0) << 16 | (bytes[at + 2] ?? 0) << 8 | (bytes[at + 3] ?? 0); // prettier-ignore
    }
    for (let t = 16; t < 64; t += 1) {
      const x = word(w, t - 15);
      const y = word(w, t - 2);
      const s0 = (x >>> 7 | x << 25) ^ (x >>> 18 | x << 14) ^ (x >>> 3); // prettier-ignore
      const s1 = (y >>> 17 | y << 15) ^ (y >>> 19 | y << 13) ^ (y >>> 10); // prettier-ignore
      w[t] = (word(w, t - 16) + s0 + word(w, t - 7) + s1) | 0;
    }
    let a = word(s, 0) | 0, b = word(s, 1) | 0, c = word(s, 2) | 0, d = word(s, 3) | 0; // prettier-ignore
    let e = word(s, 4) | 0, f = word(s, 5) | 0, g = word(s, 6) | 0, h = word(s, 7) | 0; // prettier-ignore
    for (let t = 0; t < 64; t += 1) {
      const s1 = (e >>> 6 | e << 26) ^ (e >>> 11 | e << 21) ^ (e >>> 25 | e << 7); // prettier-ignore
      const t1 = (h + s1 + ((e & f) ^ (~e & g)) + word(K, t) + word(w, t)) | 0;
      const s0 = (a >>> 2 | a << 30) ^ (a >>> 13 | a << 19) ^ (a >>> 22 | a << 10); // prettier-ignore
      const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      h = g; g = f; f = e; e = (d + t1) | 0; d = c; c = b; b = a; a = (t1 + t2) | 0; // prettier-ignore
    }
    [a, b, c, d, e, f, g, h].forEach((value, index) => (s[index] = word(s, index) + value));
  }
}
