// The npm packages built on fetch take an empty line for an empty message: nothing that the edge says
// by itself may hand one to an app, whose JSON.parse('') would throw.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import path from 'node:path';
import readline from 'node:readline';
import { test } from 'node:test';

import { Edge, PATIENCE, until } from './edge.mjs';

for (const name of ['@microsoft/fetch-event-source', 'extended-eventsource']) {
  test(`${name} gets no empty message from a keepalive or a drain`, { timeout: 3 * PATIENCE }, async () => {
    const edge = await Edge.start('events.keepalive = "200ms"\nevents.retry = "500ms"\ndrain.spread = "100ms"\n');
    const reader = spawn(process.execPath, ['fetch-reader.mjs', name, `https://localhost:${edge.port}/events?topic=t`], {
      cwd: import.meta.dirname ?? path.dirname(new URL(import.meta.url).pathname),
      env: { ...process.env, NODE_EXTRA_CA_CERTS: path.join(edge.folder, 'certs/ca.pem'), NODE_OPTIONS: '--dns-result-order=ipv4first' },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const seen = [];
    readline.createInterface({ input: reader.stdout }).on('line', (line) => seen.push(JSON.parse(line)));
    try {
      await until('the stream', () => seen.some((message) => message.event === 'edge-open') || seen);
      await until('five keepalives', async () => (await edge.metrics()).seventh_keepalives_total >= 5);
      await edge.publish(['t'], '"hello"');
      await until('the event', () => seen.some((message) => message.data === '"hello"') || seen);
      await edge.drain();
      assert.deepEqual(seen.filter((message) => message.data === ''), []);
      for (const message of seen) JSON.parse(message.data);
    } finally {
      reader.kill();
      await edge.stop();
    }
  });
}
