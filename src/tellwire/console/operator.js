/** The operator's view: what is open, how fast it goes, who lags; live while it is looked at. */

import { Confirmation } from "./confirmation.js";
import { counted, element, get, grouped, say } from "./elements.js";
import { Backoff, pause } from "./lanes/backoff.js";
import { Refused, ask } from "./lanes/wire.js";
import { LiveTable } from "./live_table.js";
import { Sparkline } from "./sparkline.js";

/**
 * @typedef {object} Stats
 * @property {string} node
 * @property {string} version
 * @property {number} uptime_s
 * @property {Record<string, number>} connections
 * @property {number} channels
 * @property {number} lagging
 * @property {number} published
 * @property {number} delivered
 */

/**
 * @typedef {object} Connection
 * @property {string} client
 * @property {string | null} user
 * @property {string} transport
 * @property {string} address
 * @property {number} since
 * @property {string[]} channels
 * @property {number} channel_count
 * @property {number} lag
 */

/** @typedef {{ channel: string, readers: number, members: number, users: number, lag_max: number }} Channel */

/** Milliseconds between two looks. */
const EVERY_MS = 1000;

/** Rows that are asked for; there is always said how many more there are. */
const LIMIT = 50;

/** Channels of a connection that are named in its row. */
const NAMED = 3;

/** @type {Record<string, string>} */
const TRANSPORTS = {
  websocket: "WebSocket",
  sse: "SSE",
  stream: "NDJSON",
  longpoll: "long polling",
  poll: "short polling",
};

export class Operator {
  /** @type {AbortController | undefined} */
  #running;
  /** @type {{ at: number, published: number, delivered: number } | undefined} */
  #before;
  #user = "";
  #channel = "";
  #published = new Sparkline(get("published-line"));
  #delivered = new Sparkline(get("delivered-line"));
  #confirmation = new Confirmation(() => this.#running && this.start());
  #connections = new LiveTable(get("connections"), "No connection fits.");
  #channels = new LiveTable(get("channels"), "No channel is read at the moment.");

  /** @param {() => string} own This page's own client name. */
  constructor(own) {
    this.own = own;
    get("filter").addEventListener("submit", (/** @type {SubmitEvent} */ event) => {
      event.preventDefault();
      this.#filter(get("filter-user").value.trim(), get("filter-channel").value.trim());
    });
    get("filter-clear").addEventListener("click", () => this.#filter("", ""));
    document.addEventListener("visibilitychange", () => this.#running && this.start());
  }

  /** Whether whoever sits here may look; a server that cannot be reached is asked again. */
  async mayLook() {
    const backoff = new Backoff();
    for (;;) {
      try {
        await ask("v1/admin/stats");
        return true;
      } catch (error) {
        if (error instanceof Refused && error.isFinal) return false;
        await pause(backoff.next(), new AbortController().signal);
      }
    }
  }

  /** Look once a second, while the page is to be seen. */
  start() {
    this.#running?.abort();
    this.#running = new AbortController();
    this.#before = undefined;
    if (document.visibilityState === "visible") void this.#run(this.#running.signal);
  }

  stop() {
    this.#running?.abort();
    this.#running = undefined;
  }

  /** @param {AbortSignal} signal */
  async #run(signal) {
    const backoff = new Backoff();
    while (!signal.aborted) {
      let wait_ms = EVERY_MS;
      try {
        await this.#look(signal);
        if (signal.aborted) return;
        backoff.reset();
        this.#complain("");
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof Refused && (error.status === 401 || error.status === 403)) {
          this.#complain(`This can be looked at no longer: ${error.message}`);
          return;
        }
        wait_ms = backoff.next();
        const seconds = Math.round(wait_ms / 1000);
        const why = error instanceof Refused ? error.message : "the server cannot be reached";
        this.#complain(`What is below is old: ${why}. Trying again in ${counted(seconds, "second")}.`);
        this.#before = undefined;
      }
      await pause(wait_ms, signal);
    }
  }

