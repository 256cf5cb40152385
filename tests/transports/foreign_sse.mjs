// Reads a stream with npm's eventsource-parser: prints "open", then each event as a line of JSON, up to one named "last".
import { createParser } from "eventsource-parser";

const response = await fetch(process.argv[2]);
if (!response.ok) throw new Error(`the server answered ${response.status}`);

let done = false;
const parser = createParser({
  onEvent({ id, event, data }) {
    console.log(JSON.stringify({ id, event: event ?? null, value: JSON.parse(data) }));
    done ||= event === "last";
  },
  onError(error) {
    throw error;
  },
});

console.log("open");
const decoder = new TextDecoder();
for await (const chunk of response.body) {
  parser.feed(decoder.decode(chunk, { stream: true }));
  if (done) break;
}
if (!done) throw new Error("the stream ended before its last event");
