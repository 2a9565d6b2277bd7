// An edge in a process of its own, and a relay that can cut its connections.

import { execFile, spawn } from 'node:child_process';
import dgram from 'node:dgram';
import { mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import https from 'node:https';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import readline from 'node:readline';
import { promisify } from 'node:util';

const PROGRAM = path.resolve(import.meta.dirname ?? path.dirname(new URL(import.meta.url).pathname), '../../target/debug/seventh');

/** How long anything that is waited for may take before a test fails. It decides nothing else. */
export const PATIENCE = 60_000;

/** Waits until `check` gives something true. */
export async function until(what, check, patience = PATIENCE) {
  const deadline = Date.now() + patience;
  let last;
  while (Date.now() < deadline) {
    last = await check();
    if (last === true) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`waited in vain for ${what}; last seen: ${JSON.stringify(last)}`);
}

export class Edge {
  static async start(config) {
    const edge = new Edge();
    edge.folder = await mkdtemp(path.join(os.tmpdir(), 'seventh-'));
    await writeFile(path.join(edge.folder, 'seventh.toml'), config);
    const environment = { ...process.env, PATH: process.env.PATH };
    edge.child = spawn(PROGRAM, ['--https', '127.0.0.1:0', '--control', '127.0.0.1:0'], {
      cwd: edge.folder,
      env: environment,
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    for await (const line of readline.createInterface({ input: edge.child.stdout })) {
      const address = line.match(/https?:\/\/([^\s/]+)/)?.[1];
      if (line.startsWith('listening')) edge.port = Number(address.split(':').pop());
      if (line.startsWith('control')) edge.control = `http://${address}`;
      if (line.startsWith('publish')) break;
    }
    const { stdout } = await promisify(execFile)(PROGRAM, ['cert'], { cwd: edge.folder });
    edge.spki = stdout.match(/SPKI hash\s+(\S+)/)[1];
    return edge;
  }

  async stop() {
    await this.end('SIGKILL');
    await rm(this.folder, { recursive: true });
  }

  /** Ends it in good order. */
  async drain() {
    await this.end('SIGTERM');
  }

  async end(signal) {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const ended = new Promise((resolve) => this.child.once('exit', resolve));
    this.child.kill(signal);
    await ended;
  }

  /** Publishes one event to many topics, as many as one request may name at a time. */
  async publish(topics, data) {
    for (let first = 0; first < topics.length; first += 100) {
      const body = JSON.stringify({ topic: topics.slice(first, first + 100), data });
      const headers = { 'content-type': 'application/json' };
      const response = await fetch(`${this.control}/publish`, { method: 'POST', headers, body });
      if (!response.ok) throw new Error(await response.text());
    }
  }

  /** The lines of the metrics as an object. */
  async metrics() {
    const text = await (await fetch(`${this.control}/metrics`)).text();
    const lines = text.split('\n').filter((line) => line && !line.startsWith('#'));
    return Object.fromEntries(lines.map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ') + 1))]));
  }
}

/** Passes TCP and UDP on to the edge, on one port, until it is told to cut what there is. */
export class Relay {
  /** In front of an edge, whose port may also be set later. */
  static async start(edgePort) {
    for (;;) {
      const relay = new Relay();
      relay.edgePort = edgePort;
      relay.datagrams = 0;
      relay.dropsUdp = false;
      relay.sockets = new Set();
      relay.flows = new Map();
      relay.tcp = net.createServer((client) => {
        const server = net.connect(relay.edgePort, '127.0.0.1');
        for (const socket of [client, server]) {
          socket.setNoDelay(true);
          relay.sockets.add(socket);
          socket.on('error', () => {});
          socket.on('close', () => {
            relay.sockets.delete(socket);
            client.destroy();
            server.destroy();
          });
        }
        client.pipe(server);
        server.pipe(client);
      });
      await new Promise((resolve) => relay.tcp.listen(0, '127.0.0.1', resolve));
      relay.port = relay.tcp.address().port;
      relay.udp = dgram.createSocket({ type: 'udp4', recvBufferSize: 4 << 20, sendBufferSize: 4 << 20 });
      relay.udp.on('message', (datagram, from) => relay.pass(datagram, from));
      const bound = await new Promise((resolve) => {
        relay.udp.once('error', () => resolve(false));
        relay.udp.bind(relay.port, '127.0.0.1', () => resolve(true));
      });
      if (bound) return relay;
      relay.tcp.close();
    }
  }

  pass(datagram, from) {
    this.datagrams += 1;
    if (this.dropsUdp) return;
    const key = `${from.address}:${from.port}`;
    let flow = this.flows.get(key);
    if (!flow) {
      flow = { socket: dgram.createSocket({ type: 'udp4', recvBufferSize: 4 << 20 }), cut: false };
      flow.socket.on('message', (answer) => {
        if (!flow.cut) this.udp.send(answer, from.port, from.address);
      });
      flow.socket.on('error', () => {});
      this.flows.set(key, flow);
    }
    if (!flow.cut) flow.socket.send(datagram, this.edgePort, '127.0.0.1');
  }

  /** Cuts every connection: TCP is reset, UDP falls silent. New ones are passed on. */
  cut() {
    for (const socket of this.sockets) socket.resetAndDestroy();
    for (const flow of this.flows.values()) flow.cut = true;
  }

  /** Passes nothing on any more of what there is, and says nothing: a network that has vanished. */
  freeze() {
    for (const socket of this.sockets) {
      socket.unpipe();
      socket.removeAllListeners('close');
      socket.pause();
    }
    for (const flow of this.flows.values()) flow.cut = true;
  }

  stop() {
    this.tcp.close();
    for (const socket of this.sockets) socket.destroy();
    this.udp.close();
    for (const flow of this.flows.values()) flow.socket.close();
  }
}

/** Something on the way between browsers and an edge, with its certificate, over HTTP/1.1 alone. */
export async function front(edge, handle) {
  const certs = path.join(edge.folder, 'certs');
  const names = (await readdir(certs)).filter((name) => !name.startsWith('ca'));
  const files = await Promise.all(names.map((name) => readFile(path.join(certs, name), 'utf8')));
  const pem = (what) => files.find((text) => text.includes(what));
  const server = https.createServer({ cert: pem('CERTIFICATE'), key: pem('PRIVATE KEY'), ALPNProtocols: ['http/1.1'] }, async (request, response) => {
    const asked = https.request(`https://localhost:${edge.port}${request.url}`, {
      headers: request.headers, method: request.method, rejectUnauthorized: false, family: 4, agent: false,
    });
    asked.on('error', () => response.destroy());
    response.on('close', () => asked.destroy());
    request.pipe(asked);
    asked.on('response', (answer) => handle(answer, response));
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const close = () => {
    server.close();
    server.closeAllConnections();
  };
  return { port: server.address().port, close };
}
