// Sends a file, and shows how much of it the server has. How it is started: see app.py beside this.
//
// Whoever opens the link (#...) sees the same: the steps come from the server's handler over Tellwire, not from this
// page's own request.

import { Tellwire } from "/realtime/client/tellwire.js";

const $ = (id) => document.getElementById(id);
const size = new Intl.NumberFormat(undefined, { maximumFractionDigits: 1 });
const megabytes = (bytes) => `${size.format(bytes / 1e6)} MB`;

const client = new Tellwire("/realtime");
client.on("state", ({ state }) => {
  $("state").dataset.state = state;
  $("state").textContent = state === "disconnected" ? "connection lost, trying again" : state;
});

let watched;

/** @returns {Promise<void>} Resolved when what happens from now on will be seen. */
function watch(upload) {
  watched?.unsubscribe();
  $("upload").hidden = false;
  $("link").href = `#${upload}`;
  $("name").textContent = $("digest").textContent = "";
  $("bar").value = 0;
  $("result").textContent = "waiting";
  watched = client.subscribe(`upload:${upload}`, {
    since: "earliest", // how it began, and how it ended if it has
    onMessage: ({ event, data: { name, done, total, sha256 } }) => {
      $("name").textContent = name;
      $("bar").value = total ? done / total : 1;
      $("bytes").textContent = `${megabytes(done)} of ${megabytes(total)}`;
      $("result").textContent = { finished: "complete", failed: "broken off" }[event] ?? "on its way";
      $("digest").textContent = sha256 ? `SHA-256 ${sha256}` : "";
    },
    onError: (error) => ($("result").textContent = error.message),
  });
  return watched.ready;
}

$("file").addEventListener("change", async () => {
  const [file] = $("file").files;
  if (!file) return;
  const upload = crypto.randomUUID();
  history.replaceState(null, "", `#${upload}`);
  try {
    await watch(upload);
    const path = `/files/${upload}?${new URLSearchParams({ name: file.name })}`;
    const answer = await fetch(path, { method: "PUT", body: file });
    if (!answer.ok) $("result").textContent = (await answer.json()).error;
  } catch (error) {
    $("result").textContent = `not sent: ${error.message}`;
  }
});

const fromAddress = () => location.hash.length > 1 && watch(location.hash.slice(1)).catch(() => {});
addEventListener("hashchange", fromAddress);
fromAddress();
