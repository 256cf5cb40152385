// Socket.IO for Node: rooms in which everyone talks; WebSocket transport only, no compression, and the request of each
// connection let go of, as its page on performance advises (https://socket.io/docs/v4/performance-tuning/).

import { createServer } from "node:http";
import { Server } from "socket.io";

const http = createServer();
const io = new Server(http, { transports: ["websocket"], perMessageDeflate: false, serveClient: false });
io.engine.on("connection", (raw) => {
  raw.request = null;
});

io.on("connection", (socket) => {
  let mine = "";
  socket.on("join", (room) => {
    mine = String(room);
    socket.join(mine);
    socket.emit("joined", room);
  });
  socket.on("say", (text) => io.to(mine).emit("said", text));
  socket.on("kept", (text, done) => done());
  socket.on("publish", (text) => io.to("bench").emit("said", text));
});

http.listen({ host: "127.0.0.1", port: Number(process.argv[2]), backlog: 4096 });
