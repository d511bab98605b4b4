// The *tasks* contract as its front end speaks it: Node's `ws`, and the browser's own WebSocket in Chromium.

import assert from "node:assert/strict";
import { once } from "node:events";
import test from "node:test";

import WebSocket from "ws";

import { openPage } from "./support/browser.mjs";
import { needsChromium } from "./support/need.mjs";
import { startServer } from "./support/server.mjs";

const RENDER = { prompt: "A lighthouse at dusk", options: { size: "320x180", seconds: 1, fps: 24 } };

/** Check one subscription's messages: revisions grow, progress never falls, one end and nothing after it. */
function checkHistory(messages, videoId) {
  const mine = messages.filter(
    (m) => ["taskProgress", "taskCompleted", "taskFailed"].includes(m.type) && m.payload.videoId === videoId,
  );
  for (let i = 1; i < mine.length; i++) {
    assert.ok(mine[i].payload.revision > mine[i - 1].payload.revision, "a revision repeats or goes back");
    assert.ok(mine[i].payload.progress >= mine[i - 1].payload.progress, "progress goes back");
  }
  assert.deepEqual(
    mine.filter((m) => m.type !== "taskProgress").map((m) => m.type),
    ["taskCompleted"],
  );
  assert.equal(mine.at(-1).type, "taskCompleted");
  return mine;
}

test("Node's ws follows a render from its creation to the playable file", async (t) => {
  const server = await startServer(t);
  const token = await server.login();
  const socket = new WebSocket(`${server.wsUrl}/ws`);
  t.after(() => socket.terminate());
  const messages = [];
  const seen = (wanted) =>
    new Promise((resolve) => {
      const look = () => {
        const found = messages.find(wanted);
        if (found) resolve(found);
        else socket.once("message", look);
      };
      look();
    });
  socket.on("message", (data) => messages.push(JSON.parse(data)));
  await once(socket, "open");
  socket.send(JSON.stringify({ type: "auth", payload: { token } }));
  const { id } = await server.request("POST", "/api/v1/tasks", { token, body: RENDER });
  // The front end does not wait for `authSuccess`.
  setTimeout(() => socket.send(JSON.stringify({ type: "subscribe_task", payload: { videoId: id } })), 100);

  const end = await seen((m) => m.type === "taskCompleted" || m.type === "taskFailed");
  assert.equal(end.type, "taskCompleted", JSON.stringify(end));
  const history = checkHistory(messages, id);
  assert.ok(history.length > 1, "no progress was seen");
  assert.ok(messages.some((m) => m.type === "authSuccess"));
  await seen((m) => m.type === "taskUpdated" && m.payload.status === "COMPLETED");
  const video = await fetch(end.payload.result.videoUrl);
  assert.equal(video.headers.get("content-type"), "video/mp4");
  assert.equal((await video.arrayBuffer()).byteLength, end.payload.result.fileSize);
});

test("a page in Chromium follows a render, is cut off, and comes back to the end", needsChromium, async (t) => {
  const server = await startServer(t);
  const token = await server.login();
  const page = await openPage(t, `${server.url}/`);
  const { id } = await server.request("POST", "/api/v1/tasks", {
    token,
    body: { prompt: "x", provider: "external" },
  });
  const report = (body) => server.request("POST", `/api/v1/tasks/${id}/reports`, { token, body });

  await page.evaluate(
    ([url, token, id]) => {
      window.lives = [];
      window.live = () => {
        const messages = [];
        window.lives.push(messages);
        const socket = (window.socket = new WebSocket(url));
        socket.onopen = () => {
          socket.send(JSON.stringify({ type: "auth", payload: { token } }));
          setTimeout(() => socket.send(JSON.stringify({ type: "subscribe_task", payload: { videoId: id } })), 100);
        };
        socket.onmessage = (event) => messages.push(JSON.parse(event.data));
      };
      window.live();
    },
    [`${server.wsUrl}/ws`, token, id],
  );
  const seen = (type) => page.waitForFunction((type) => window.lives.at(-1).some((m) => m.type === type), type);
  await seen("taskProgress");
  await report({ progress: 40 });
  await page.waitForFunction(() => window.lives.at(-1).some((m) => m.payload.progress === 40));

  await page.evaluate(() => window.socket.close());
  await report({ progress: 80 });
  await report({ status: "COMPLETED", result: { videoUrl: "https://cdn.example/v.mp4" } });
  await page.evaluate(() => window.live());
  await seen("taskCompleted");

  const [first, second] = await page.evaluate(() => window.lives);
  assert.ok(first.every((m) => m.type !== "taskCompleted"));
  const history = checkHistory(second, id);
  assert.equal(history.length, 1, "the end alone is the present state");
  assert.equal(history[0].payload.result.videoUrl, "https://cdn.example/v.mp4");
});

test("a rendered video plays in Chromium", needsChromium, async (t) => {
  const server = await startServer(t);
  const token = await server.login();
  const { id } = await server.request("POST", "/api/v1/tasks", { token, body: RENDER });
  const page = await openPage(t, `${server.url}/`);
  await page.evaluate(
    async ([url, token, id]) => {
      const socket = new WebSocket(url);
      window.end = await new Promise((resolve, reject) => {
        socket.onopen = () => {
          socket.send(JSON.stringify({ type: "auth", payload: { token } }));
          socket.send(JSON.stringify({ type: "subscribe_task", payload: { videoId: id } }));
        };
        socket.onmessage = ({ data }) => {
          const message = JSON.parse(data);
          if (message.type === "taskCompleted") resolve(message.payload);
          if (message.type === "taskFailed" || message.type === "error") reject(new Error(data));
        };
      });
    },
    [`${server.wsUrl}/ws`, token, id],
  );
  const metadata = await page.evaluate(
    () =>
      new Promise((resolve, reject) => {
        const video = document.createElement("video");
        video.onloadeddata = () => resolve([video.videoWidth, video.videoHeight, video.duration]);
        video.onerror = () => reject(new Error(video.error.message));
        video.src = window.end.result.videoUrl;
        document.body.append(video);
      }),
  );
  assert.deepEqual(metadata, [320, 180, 1]);
});
