// Yjs over Tellwire: a document's updates over a durable channel, awareness (who is where) over an ephemeral one.
//
// Updates may come in any order and more than once, so nothing has to be settled between clients: the log is the
// document. Whoever joins reads the log from its beginning. As that holds only the newest messages, the whole document
// is published as one more update every SNAPSHOT_EVERY of them; the namespace has to keep several times as many.

import * as awarenessProtocol from "y-protocols/awareness.js";
import * as Y from "yjs";

const SNAPSHOT_EVERY = 200;

export class TellwireProvider {
  #ends = [];
  #updates;
  #sinceSnapshot = 0;

  /**
   * @param {import("tellwire").Tellwire} client
   * @param {string} channel Of the updates; awareness is in the same with `:awareness`.
   * @param {Y.Doc} doc
   */
  constructor(client, channel, doc, { onError = console.error } = {}) {
    Object.assign(this, { client, channel, doc, onError, awareness: new awarenessProtocol.Awareness(doc) });
    /** How many updates are not in the log yet. */
    this.waiting = 0;
    this.onWaiting = () => {};
    this.#readUpdates();
    this.#readAwareness();
  }

  /** Be here no more; the client stays open. */
  destroy() {
    awarenessProtocol.removeAwarenessStates(this.awareness, [this.doc.clientID], "local");
    for (const end of this.#ends.splice(0)) end();
    this.awareness.destroy();
  }

  #readUpdates() {
    this.#updates = this.client.subscribe(this.channel, {
      since: "earliest",
      onMessage: ({ event, data }) => {
        this.#sinceSnapshot = event === "snapshot" ? 0 : this.#sinceSnapshot + 1;
        Y.applyUpdate(this.doc, unpack(data), this);
      },
      // Updates were lost on the way here, or with the log: what this document has, it gives to all.
      onGap: () => this.#snapshot(),
      onError: this.onError,
    });
    /** Resolved when the log is being read. */
    this.ready = this.#updates.ready;
    const send = (update, origin) => {
      if (origin === this) return; // it came from the log
      this.#publish("update", update);
      this.#sinceSnapshot += 1;
      if (this.#sinceSnapshot >= SNAPSHOT_EVERY) this.#snapshot();
    };
    this.doc.on("update", send);
    this.#ends.push(() => this.doc.off("update", send), () => this.#updates.unsubscribe());
  }

  #snapshot() {
    this.#sinceSnapshot = 0;
    this.#publish("snapshot", Y.encodeStateAsUpdate(this.doc));
  }

  /** Without a connection the client keeps it, and sends it when there is one again. */
  async #publish(event, update) {
    this.#wait(1);
    try {
      await this.client.publish(this.channel, pack(update), { event, echo: false });
    } catch (error) {
      this.onError(error);
    } finally {
      this.#wait(-1);
    }
  }

  #wait(more) {
    this.waiting += more;
    this.onWaiting(this.waiting);
  }

  #readAwareness() {
    const { awareness, client } = this;
    const me = [this.doc.clientID];
    const channel = `${this.channel}:awareness`;
    const tell = (ids, event) => {
      const data = pack(awarenessProtocol.encodeAwarenessUpdate(awareness, ids));
      client.publish(channel, data, { event, ephemeral: true, echo: false }).catch(() => {});
    };
    const changed = ({ added, updated, removed }, origin) => origin !== this && tell([...added, ...updated, ...removed]);
    awareness.on("update", changed);
    // With a new clock, as others may have taken this one for gone.
    const renew = () => awareness.setLocalState(awareness.getLocalState());
    const hello = () => {
      renew();
      tell(me, "hello");
    };
    const subscription = client.subscribe(channel, {
      onMessage: ({ event, data }) => {
        awarenessProtocol.applyAwarenessUpdate(awareness, unpack(data), this);
        if (event === "hello") renew(); // who came does not know who is here
      },
    });
    // Presence knows for certain who is here, and misses who goes without a word (a crash, a tunnel, a closed laptop).
    const room = client.presence(channel);
    const ids = new Map(); // those that Yjs has for clients, by those that Tellwire has
    let timer;
    const check = () => {
      clearTimeout(timer);
      for (const { client, state } of room.members.values()) ids.set(client, state?.id);
      if ([...room.members.keys()].every((each) => awareness.getStates().has(ids.get(each)))) return;
      hello();
      timer = setTimeout(check, 1000); // what is ephemeral may be missed
    };
    room.on("members", check);
    room.on("leave", (member) => {
      awarenessProtocol.removeAwarenessStates(awareness, [ids.get(member.client)], this);
      ids.delete(member.client);
    });
    room.enter({ id: this.doc.clientID }).catch(this.onError);
    this.#ends.push(
      () => awareness.off("update", changed),
      () => subscription.unsubscribe(),
      () => clearTimeout(timer),
      () => room.close().catch(() => {}),
    );
  }
}

/** Bytes in JSON (spec/protocol.md, section 9); over MessagePack other clients get them as bytes. */
function pack(bytes) {
  return { $bytes: btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join("")) };
}

function unpack({ $bytes }) {
  return Uint8Array.from(atob($bytes), (letter) => letter.charCodeAt(0));
}
