/**
 * What can be changed on the way, and where. The settings are those of docs/deploying.md, where they stand in whole
 * files that are tried with the real proxies; a test holds each line here against that page.
 *
 * @typedef {object} Change
 * @property {string} title
 * @property {string} why
 * @property {{ about: string, code: string }[]} settings
 */

/** @type {Record<string, Change>} */
export const CHANGES = {
  upgrade: {
    title: "Let WebSockets through",
    why:
      "A WebSocket begins as a request with the headers Upgrade and Connection, which a proxy takes for its own unless " +
      "it is told to pass them on. Caddy and HAProxy pass them on by themselves. TLS helps where somebody else's " +
      "proxy is in the way: few look inside.",
    settings: [
      {
        about: "nginx, in the location",
        code: [
          "proxy_http_version 1.1;",
          "proxy_set_header Upgrade $http_upgrade;",
          "proxy_set_header Connection $connection_upgrade;",
        ].join("\n"),
      },
      {
        about: "nginx, beside the servers (http)",
        code: ["map $http_upgrade $connection_upgrade {", "    default upgrade;", "    ''      '';", "}"].join("\n"),
      },
    ],
  },
  buffering: {
    title: "Do not hold streams back",
    why:
      "The server says X-Accel-Buffering: no and Cache-Control: no-cache in each stream. nginx obeys unless it has " +
      "proxy_ignore_headers X-Accel-Buffering, which has to go, or buffering has to be off. A virus scanner or a " +
      "company's proxy that reads answers whole has to leave out this address, or to be given TLS that it does not open.",
    settings: [{ about: "nginx, in the location", code: "proxy_buffering off;" }],
  },
  timeouts: {
    title: "Bear longer silence",
    why:
      "Something ends connections on which nothing comes. Streams have a sign of life every heartbeat_s (25 seconds) " +
      "and a poll waits for up to 25 seconds in the clients: whatever is in between has to be more patient than that.",
    settings: [
      { about: "nginx, in the location", code: "proxy_read_timeout 75s;\nproxy_send_timeout 75s;" },
      { about: "HAProxy, in defaults", code: "timeout client  75s\ntimeout server  75s\ntimeout tunnel  75s" },
    ],
  },
  turn: {
    title: "Let media and data channels through",
    why:
      "Peers find each other over UDP, and through a TURN server where there is no direct way. TURN has to be reached on " +
      "its port (3478, UDP and TCP) and on the ports that it relays from; on TCP port 443 with TLS it gets through " +
      "nearly everywhere. Its secret has to be the one that the server has.",
    settings: [],
  },
  reach: {
    title: "Reach the server",
    why:
      "Not even plain requests are answered. Look whether the server runs, whether the proxy has its right address, and " +
      "whether something on the way refuses this address.",
    settings: [],
  },
};
