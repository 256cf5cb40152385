/** The form that publishes: one message, one for each line, a burst, or a stream of them. */

import { get, reason } from "./elements.js";

/** @type {ReturnType<typeof setInterval> | undefined} */
let stream;
let streamed = 0;

/**
 * @param {object} page
 * @param {(items: unknown[]) => Promise<void>} page.send
 * @param {(text: string) => void} page.complain
 * @param {() => void} page.ontyping
 */
export function setUpComposer({ send, complain, ontyping }) {
  get("publish").addEventListener("submit", (/** @type {SubmitEvent} */ event) => {
    event.preventDefault();
    try {
      void send(written());
    } catch (error) {
      complain(reason(error));
    }
  });

  get("body").addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) get("publish").requestSubmit();
  });

  get("burst").addEventListener("click", () => {
    const size = Math.min(Math.max(1, Number(get("burst-size").value) || 1), 5000);
    void send(Array.from({ length: size }, (_, index) => ({ text: `burst ${index + 1} of ${size}` })));
  });

  get("stream").addEventListener("click", () => {
    const isOn = stream === undefined;
    if (isOn) stream = setInterval(() => void send([{ text: `tick ${(streamed += 1)}` }]), 250);
    else stream = void clearInterval(stream);
    get("stream").setAttribute("aria-pressed", String(isOn));
  });

  get("body").addEventListener("input", ontyping);
}

/** What the form holds: one message, or one for each line. Raises SyntaxError for what is not JSON. */
function written() {
  const form = new FormData(get("publish"));
  const text = String(form.get("body"));
  const pieces = form.has("lines") ? text.split("\n").filter((line) => line.trim()) : [text];
  return pieces.map((piece, index) => {
    if (form.get("kind") !== "json") return { text: piece };
    try {
      return JSON.parse(piece);
    } catch (error) {
      throw new SyntaxError(`${pieces.length > 1 ? `line ${index + 1}` : "this"} is not JSON: ${reason(error)}`);
    }
  });
}
