// Follows one task to its end, with nothing but the tasks contract and a WebSocket library.
//
//     npm install ws
//     TASKWIRE_TOKEN=… node watch_task.mjs VIDEO_ID [ws://127.0.0.1:3000/ws]
//
// In a browser, leave the import out: WebSocket is there. Exit code 0: completed, 1: failed or cancelled, 2: refused.

import WebSocket from "ws";

const [videoId, url = "ws://127.0.0.1:3000/ws"] = process.argv.slice(2);
const token = process.env.TASKWIRE_TOKEN;
const RECONNECT = [1006, 1011, 1012, 4008, 4029]; // close codes after which coming back is of use

let failures = 0;

function watch() {
  const socket = new WebSocket(url);
  const send = (type, payload) => socket.send(JSON.stringify({ type, timestamp: Date.now(), payload }));

  socket.onopen = () => {
    send("auth", { token });
    // No need to wait for authSuccess: messages of one connection are handled in order.
    send("subscribe_task", { videoId });
  };

  socket.onmessage = ({ data }) => {
    const { type, payload } = JSON.parse(data);
    if (type === "subscribeSuccess") failures = 0;
    if (type === "taskProgress") {
      const left = payload.estimatedTimeRemaining;
      const rest = left === null ? "" : `, ${Math.round(left)} s to go`;
      console.log(`${payload.status} ${payload.progress} %${rest} ${payload.message}`);
    }
    if (type === "taskCompleted") {
      end(0, `completed in ${payload.metrics.totalTime} s: ${payload.result.videoUrl}`);
    }
    if (type === "taskFailed") end(1, `failed: ${payload.error.code}: ${payload.error.message}`);
    if (type === "error" && !payload.retryable) end(2, `error: ${payload.code}: ${payload.message}`);
  };

  // Each subscription begins with the present state, so nothing is missed by coming back.
  socket.onclose = ({ code, reason }) => {
    if (!RECONNECT.includes(code)) return end(2, `closed: ${code} ${reason}`);
    setTimeout(watch, Math.random() * Math.min(30_000, 1000 * 2 ** ++failures));
  };
  socket.onerror = ({ message }) => console.error(`no connection: ${message}`); // a close event follows

  function end(code, text) {
    console.log(text);
    process.exitCode = code;
    socket.onclose = null;
    socket.close(1000);
  }
}

watch();
