/**
 * Reads an event stream as the HTML standard has it (section 9.2.6), however it is cut into chunks.
 *
 * An EventSource would do, but that sends no `Authorization` and tells of no comment, so a silent line is never found.
 */
export class SseParser {
  lastEventId = "";
  /** @type {number | null} */
  retryMs = null;
  #decoder;
  #rest = "";
  #cr = false;
  #id = "";
  #event = "";
  #data = "";

  /**
   * @param {(event: {event: string, data: string, id: string}) => void} dispatch
   * @param {boolean} [fatal] Whether bytes that are not UTF-8 are an error, and not replaced as the standard has it.
   */
  constructor(dispatch, fatal = false) {
    this.dispatch = dispatch;
    this.#decoder = new TextDecoder("utf-8", { fatal });
  }

  /** @param {Uint8Array} chunk */
  feed(chunk) {
    let text = this.#decoder.decode(chunk, { stream: true });
    if (text === "") return;
    // The second half of a CRLF that was cut in two.
    if (this.#cr && text.startsWith("\n")) text = text.slice(1);
    this.#cr = text.endsWith("\r");
    const lines = (this.#rest + text).split(/\r\n|\n|\r/);
    this.#rest = lines.pop() ?? "";
    for (const line of lines) this.#take(line);
  }

  /** @param {string} line */
  #take(line) {
    if (line === "") return this.#end();
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    let value = colon < 0 ? "" : line.slice(colon + 1);
    if (value.startsWith(" ")) value = value.slice(1);
    if (field === "data") this.#data += `${value}\n`;
    else if (field === "event") this.#event = value;
    else if (field === "id" && !value.includes("\0")) this.#id = value;
    else if (field === "retry" && /^[0-9]+$/.test(value)) this.retryMs = Number(value);
  }

  #end() {
    const [event, data] = [this.#event || "message", this.#data];
    this.#event = this.#data = "";
    if (data !== "") this.dispatch({ event, data: data.slice(0, -1), id: this.#id });
    // Not before: what could not be taken was not had.
    this.lastEventId = this.#id;
  }
}
