// Apps made of what people make them of, behind an edge, over every protocol: Express with the `ws`
// package, and Django with django-eventstream over ASGI.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import https from 'node:https';
import path from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import WebSocket from 'ws';

import { free, kill, start } from './apps.mjs';
import { browsers } from './browsers.mjs';
import { Edge, PATIENCE, until } from './edge.mjs';

const here = import.meta.dirname ?? path.dirname(new URL(import.meta.url).pathname);
const apps = path.join(here, 'apps');

/** An edge in front of an app on some port, whatever `work` does with them, and their end. */
async function inFrontOf(command, env, work) {
  const port = await free();
  const edge = await Edge.start(`proxy.upstream = "http://127.0.0.1:${port}"\n`);
  const restart = () => start(command, apps, port, env(edge));
  const at = { edge, port, app: await restart(), restart };
  try {
    await work(at);
  } finally {
    await kill(at.app);
    await edge.stop();
  }
}

const express = (work) => inFrontOf(['node', 'node.mjs'], () => ({}), work);
const python = path.join(here, 'venv/bin/python');
const django = (work) => inFrontOf([python, 'django_app.py'], (edge) => ({ DATABASE: path.join(edge.folder, 'events') }), work);

/** One request over HTTP/1.1; its response. */
async function http1(edge, target, options = {}, body = '') {
  const request = https.request(`https://localhost:${edge.port}${target}`, { rejectUnauthorized: false, family: 4, agent: false, ...options });
  request.end(body);
  const [response] = await once(request, 'response');
  return response;
}

async function json(response) {
  return JSON.parse((await response.toArray()).join(''));
}

