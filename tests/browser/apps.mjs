// Apps that stand behind an edge, in processes of their own.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import net from 'node:net';

import { until } from './edge.mjs';

/** A port that nobody listens on. */
export function free() {
  return new Promise((resolve) => {
    const probe = net.createServer().listen(0, '127.0.0.1', () => {
      const { port } = probe.address();
      probe.close(() => resolve(port));
    });
  });
}

/** Starts an app that listens on a port; resolves once it does. */
export async function start([program, ...args], cwd, port, env) {
  const app = spawn(program, args, { cwd, env: { ...process.env, PORT: port, ...env }, stdio: ['ignore', 'ignore', 'inherit'], detached: true });
  await until(`${program} on port ${port}`, () => new Promise((resolve) => {
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
