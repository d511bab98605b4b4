// The tools of these tests: the server process and the browser.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { once } from "node:events";
import test from "node:test";

import { WebSocketServer } from "ws";

import { openPage } from "./support/browser.mjs";
import { needsChromium } from "./support/need.mjs";
import { startServer } from "./support/server.mjs";

test("a page of Chromium speaks WebSocket to a server of the test", needsChromium, async (t) => {
  const http = createServer((_, response) => response.end("<title>here</title>"));
  const sockets = new WebSocketServer({ server: http });
  sockets.on("connection", (socket) => socket.on("message", (data) => socket.send(`echo ${data}`)));
  await once(http.listen(0, "127.0.0.1"), "listening");
  t.after(() => {
    sockets.clients.forEach((socket) => socket.terminate());
    http.close();
  });

  const { port } = http.address();
  const page = await openPage(t, `http://127.0.0.1:${port}/`);
  assert.equal(await page.title(), "here");
  const answer = await page.evaluate(
    (url) =>
      new Promise((resolve, reject) => {
        const socket = new WebSocket(url);
        socket.onopen = () => socket.send("hello");
        socket.onmessage = (event) => resolve(event.data);
        socket.onerror = reject;
      }),
    `ws://127.0.0.1:${port}/`,
  );
  assert.equal(answer, "echo hello");
});

test("a server is started, logged in to, killed and restarted at one address", async (t) => {
  const server = await startServer(t);
  const { pid, url } = server;
  assert.equal((await fetch(`${url}/healthz`)).status, 200);
  const token = await server.login();
  await server.request("GET", "/api/v1/tasks", { token });

  await server.tell("kill9");
  await assert.rejects(fetch(`${url}/healthz`));
  await server.tell("restart");
  assert.equal(server.url, url);
  assert.notEqual(server.pid, pid);
  assert.equal((await fetch(`${url}/healthz`)).status, 200);
});
