/** What this tab is known by: its token, its session, and a name. All of it is gone with the tab. */

/** For browsers that are told to store nothing. @type {Map<string, string>} */
const memory = new Map();

/** @param {string} key */
function read(key) {
  try {
    return sessionStorage.getItem(key) ?? "";
  } catch {
    return memory.get(key) ?? "";
  }
}

/** @param {string} key @param {string} value */
function write(key, value) {
  try {
    if (value) sessionStorage.setItem(key, value);
    else sessionStorage.removeItem(key);
  } catch {
    memory.set(key, value);
  }
}

/** 128 random bits. crypto.randomUUID() is for secure contexts only, and a page may come over plain HTTP. */
export function randomText() {
  return Array.from(crypto.getRandomValues(new Uint32Array(4)), (word) => word.toString(36)).join("-");
}

export const credentials = {
  get token() {
    return read("tellwire.token");
  },
  set token(token) {
    write("tellwire.token", token);
  },

  /** The secret behind this client's public name: with it a reload is the same client, on every wire. */
  get session() {
    if (!read("tellwire.session")) write("tellwire.session", randomText());
    return read("tellwire.session");
  },

  get name() {
    return read("tellwire.name");
  },
  set name(name) {
    write("tellwire.name", name);
  },

  get view() {
    return read("tellwire.view");
  },
  set view(view) {
    write("tellwire.view", view);
  },
};

/**
 * The fields that a request has besides others.
 * @param {Record<string, string>} [others]
 * @returns {Record<string, string>}
 */
export function fields(others = {}) {
  const { token } = credentials;
  return token ? { ...others, authorization: `Bearer ${token}` } : others;
}