  /** @param {string} text */
  #complain(text) {
    say(get("operator-complaint"), text);
    get("operator").classList.toggle("is-old", text !== "");
  }

  /**
   * One after the other: a browser opens few connections to one server, and the lanes need theirs.
   * @param {AbortSignal} signal
   */
  async #look(signal) {
    this.#drawStats(await ask("v1/admin/stats", {}, signal));
    /** @type {Record<string, string>} */
    const query = { limit: String(LIMIT) };
    if (this.#user) query.user = this.#user;
    if (this.#channel) query.channel = this.#channel;
    this.#drawConnections(await ask("v1/admin/connections", query, signal));
    const prefix = this.#channel; // where it is empty, all channels begin so
    this.#drawChannels(await ask("v1/admin/channels", { limit: String(LIMIT), prefix }, signal));
  }

  /** @param {string} user @param {string} channel */
  #filter(user, channel) {
    this.#user = user;
    this.#channel = channel;
    get("filter-user").value = user;
    get("filter-channel").value = channel;
    get("filter-clear").hidden = !user && !channel;
    if (this.#running) this.start();
  }

  /** @param {Stats} stats */
  #drawStats(stats) {
    const now = performance.now();
    const { published, delivered } = stats;
    const before = this.#before;
    // After a restart the totals begin anew.
    if (before && published >= before.published && delivered >= before.delivered && now > before.at) {
      const seconds = (now - before.at) / 1000;
      const rates = [(published - before.published) / seconds, (delivered - before.delivered) / seconds];
      this.#published.add(rates[0]);
      this.#delivered.add(rates[1]);
      say(get("published-rate"), rate(rates[0]));
      say(get("delivered-rate"), rate(rates[1]));
    }
    this.#before = { at: now, published, delivered };
    const kinds = Object.entries(stats.connections).sort(([, a], [, b]) => b - a);
    say(get("open-count"), grouped(kinds.reduce((sum, [, count]) => sum + count, 0)));
    const words = kinds.map(([kind, count]) => `${grouped(count)} ${TRANSPORTS[kind] ?? kind}`);
    say(get("open-kinds"), words.join(", ") || "none is open");
    say(get("published-total"), `${grouped(published)} since the start`);
    say(get("delivered-total"), `${grouped(delivered)} since the start`);
    say(get("lagging-count"), grouped(stats.lagging));
    get("lagging-count").classList.toggle("is-bad", stats.lagging > 0);
    say(get("lagging-words"), stats.lagging === 0 ? "everyone is up to date" : "take less than they are sent");
    const uptime = lasted(stats.uptime_s * 1000);
    const inUse = `${counted(stats.channels, "channel")} in use`;
    say(get("node"), `Node ${stats.node}, version ${stats.version}, up for ${uptime}, ${inUse}.`);
  }

  /** @param {{ connections: Connection[], total: number }} answer */
  #drawConnections({ connections, total }) {
    const now = Date.now();
    /** @type {Map<string, number>} */
    const twins = new Map();
    this.#connections.show(
      connections.map((each) => {
        const base = `${each.client} ${each.transport} ${each.since}`;
        const twin = twins.get(base) ?? 0;
        twins.set(base, twin + 1);
        const more = each.channel_count - NAMED;
        const named = each.channels.slice(0, NAMED).join(", ") || "none";
        return {
          key: `${base} ${twin}`,
          isBad: each.lag > 0,
          cells: [
            grouped(each.lag),
            (each.user ?? `client ${each.client}`) + (each.client === this.own() ? " (this page)" : ""),
            TRANSPORTS[each.transport] ?? each.transport,
            each.address || "unknown",
            lasted(now - each.since),
            more > 0 ? `${named} and ${grouped(more)} more` : named,
          ],
          titles: {
            1: `client ${each.client}`,
            4: `since ${new Date(each.since).toLocaleString("en-GB")}`,
            5: each.channels.join("\n"),
          },
          actions: () => this.#actions(each),
        };
      }),
      total,
    );
  }

  /** @param {Connection} connection */
  #actions({ client, user, transport }) {
    const who = user ?? `client ${client}`;
    const buttons = [
      action("Disconnect", `Disconnect ${who}, ${TRANSPORTS[transport] ?? transport}`, () =>
        this.#confirmation.disconnect(client, who),
      ),
    ];
    if (user !== null) {
      buttons.push(action("Revoke", `Revoke the tokens of ${user}`, () => this.#confirmation.revoke(user)));
    }
    return buttons;
  }

  /** @param {{ channels: Channel[], total: number }} answer */
  #drawChannels({ channels, total }) {
    this.#channels.show(
      channels.map((each) => ({
        key: each.channel,
        isBad: each.lag_max > 0,
        cells: [each.channel, ...[each.readers, each.members, each.users, each.lag_max].map(grouped)],
        titles: { 0: each.channel },
        actions: () => [
          action("Its readers", `Show the readers of ${each.channel}`, () => this.#filter("", each.channel)),
        ],
      })),
      total,
    );
  }
}

/** @param {string} text @param {string} label @param {() => void} act */
function action(text, label, act) {
  const button = element("button", "small-button", text);
  button.type = "button";
  button.setAttribute("aria-label", label);
  button.addEventListener("click", act);
  return button;
}

/** @param {number} perSecond */
function rate(perSecond) {
  return perSecond === 0 || perSecond >= 9.95 ? grouped(Math.round(perSecond)) : perSecond.toFixed(1);
}

/** How long something lasts, in its two largest units. @param {number} ms */
function lasted(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86_400)} d ${Math.floor((s % 86_400) / 3600)} h`;
}
