// The same feed in Node, from spec/tellwire.proto itself: no stubs, and no client of Tellwire's.
//
//     npm install @grpc/grpc-js @grpc/proto-loader
//     node examples/services/feed.mjs 127.0.0.1:50051 sensors:boiler
//
// What is typed is published to the channel.
import { createInterface } from "node:readline";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

// NODE_HOME is where the two packages are, if that is not here.
const require = createRequire(process.env.NODE_HOME ?? import.meta.url);
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const file = fileURLToPath(new URL("../../spec/tellwire.proto", import.meta.url));
const { tellwire } = grpc.loadPackageDefinition(loader.loadSync(file, { longs: String, enums: String, oneofs: true }));
const [address, channel] = process.argv.slice(2);
const client = new tellwire.v1.Tellwire(address, grpc.credentials.createInsecure());
let cursor = "earliest";

function read() {
  const stream = client.Subscribe({ channels: [channel], since: cursor });
  stream.on("data", ({ pushes }) => {
    for (const { push, message, connected, heartbeat } of pushes) {
      cursor = message?.position || connected?.cursor || heartbeat?.cursor || cursor;
      if (push === "message") console.log(channel, message.data.value.toString());
    }
  });
  stream.on("end", () => setTimeout(read, 1000));
  stream.on("error", (error) => {
    if (error.code !== grpc.status.UNAVAILABLE) throw error;
  });
}

createInterface({ input: process.stdin }).on("line", (line) => {
  const data = { value: Buffer.from(JSON.stringify(line)) };
  client.Publish({ channel, data }, (error, published) => {
    if (error) console.error(error.metadata.get("tellwire-error-bin").toString());
    else console.error("at", published.position);
  });
});
read();
