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

/** @typedef {"opening" | "live" | "waiting" | "failed"} LaneState */

/**
 * What a lane tells.
 * @typedef {object} LaneEvents
 * @property {(state: LaneState, detail?: string) => void} onstate
 * @property {(messages: Message[], cursor: string) => void} onmessages New messages, and the cursor after them.
 * @property {(gap: Gap) => void} ongap
 * @property {(exact: number, estimated: number) => void} onbytes Bytes that crossed the wire since the last call.
 */

/**
 * @typedef {object} Lane
 * @property {(cursor: string) => void} open
 * @property {() => void} close
 */

/** The server's answer to a request that failed, as an error with a sentence to show. */
export class Refused extends Error {
  /** @param {number} status @param {string} detail */
  constructor(status, detail) {
    super(detail);
    this.status = status;
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
  throw new Refused(response.status, problem.detail ?? `the server answered ${response.status}`);
}
