import { fields } from "./credentials.js";

/**
 * What the four lanes share: the words they speak, and where the server is.
 *
 * A lane is one way of reading a channel. All four have the same small interface:
 *
 *     const lane = new SomeLane("news", events);
 *     lane.open(cursor);   // begin after `cursor`, and keep going: reconnect by yourself, from where you are
 *     lane.close();        // stop; nothing is told from here on
 *
 * and tell what happens through `events`. A lane keeps the cursor that it has reached and nothing else: that is all
 * that it takes to go on, on this lane or on any other.
 */

/**
 * A message as the server sends it (spec/protocol.md, section 7.1).
 * @typedef {object} Message
 * @property {"message"} type
 * @property {string} channel
 * @property {number} [seq] Its place in the log; ephemeral messages have none.
 * @property {string} id
 * @property {number} time Milliseconds since 1970, by the server's clock.
 * @property {string} event
 * @property {unknown} data What was published.
 */

/**
 * Between two positions messages may be missing (section 5).
 * @typedef {object} Gap
 * @property {string} from
 * @property {string} to
 * @property {"trimmed" | "epoch" | "slow"} reason
 * @property {string[]} channels
 */

/**
 * One who is in a channel (section 6.10).
 * @typedef {object} Member
 * @property {string} client
 * @property {string} [user]
 * @property {unknown} [info]
 * @property {unknown} [state]
 */

/**
 * What happens in a channel (section 7.6), and what is said to this client alone (7.7).
 * @typedef {{ type: "join" | "update" | "leave", channel: string, member: Member, seq: number }} Coming
 * @typedef {{ type: "count", channel: string, clients: number, users: number, seq: number }} Count
 * @typedef {{ type: "signal", channel: string, from: string, user?: string, data: unknown, seq: number }} Signal
 * @typedef {Coming | Count | Signal} Push
 */

/**
 * The answer to who is there; `members` is null where they are too many.
 * @typedef {object} Presence
 * @property {string} channel
 * @property {string} client The name of who asked.
 * @property {Member[] | null} members
 * @property {number} clients
 * @property {number} users
 * @property {string} cursor Everything up to there is in the list.
 */

/** @typedef {"opening" | "live" | "waiting" | "failed"} LaneState */

/**
 * What a lane tells.
 * @typedef {object} LaneEvents
 * @property {(state: LaneState, detail?: string, code?: string) => void} onstate With the server's code for a failure.
 * @property {(messages: Message[], cursor: string) => void} onmessages New messages, and the cursor after them.
 * @property {(gap: Gap) => void} ongap
 * @property {(push: Push, cursor: string) => void} onpush Who comes, who goes, and direct messages.
 * @property {(answer: Presence) => void} onpresence Who is there, as this lane was answered when it entered.
 * @property {(user: string | undefined, expires_in_ms: number | undefined) => void} onidentity Whom the server sees.
 * @property {(exact: number, estimated: number) => void} onbytes Bytes that crossed the wire since the last call.
 */

/**
 * What a lane wants of presence, asked anew for every connection and question.
 * @typedef {object} Attendance
 * @property {(isConnection: boolean) => "enter" | "watch" | undefined} wish
 * @property {() => unknown} state What the others see of this client.
 */

/**
 * @typedef {object} Lane
 * @property {(cursor: string) => void} open
 * @property {() => void} close
 */

/** The close codes after which coming back with the same token would not help (section 12.2), and what they mean. */
export const FINAL_CLOSES = new Map([
  [4002, "expired"],
  [4500, "unauthorized"],
  [4501, "forbidden"],
  [4502, "revoked"],
]);

/** The server's answer to a request that failed, as an error with a sentence to show. */
export class Refused extends Error {
  /** @param {number} status @param {string} detail @param {string} [code] One of section 12.1. */
  constructor(status, detail, code = "") {
    super(detail);
    this.status = status;
    this.code = code;
  }

  /** Whether asking the same again would be in vain. */
  get isFinal() {
    return this.status >= 400 && this.status < 500 && this.status !== 408 && this.status !== 429;
  }
}

/**
 * The address of a door, relative to the page, so that it is found under any prefix.
 * @param {string} path
 * @param {Record<string, string>} [query]
 */
export function address(path, query = {}) {
  const url = new URL(path, document.baseURI);
  url.search = new URLSearchParams(query).toString();
  return url;
}

/**
 * Raise what an answer says is wrong (problem+json, RFC 9457).
 * @param {Response} response
 */
export async function check(response) {
  if (response.ok) return;
  const problem = await response.json().catch(() => ({}));
  throw new Refused(response.status, problem.detail ?? `the server answered ${response.status}`, problem.code);
}

/**
 * Ask for what an address has.
 * @param {string} path @param {Record<string, string>} [query] @param {AbortSignal} [signal]
 */
export async function ask(path, query = {}, signal) {
  const response = await fetch(address(path, query), { headers: fields(), cache: "no-store", signal });
  await check(response);
  return response.json();
}

/**
 * Have something done. With `outlives` the browser sends it even where the page is being closed.
 * @param {string} path @param {object} body @param {{ outlives?: boolean, signal?: AbortSignal }} [options]
 */
export async function order(path, body, { outlives = false, signal } = {}) {
  const headers = fields({ "content-type": "application/json" });
  const response = await fetch(address(path), {
    method: "POST",
    headers,
    body: JSON.stringify(body),
    keepalive: outlives,
    signal,
  });
  await check(response);
  return response.json();
}
