/** The token: where it is put in, kept for this tab only, and asked for when the server wants one. */

import { get, say } from "./elements.js";
import { credentials } from "./lanes/credentials.js";

/** A JSON Web Token in its compact form; the server says what is wrong with it, this only what is none at all. */
const TOKEN = /^[\w-]+\.[\w-]+\.[\w-]*$/;

/** What the server's codes mean to whoever sits here. @type {Record<string, string>} */
const ASKED = {
  unauthorized: "This server wants a token, and does not take this one.",
  none: "This server wants a token.",
  expired: "Your token has expired. Put in a fresh one; nothing is lost in between.",
  revoked: "Your token was revoked. Put in another one.",
  forbidden: "This token may not do that here. Put in another one, or choose another channel.",
};

/** Codes that another token would help against. @param {string | undefined} code */
export function wantsToken(code) {
  return code === "unauthorized" || code === "expired" || code === "revoked";
}

export class SignIn {
  /** @param {() => void} onchange There is another token, or none any more. */
  constructor(onchange) {
    this.onchange = onchange;
    get("token-open").addEventListener("click", () => this.#show(get("sign-in").hidden));
    get("sign-in").addEventListener("submit", (/** @type {SubmitEvent} */ event) => {
      event.preventDefault();
      this.#use(get("token").value);
    });
    get("token-forget").addEventListener("click", () => this.#change(""));
    this.#draw();
  }

  /** Ask for a token. @param {string} code Why: one of spec/protocol.md, section 12.1. */
  ask(code) {
    this.#show(true);
    const why = code === "unauthorized" && !credentials.token ? "none" : code;
    say(get("token-why"), ASKED[why] ?? ASKED.unauthorized);
    get("sign-in").dataset.code = why;
    this.signedIn(undefined, undefined);
  }

  /** The server takes this client. @param {string | undefined} user @param {number | undefined} expires_in_ms */
  signedIn(user, expires_in_ms) {
    const until = expires_in_ms === undefined ? undefined : new Date(Date.now() + expires_in_ms);
    const words = [];
    if (user !== undefined) words.push(`Signed in as ${user}`);
    if (until) words.push(`${words.length > 0 ? "until" : "Signed in until"} ${shortTime(until)}`);
    say(get("identity"), words.join(" "));
  }

  /** Whatever was asked is answered. */
  done() {
    if (get("sign-in").dataset.code) this.#show(false);
  }

  /** @param {string} text */
  #use(text) {
    // It may have been copied with the name of its field, or quotes around it.
    const token = text.trim().replace(/^bearer\s+/i, "").replace(/^["']|["']$/g, "");
    if (TOKEN.test(token)) this.#change(token);
    else say(get("token-why"), "That is not a token: it has three parts of letters, digits, - and _, joined by dots.");
  }

  /** @param {string} token */
  #change(token) {
    credentials.token = token;
    get("token").value = "";
    this.#show(false);
    this.#draw();
    this.signedIn(undefined, undefined);
    this.onchange();
  }

  #draw() {
    get("token-forget").hidden = !credentials.token;
  }

  /** @param {boolean} isShown */
  #show(isShown) {
    get("sign-in").hidden = !isShown;
    get("token-open").setAttribute("aria-expanded", String(isShown));
    delete get("sign-in").dataset.code;
    say(get("token-why"), "");
    this.#draw();
    if (isShown) get("token").focus();
  }
}

/** @param {Date} time */
function shortTime(time) {
  const isToday = time.toDateString() === new Date().toDateString();
  const clock = time.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
  return isToday ? clock : `${time.toLocaleDateString("en-GB", { day: "numeric", month: "short" })}, ${clock}`;
}
