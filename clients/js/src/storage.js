/** @param {"localStorage" | "sessionStorage"} kind @returns {Storage | undefined} */
function storage(kind) {
  try {
    // Node warns of one that it has no file for; and a browser may forbid even to look.
    return globalThis.document ? globalThis[kind] : undefined;
  } catch {
    return undefined;
  }
}

/** A text that nobody else has. */
export function randomId() {
  // Pages without TLS have no randomUUID.
  if (globalThis.crypto.randomUUID) return globalThis.crypto.randomUUID();
  const bytes = globalThis.crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** @param {"localStorage" | "sessionStorage"} kind @param {string} key @param {string} value */
function keep(kind, key, value) {
  try {
    storage(kind)?.setItem(key, value);
  } catch {
    // full, or forbidden: it is not needed
  }
}

/** The secret of this tab, which makes it the same client after a reload. @param {URL} base */
export function sessionOf(base) {
  const key = `tellwire.session ${base}`;
  const known = storage("sessionStorage")?.getItem(key);
  if (known) return known;
  const session = randomId();
  keep("sessionStorage", key, session);
  return session;
}

/** The transport that worked the last time. @param {URL} base */
export function memoryOf(base) {
  const key = `tellwire.transport ${base}`;
  /** @type {string | null} */
  let known = storage("localStorage")?.getItem(key) ?? null;
  return {
    get: () => known,
    set: (/** @type {string} */ name) => {
      if (name !== known) keep("localStorage", key, name);
      known = name;
    },
  };
}
