// A server of the test's own, run by tests/support/serve.py: started, killed, restarted, and logged in to.

import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../../../", import.meta.url));

/** Start a server until the test `t` ends. `options` are those of ServerProcess in tests/support/server.py, as JSON. */
export async function startServer(t, options = {}) {
  const folder = await mkdtemp(join(tmpdir(), "taskwire-js-"));
  const server = new Server(folder, options);
  t.after(async () => {
    await server.close();
    await rm(folder, { recursive: true, force: true });
  });
  await server.answer();
  return server;
}

class Server {
  #process;
  #lines;

  constructor(folder, options) {
    const python = join(ROOT, ".venv", "bin", "python");
    this.#process = spawn(python, ["-m", "tests.support.serve", folder, JSON.stringify(options)], {
      cwd: ROOT,
      stdio: ["pipe", "pipe", "inherit"],
    });
    this.#lines = createInterface({ input: this.#process.stdout })[Symbol.asyncIterator]();
  }

  /** The helper's next answer, whose fields (url, wsUrl, pid, password) become the server's. */
  async answer() {
    const { value, done } = await this.#lines.next();
    if (done) throw new Error("the server did not start; its log is above");
    const answer = JSON.parse(value);
    Object.assign(this, answer);
    return answer;
  }

  /** Send the helper a command: kill9, terminate, restart or log. */
  async tell(command) {
    this.#process.stdin.write(`${command}\n`);
    return this.answer();
  }

  /** A REST request with a JSON body; fails unless the answer is of the 2xx kind. */
  async request(method, path, { token, body } = {}) {
    const headers = { "content-type": "application/json", ...(token && { authorization: `Bearer ${token}` }) };
    const response = await fetch(this.url + path, { method, headers, body: body && JSON.stringify(body) });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path} answered ${response.status}: ${text}`);
    return text ? JSON.parse(text) : undefined;
  }

  /** Log in over REST; the JWT. */
  async login(username = "admin", password = this.password) {
    return (await this.request("POST", "/api/v1/auth/login", { body: { username, password } })).token;
  }

  /** End the server and its helper. */
  async close() {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return;
    const ended = new Promise((resolve) => this.#process.once("exit", resolve));
    this.#process.stdin.end();
    await ended;
  }
}
