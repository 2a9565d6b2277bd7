// The npm packages that pages and programs read event streams with, unchanged, reconnect included.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import path from 'node:path';
import readline from 'node:readline';
import { test } from 'node:test';

import { Edge, PATIENCE, Relay, until } from './edge.mjs';

for (const name of ['eventsource', 'event-source-polyfill']) {
  test(`${name} reads, and resumes after its connection was cut`, { timeout: 3 * PATIENCE }, async () => {
    const edge = await Edge.start('events.retry = "500ms"\n');
    const relay = await Relay.start(edge.port);
    const reader = spawn(process.execPath, ['reader.mjs', name, `https://localhost:${relay.port}/events?topic=t`], {
      cwd: import.meta.dirname ?? path.dirname(new URL(import.meta.url).pathname),
      env: { ...process.env, NODE_EXTRA_CA_CERTS: path.join(edge.folder, 'certs/ca.pem'), NODE_OPTIONS: '--dns-result-order=ipv4first' },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const seen = [];
    readline.createInterface({ input: reader.stdout }).on('line', (line) => seen.push(JSON.parse(line)));
    const messages = () => seen.filter((event) => event.type === 'message').map((event) => event.data).join();
    try {
      await until('the stream', () => seen.some((event) => event.type === 'edge-open') || seen);
      await edge.publish(['t'], '0');
      await edge.publish(['t'], 'two\nlines');
      await until('two events', () => messages() === '0,two\nlines' || messages());
      relay.cut();
      await edge.publish(['t'], '2');
      await until('the event it missed', () => messages() === '0,two\nlines,2' || messages());
      await edge.publish(['t'], '3');
      await until('the event after', () => messages() === '0,two\nlines,2,3' || messages());
      assert.equal(seen.filter((event) => event.type === 'edge-gap').length, 0);
    } finally {
      reader.kill();
      relay.stop();
      await edge.stop();
    }
  });
}