/** The data of the messages of an event stream over HTTP/1.1, as they come. */
async function messages(edge, target, seen) {
  const response = await http1(edge, target, { headers: { accept: 'text/event-stream' } });
  assert.match(response.headers['content-type'], /^text\/event-stream/);
  let text = '';
  response.setEncoding('utf8').on('data', (part) => {
    text += part;
    const events = text.split('\n\n');
    text = events.pop();
    for (const event of events) {
      const data = event.match(/^data: (\{.*)$/m)?.[1];
      if (data) seen.push(JSON.parse(data));
    }
  });
  response.on('error', (error) => seen.push(error.message));
  return response;
}

const told = { protocol: 'https', hostname: 'localhost', ip: '127.0.0.1', originalUrl: '/seen?a=%20b' };

test('Express and ws over h1', { timeout: 3 * PATIENCE }, () => express(async ({ edge }) => {
  assert.deepEqual(await json(await http1(edge, '/seen?a=%20b')), told);
  const posted = { method: 'POST', headers: { 'content-type': 'application/json' } };
  const long = JSON.stringify({ text: 'x'.repeat(4 << 20) });
  assert.deepEqual(await json(await http1(edge, '/json', posted, long)), { length: 4 << 20 });
  const seen = [];
  const stream = await messages(edge, '/events', seen);
  await json(await http1(edge, '/publish', posted, '{"n":1}'));
  await until('the event', () => seen.length === 1);
  assert.deepEqual(seen, [{ n: 1 }]);
  stream.destroy();
  const socket = new WebSocket(`wss://localhost:${edge.port}/ws`, { rejectUnauthorized: false, family: 4 });
  await once(socket, 'open');
  for (const sent of ['text', Buffer.alloc(1 << 20, 7)]) {
    socket.send(sent);
    const [echo, binary] = await once(socket, 'message');
    assert.equal(binary, Buffer.isBuffer(sent));
    assert.ok(echo.equals(Buffer.from(sent)));
  }
  socket.close(4001);
  assert.equal((await once(socket, 'close'))[0], 4001);
}));

test('django-eventstream over h1', { timeout: 3 * PATIENCE }, () => django(async (at) => {
  const seen = [];
  const stream = await messages(at.edge, '/events/', seen);
  const publish = async (n) => assert.ok((await fetch(`http://localhost:${at.port}/publish?n=${n}`)).ok);
  await publish(1);
  await until('the first', () => seen.length === 1);
  await kill(at.app);
  at.app = await at.restart();
  await publish(2);
  await until('the second', () => seen.length === 2 || seen);
  assert.deepEqual(seen, [{ n: 1 }, { n: 2 }]);
  stream.destroy();
}));

for (const name of Object.keys(browsers)) {
  for (const http3 of [false, true]) {
    const protocol = http3 ? 'h3' : 'h2';

    test(`Express and ws over ${protocol} in ${name}`, { timeout: 3 * PATIENCE }, () => express(async ({ edge }) => {
      const { page, close } = await browsers[name]({ port: edge.port, spki: edge.spki, http3 });
      try {
        await page.goto(`https://localhost:${edge.port}/`);
        const seen = await page.evaluate(async () => {
          const event = (target, type) => new Promise((resolve) => target.addEventListener(type, resolve, { once: true }));
          const post = async (url, body) => {
            const headers = { 'content-type': 'application/json' };
            return (await fetch(url, { method: 'POST', headers, body: JSON.stringify(body) })).json();
          };
          const told = await (await fetch('/seen?a=%20b')).json();
          const { length } = await post('/json', { text: 'x'.repeat(4 << 20) });
          const source = new EventSource('/events');
          await event(source, 'open');
          const message = event(source, 'message');
          await post('/publish', { n: 1 });
          const published = JSON.parse((await message).data);
          source.close();
          const socket = new WebSocket(`wss://${location.host}/ws`);
          socket.binaryType = 'arraybuffer';
          await event(socket, 'open');
          socket.send('text');
          const text = (await event(socket, 'message')).data;
          socket.send(new Uint8Array(1 << 20));
          const bytes = (await event(socket, 'message')).data.byteLength;
          socket.close(4001);
          const { code } = await event(socket, 'close');
          const spoken = performance.getEntriesByType('resource').find((entry) => entry.name.endsWith('/json')).nextHopProtocol;
          return { told, length, published, text, bytes, code, spoken };
        });
        assert.deepEqual(seen, { told: told, length: 4 << 20, published: { n: 1 }, text: 'text', bytes: 1 << 20, code: 4001, spoken: protocol });
      } finally {
        await close();
      }
    }));

    test(`django-eventstream over ${protocol} in ${name}: killed, started again, nothing missed`, { timeout: 3 * PATIENCE }, () => django(async (at) => {
      const { page, close } = await browsers[name]({ port: at.edge.port, spki: at.edge.spki, http3 });
      try {
        await page.goto(`https://localhost:${at.edge.port}/`);
        await page.evaluate(() => new Promise((resolve) => {
          window.seen = [];
          const source = new EventSource('/events/');
          source.onopen = resolve;
          // django-eventstream reads its database again from where it began when something is published
          // meanwhile, and sends what it had sent once more, under the same id.
          const ids = new Set();
          source.onmessage = ({ data, lastEventId }) => {
            if (!ids.has(lastEventId)) window.seen.push(JSON.parse(data).n);
            ids.add(lastEventId);
          };
          source.onerror = () => window.seen.push('error');
        }));
        const seen = () => page.evaluate(() => window.seen);
        const upTo = (n) => until(`event ${n}`, async () => {
          const all = await seen();
          return all.at(-1) === n || all;
        });
        let n = 0;
        const publish = async () => {
          n += 1;
          assert.ok((await fetch(`http://localhost:${at.port}/publish?n=${n}`)).ok);
        };
        // The app says that the stream is open a moment before it listens for events: what comes between it loses.
        const listens = async () => {
          for (let look = 0; look < 40 && (await seen()).length === 0; look += 1) await sleep(50);
          return (await seen()).length > 0;
        };
        do await publish(); while (!await listens());
        await upTo(n);
        const [first] = await seen();
        for (const _ of [1, 2]) {
          await kill(at.app);
          at.app = await at.restart();
          await publish();
          await publish();
          await upTo(n);
        }
        assert.deepEqual(await seen(), Array.from({ length: n - first + 1 }, (_, i) => first + i));
      } finally {
        await close();
      }
    }));
  }
}
