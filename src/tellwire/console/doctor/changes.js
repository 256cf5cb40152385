/**
 * What can be changed on the way, and where. The settings are those of docs/deploying.md, where they stand in whole
 * files that are tried with the real proxies; a test holds each line here against that page.
 *
 * @typedef {object} Change
 * @property {string} title
 * @property {string} why
 * @property {{ about: string, code: string }[]} settings
 */

/** Whose settings stand here, by the names by which they call themselves. */
const PROXIES = ["nginx", "Caddy", "HAProxy"];

/**
 * The settings of a change for the proxy that is there, or for each that it may be.
 * @param {Change} change @param {string} proxy What answers call themselves; empty where they do not say.
 */
export function settingsFor({ settings }, proxy) {
  const known = PROXIES.find((name) => proxy.toLowerCase().includes(name.toLowerCase()));
  return settings.filter(({ about }) => !known || about.startsWith(known) || !PROXIES.some((name) => about.startsWith(name)));
}

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
  streams: {
    title: "Let streams through",
    why:
      "Long polling is answered, and /v1/events or /v1/stream is not: something on the way answers in the server's place, " +
      "or ends what does not end by itself. Its log, for these two paths, says why.",
    settings: [],
  },
  origin: {
    title: "Let the server know its own pages",
    why:
      "A page may publish and open WebSockets where its Origin is that of the request's Host, or is listed. A proxy that " +
      "puts in another Host, or has TLS and talks plain HTTP to the server, makes a stranger of each page. Pass the Host " +
      "on, and where there is TLS in the proxy list the address that the browser shows.",
    settings: [
      { about: "nginx, in the location", code: "proxy_set_header Host $http_host;" },
      { about: "Tellwire, in tellwire.toml, [server]", code: 'origins = ["https://push.example.org"]' },
    ],
  },
  names: {
    title: "Let others than this machine in",
    why:
      "Without a key for tokens the server answers to the names of its own machine only, as everybody may do everything " +
      "there. Give it a key (token_key_file), and it answers to every name and asks for a token.",
    settings: [
      {
        about: "Tellwire, its key, where it is installed as a service",
        code: "/opt/tellwire/.venv/bin/tellwire token --new-key | sudo install -m 600 /dev/stdin /etc/tellwire/token.key",
      },
    ],
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
  age: {
    title: "Let connections grow old",
    why:
      "Connections were cut though they were not silent: something bounds how long any may last, or was restarted. The " +
      "clients come back by themselves and lose nothing; each time costs a connection and a question.",
    settings: [],
  },
  stun: {
    title: "Let UDP out",
    why:
      "No STUN server answered. Either the firewall here lets no UDP out to its port (3478), or it is down, or its " +
      "address in the server's settings is wrong. Where UDP is not to be had, TURN over TCP or TLS does.",
    settings: [{ about: "Tellwire, in tellwire.toml, [ice]", code: 'ice_stun_urls = ["stun:turn.example.org:3478"]' }],
  },
  udp: {
    title: "Let UDP out",
    why:
      "TURN is reached over TCP and not over UDP: calls work, with the delays of a line that resends. Let UDP out to port " +
      "3478 of the TURN server, in the firewall here and in that before it.",
    settings: [{ about: "coturn, in turnserver.conf (it listens on UDP and TCP)", code: "listening-port=3478" }],
  },
  turn: {
    title: "Let TURN be reached",
    why:
      "The TURN server did not answer. It has to run, be reached on its port over UDP and TCP, and stand in the server's " +
      "settings with that address. With TLS on a port that nothing shuts it gets through nearly everywhere.",
    settings: [
      { about: "coturn, in turnserver.conf", code: "listening-port=3478" },
      {
        about: "Tellwire, in tellwire.toml, [ice]",
        code: [
          "ice_turn_urls = [",
          '    "turn:turn.example.org:3478?transport=udp",',
          '    "turn:turn.example.org:3478?transport=tcp",',
          "]",
        ].join("\n"),
      },
    ],
  },
  secret: {
    title: "Give both the same secret",
    why:
      "The TURN server is there and does not take the credentials that Tellwire made: their secrets are not the same, or " +
      "their clocks are minutes apart.",
    settings: [
      {
        about: "coturn, in turnserver.conf",
        code: "use-auth-secret\nstatic-auth-secret=REPLACE-WITH-THE-SECRET-OF-TELLWIRE",
      },
      {
        about: "Tellwire, in tellwire.toml, [ice]",
        code: 'ice_turn_secret = "the same as coturn\'s static-auth-secret"',
      },
    ],
  },
  relay: {
    title: "Let TURN relay",
    why:
      "The TURN server gives addresses to relay from, and nothing comes through them: its relay ports (UDP) are shut, the " +
      "address it gives is not its own from outside, or it may not relay to where the peers are (denied-peer-ip).",
    settings: [
      { about: "coturn, in turnserver.conf: the ports to open", code: "min-port=49152\nmax-port=65535" },
      { about: "coturn behind NAT, in turnserver.conf", code: "external-ip=PUBLIC-ADDRESS/PRIVATE-ADDRESS" },
    ],
  },
  channel: {
    title: "Let the data channel through",
    why:
      "Tellwire's data channels are on one UDP port, which browsers have to reach themselves: no proxy for HTTP passes it " +
      "on. Give it a number and open it in the firewall; behind NAT or in a container name the address from outside. " +
      "Firefox does not look at 127.0.0.1: for one on the server's own machine name another address of that machine.",
    settings: [{ about: "Tellwire, added to tellwire serve --rtc", code: "--rtc-port 7900\n--rtc-address 203.0.113.7" }],
  },
  reach: {
    title: "Reach the server",
    why:
      "Not even plain requests are answered. Look whether the server runs, whether the proxy has its right address, and " +
      "whether something on the way refuses this address.",
    settings: [],
  },
};
