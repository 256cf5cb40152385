// A peer of npm's werift: JSON lines on standard output for what happens. Arguments: base URL, channel, messages to send.
import { RTCPeerConnection } from "werift";

const [base, channel, count] = process.argv.slice(2);
const tell = (what) => console.log(JSON.stringify(what));
const peer = new RTCPeerConnection({ iceServers: [], iceAdditionalHostAddresses: ["127.0.0.1"] });
const reliable = peer.createDataChannel("tellwire", { protocol: "tellwire.v1.json" });
const unreliable = peer.createDataChannel("tellwire.unreliable", { ordered: false, maxRetransmits: 0 });
const had = [];

const isOpen = (channel) => channel.readyState === "open" || channel.stateChanged.watch((state) => state === "open");

Promise.all([isOpen(reliable), isOpen(unreliable)]).then(() => {
  reliable.send(JSON.stringify({ type: "connect", ref: 1 }));
  reliable.send(JSON.stringify({ type: "subscribe", channel, since: "earliest", ref: 2 }));
});
unreliable.onMessage.subscribe((data) => tell({ lost: JSON.parse(data.toString()).data }));
reliable.onMessage.subscribe(async (data) => {
  const push = JSON.parse(data.toString());
  if (push.type === "subscribed") {
    tell({ ready: true });
    for (let n = 0; n < Number(count); n += 1) {
      reliable.send(JSON.stringify({ type: "publish", channel, data: `werift ${n}`, id: `w${n}` }));
    }
  } else if (push.type === "message") {
    had.push(push.data);
    // Whoever lags gets no ephemeral message: so not before this one has caught up.
    if (push.data === `werift ${count - 1}`) {
      setTimeout(() => {
        unreliable.send(JSON.stringify({ type: "publish", channel, data: "gone", ephemeral: true }));
      });
    }
    if (push.data === "end") {
      tell({ had });
      await peer.close();
      process.exit(0);
    }
  } else if (push.type === "error" || push.type === "closing") {
    tell(push);
  }
});

await peer.setLocalDescription(await peer.createOffer());
const answer = await fetch(`${base}/v1/rtc`, {
  method: "POST",
  headers: { "Content-Type": "application/sdp" },
  body: peer.localDescription.sdp,
});
if (answer.status !== 201) throw new Error(`the server answered ${answer.status}: ${await answer.text()}`);
await peer.setRemoteDescription({ type: "answer", sdp: await answer.text() });
