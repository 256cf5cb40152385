// What a device's camera sees. The device is a Python program, and finds its viewers over the same channel.
// .venv/bin/python examples/pages.py, then .venv/bin/python examples/camera/device.py, then open
// http://127.0.0.1:8001/camera/
//
// Whoever is in the channel with `camera` in its state has one. The page makes an offer, the device answers, each as a
// message to the other alone; the pictures go directly.

import { Tellwire } from "/realtime/client/tellwire.js";

const CHANNEL = "room:camera";
const video = document.querySelector("video");
const client = new Tellwire("/realtime");
let watched; // {device, pc}

client.on("state", ({ state }) => {
  if (state !== "connected" && !watched) say(state, state === "disconnected" ? "connection lost, trying again" : state);
});
client.on("signal", async ({ from, event, data }) => {
  if (event === "answer" && from === watched?.device && watched.pc.signalingState === "have-local-offer") {
    await watched.pc.setRemoteDescription({ type: "answer", sdp: String(data) });
  } else if (event === "full" && from === watched?.device) {
    stop();
    say("connected", "the device has all the viewers that it takes");
  }
});

const presence = client.presence(CHANNEL);
presence.on("members", () => void look());
await presence.enter();

/** Watch the first camera that is there. */
async function look() {
  const device = [...presence.members.values()].find(({ state }) => state?.camera)?.client;
  if (device && device === watched?.device) return;
  stop();
  if (!device) return say("connected", "no camera is here yet");
  say("connecting", "a camera is here");
  const { ice_servers } = await (await fetch("/realtime/v1/ice-servers")).json();
  const pc = new RTCPeerConnection({ iceServers: ice_servers });
  watched = { device, pc };
  pc.ontrack = ({ track }) => (video.srcObject = new MediaStream([track]));
  pc.onconnectionstatechange = () => {
    if (pc.connectionState === "connected") say("connected", "live");
    if (pc.connectionState !== "failed" || watched?.pc !== pc) return;
    stop();
    say("disconnected", "the camera cannot be reached, trying again");
    setTimeout(look, 2000);
  };
  pc.addTransceiver("video", { direction: "recvonly" });
  await pc.setLocalDescription();
  // The device takes an offer whole, so that all candidates are to be in it.
  await gathered(pc);
  if (watched?.pc === pc) await client.send(CHANNEL, device, pc.localDescription.sdp, { event: "offer" }).catch(() => stop());
}

function gathered(pc) {
  return new Promise((resolve) => {
    const look = () => pc.iceGatheringState === "complete" && resolve();
    pc.addEventListener("icegatheringstatechange", look);
    setTimeout(resolve, 2000); // a STUN server that does not answer is not waited for
    look();
  });
}

function stop() {
  watched?.pc.close();
  watched = undefined;
  video.srcObject = null;
}
addEventListener("pagehide", stop);

function say(state, text) {
  const element = document.getElementById("state");
  element.dataset.state = state;
  element.textContent = text;
}
