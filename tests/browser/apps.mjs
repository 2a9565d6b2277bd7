// Apps that stand behind an edge, in processes of their own.

import { spawn } from 'node:child_process';
import dgram from 'node:dgram';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import net from 'node:net';

import { until } from './edge.mjs';

/**
 * A TCP port for an app that is started later, and perhaps again. It lies below those that the system gives
 * to whoever binds port 0, and its twin of UDP is held as long as this process lives: no other test takes it.
 */
export async function free() {
  const given = await readFile('/proc/sys/net/ipv4/ip_local_port_range', 'utf8').catch(() => '32768');
  const lowest = 10_000;
  for (;;) {
    const port = lowest + Math.floor(Math.random() * (parseInt(given, 10) - lowest));
    const held = dgram.createSocket('udp4').unref();
    const probe = net.createServer();
    if (await binds(held, () => held.bind(port, '127.0.0.1')) && await binds(probe, () => probe.listen(port))) {
      probe.close();
      await once(probe, 'close');
      return port;
    }
    held.close();
  }
}

/** Whether a socket gets what it binds. */
function binds(socket, bind) {
  return new Promise((resolve) => {
    socket.once('listening', () => resolve(true)).once('error', () => resolve(false));
    bind();
  });
}

/** Starts an app that listens on a port; resolves once it does. */
export async function start([program, ...args], cwd, port, env) {
  const app = spawn(program, args, { cwd, env: { ...process.env, PORT: port, ...env }, stdio: ['ignore', 'ignore', 'inherit'], detached: true });
  await until(`${program} on port ${port}`, () => new Promise((resolve, reject) => {
    if (app.exitCode !== null) reject(new Error(`${program} on port ${port} ended with ${app.exitCode}`));
    const socket = net.connect(port, '127.0.0.1');
    socket.once('connect', () => { socket.destroy(); resolve(true); });
    socket.once('error', () => resolve(false));
  }));
  return app;
}

/** Kills it with its workers. */
export async function kill(app) {
  if (app.exitCode !== null || app.signalCode !== null) return;
  const gone = once(app, 'exit');
  process.kill(-app.pid, 'SIGKILL');
  await gone;
}
