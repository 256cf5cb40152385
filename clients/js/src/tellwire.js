export { Tellwire } from "./client.js";
export { TellwireError } from "./errors.js";
export { Presence } from "./presence.js";
export { Subscription } from "./subscription.js";

/**
 * @typedef {import("./client.js").Options} Options
 * @typedef {import("./client.js").PublishOptions} PublishOptions
 * @typedef {import("./connection.js").State} State
 * @typedef {import("./connection.js").TransportName} TransportName
 * @typedef {import("./room/room.js").Room} Room
 * @typedef {import("./room/room.js").RoomOptions} RoomOptions
 * @typedef {import("./room/peer.js").Peer} Peer
 * @typedef {import("./room/transfer.js").IncomingFile} IncomingFile
 * @typedef {import("./room/transfer.js").OutgoingFile} OutgoingFile
 * @typedef {import("./subscription.js").SubscribeOptions} SubscribeOptions
 * @typedef {import("./wire.js").Gap} Gap
 * @typedef {import("./wire.js").Member} Member
 * @typedef {import("./wire.js").Message} Message
 * @typedef {import("./wire.js").Page} Page
 * @typedef {import("./wire.js").Published} Published
 * @typedef {import("./wire.js").Signal} Signal
 */
