// ws for Node: rooms by path, a loop of send() over the members, without compression, text kept as the bytes it came in.
// `/pub` publishes to the room `/sub`; whoever is at any other path is a member of that room and talks to it.

import { WebSocketServer } from "ws";

const rooms = new Map();
const server = new WebSocketServer({
  host: "127.0.0.1",
  port: Number(process.argv[2]),
  backlog: 4096,
  perMessageDeflate: false,
  clientTracking: false,
});

server.on("connection", (socket, request) => {
  const path = request.url === "/pub" ? "/sub" : request.url;
  let members = rooms.get(path);
  if (members === undefined) rooms.set(path, (members = new Set()));
  if (request.url !== "/pub") members.add(socket);
  socket.on("message", (data) => {
    for (const member of members) member.send(data, { binary: false });
  });
  socket.on("close", () => members.delete(socket));
  socket.on("error", () => socket.terminate());
});
