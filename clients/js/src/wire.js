/**
 * What goes over the wire, as types; nothing here runs.
 *
 * @typedef {object} Message
 * A published message (spec/protocol.md, section 7.1).
 * @property {"message"} type
 * @property {string} channel
 * @property {number} [seq] Its place in the log; ephemeral messages have none.
 * @property {string} [position] The same with the log's epoch: good for `since`, `before` and `expect`.
 * @property {string} id
 * @property {number} time Milliseconds since 1970, by the server's clock.
 * @property {string} event
 * @property {string} [key]
 * @property {boolean} [ephemeral]
 * @property {any} data
 *
 * @typedef {object} Gap
 * Between `from` and `to`, messages of `channels` may be missing (section 5).
 * @property {string} from
 * @property {string} to
 * @property {"trimmed" | "epoch" | "slow"} reason
 * @property {string[]} channels
 *
 * @typedef {object} Published
 * @property {string | null} position Null for an ephemeral message.
 * @property {boolean} duplicate
 * @property {boolean} [dropped] An ephemeral message that found no connection.
 *
 * @typedef {object} Page
 * @property {Message[]} messages
 * @property {string} cursor
 * @property {Gap | null} gap
 *
 * @typedef {object} Member
 * @property {string} client
 * @property {string} [user]
 * @property {any} [info] What the member's token says of it.
 * @property {any} [state] What the member says of itself.
 * @property {number} [entered] When it came in, in milliseconds since 1970, the same for everybody.
 *
 * @typedef {object} Signal
 * A message to this client alone.
 * @property {string} channel
 * @property {string} from
 * @property {string} [user]
 * @property {string} event
 * @property {any} data
 * @property {string} id
 * @property {number} time
 * @property {number} [seq]
 *
 * @typedef {object} PresencePush
 * @property {"join" | "update" | "leave" | "count"} type
 * @property {string} channel
 * @property {Member} [member]
 * @property {number} [clients]
 * @property {number} [users]
 * @property {number} [seq]
 *
 * @typedef {object} PresenceReply
 * @property {string} channel
 * @property {string} client The asker's own.
 * @property {Member[] | null} members Null where there are too many to name.
 * @property {number} clients
 * @property {number} users
 * @property {string} cursor Nothing after it is in it yet.
 */
export {};
