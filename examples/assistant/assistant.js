// An answer that is read as it is written, with plain EventSource. How it is started: see app.py beside this.
//
// The address holds which answer it is (#...), so a reload reads it again from its first word, and goes on.

const $ = (id) => document.getElementById(id);
let source;

function read(answer) {
  source?.close();
  $("question").textContent = $("answer").textContent = $("spoken").textContent = "";
  $("paper").hidden = false;
  $("paper").className = "panel writing";
  state("connecting");
  source = new EventSource(`/answers/${encodeURIComponent(answer)}`);
  source.onopen = () => state("connected");
  source.onerror = () => {
    // A cut is mended by the browser, which comes back with the last id it had.
    if (source.readyState === EventSource.CLOSED) end("the answer cannot be read");
    else state("connection lost, trying again");
  };
  source.addEventListener("question", ({ data }) => ($("question").textContent = JSON.parse(data)));
  source.addEventListener("token", ({ data }) => $("answer").append(JSON.parse(data)));
  source.addEventListener("failed", ({ data }) => end(JSON.parse(data)));
  source.addEventListener("done", () => {
    end("complete");
    $("spoken").textContent = $("answer").textContent;
  });
}

/** The server has nothing more to say; without this the browser would ask again and again. */
function end(text) {
  source.close();
  $("paper").className = "panel";
  state(text);
}

function state(text) {
  $("state").textContent = text;
  $("state").dataset.state = ["connected", "complete"].includes(text) ? "connected" : "";
}

$("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  const body = JSON.stringify({ question: $("text").value });
  try {
    const answer = await fetch("/answers", { method: "POST", headers: { "Content-Type": "application/json" }, body });
    if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
    location.hash = (await answer.json()).answer;
  } catch (error) {
    state(`not asked: ${error.message}`);
  }
});

const fromAddress = () => location.hash.length > 1 && read(location.hash.slice(1));
addEventListener("hashchange", fromAddress);
fromAddress();
