// What goes wrong between a browser and an edge, in real browsers.

import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';

import { browsers } from './browsers.mjs';
import { Edge, PATIENCE, Relay, until } from './edge.mjs';

const here = import.meta.dirname ?? path.dirname(new URL(import.meta.url).pathname);
const docs = await readFile(path.join(here, '../../docs/event-streams.md'), 'utf8');
/** The watchdog as the documentation has it. */
const [watchdog] = docs.match(/function watch\(.*?^}$/ms);

for (const name of Object.keys(browsers)) {
  for (const http3 of [false, true]) {
    test(`${name} over ${http3 ? 'h3' : 'h2'}: a network that vanishes without a word is noticed`, { timeout: 3 * PATIENCE }, async () => {
      const edge = await Edge.start('events.keepalive = "500ms"\n');
      const relay = await Relay.start(edge.port);
      const { page, close } = await browsers[name]({ port: relay.port, spki: edge.spki, http3 });
      try {
        await page.goto(`https://localhost:${relay.port}/`);
        await page.evaluate(`(() => {
          ${watchdog}
          window.seen = [];
          watch('/events?topic=watched', (event) => window.seen.push(event.data));
        })()`);
        const seen = (count) => until(`${count} events`, async () => {
          const seen = await page.evaluate(() => window.seen);
          return seen.length === count || seen;
        // Firefox finds out about a dead connection over HTTP/2 by a PING, which it sends after 58 s.
        }, 2 * PATIENCE);
        await until('the stream', async () => {
          const { streams } = await (await fetch(`${edge.control}/streams?topic=watched`)).json();
          return streams.length === 1;
        });
        await edge.publish(['watched'], 'before');
        await seen(1);
        relay.freeze();
        await edge.publish(['watched'], 'meanwhile');
        await seen(2);
        await edge.publish(['watched'], 'after');
        await seen(3);
        assert.deepEqual(await page.evaluate(() => window.seen), ['before', 'meanwhile', 'after']);
      } finally {
        await close();
        relay.stop();
        await edge.stop();
      }
    });
  }
}

for (const name of Object.keys(browsers)) {
  test(`${name}: HTTP/3 is offered and UDP is dropped`, { timeout: 3 * PATIENCE }, async (t) => {
    const relay = await Relay.start(0);
    const edge = await Edge.start(`https.advertise = ${relay.port}\nevents.keepalive = "60s"\n`);
    relay.edgePort = edge.port;
    relay.dropsUdp = true;
    const { page, close } = await browsers[name]({ port: relay.port, spki: edge.spki, http3: 'offered' });
    try {
      const url = `https://localhost:${relay.port}/`;
      await page.goto(url);
      // Told of HTTP/3 by now, it may try it from its next connection on.
      for (const round of [1, 2]) {
        const began = Date.now();
        await page.goto(`${url}?round=${round}`);
        const opened = await page.evaluate(() => {
          const open = () => new Promise((resolve) => {
            const source = new EventSource('/events?topic=dropped');
            source.onopen = resolve;
          });
          return Promise.all(Array.from({ length: 100 }, open)).then((all) => all.length);
        });
        t.diagnostic(`round ${round}: the page and ${opened} streams in ${Date.now() - began} ms`);
        const { streams } = await (await fetch(`${edge.control}/streams?topic=dropped&limit=1000`)).json();
        assert.ok(streams.every(({ protocol }) => protocol === 'h2'));
      }
      assert.ok(relay.datagrams > 0, 'it was tried');
      t.diagnostic(`${relay.datagrams} datagrams were dropped`);
    } finally {
      await close();
      relay.stop();
      await edge.stop();
    }
  });
}

/** A page, another one, and a service worker that passes everything on. */
const site = await mkdtemp(path.join(os.tmpdir(), 'seventh-site-'));
await writeFile(path.join(site, 'index.html'), '<!doctype html><title>one</title>');
await writeFile(path.join(site, 'other.html'), '<!doctype html><title>other</title>');
await writeFile(path.join(site, 'sw.js'), "addEventListener('install', () => skipWaiting());\naddEventListener('activate', (event) => event.waitUntil(clients.claim()));\naddEventListener('fetch', (event) => event.respondWith(fetch(event.request)));\n");
after(() => rm(site, { recursive: true }));

const openMany = (page, count) => page.evaluate((count) => {
  window.seen = 0;
  const open = () => new Promise((resolve) => {
    const source = new EventSource('/.seventh/events?topic=many');
    source.onopen = resolve;
    source.onmessage = () => { window.seen += 1; };
  });
  return Promise.all(Array.from({ length: count }, open)).then(() => {});
}, count);

const openStreams = async (edge) => {
  const metrics = await edge.metrics();
  return ['h1', 'h2', 'h3'].reduce((sum, protocol) => sum + metrics[`seventh_event_streams{protocol="${protocol}"}`], 0);
};

for (const name of Object.keys(browsers)) {
  for (const http3 of [false, true]) {
    const protocol = http3 ? 'h3' : 'h2';

    test(`${name} over ${protocol}: 200 streams, back and forward`, { timeout: 3 * PATIENCE }, async () => {
      const edge = await Edge.start(`proxy.files = "${site}"\n`);
      const { page, close } = await browsers[name]({ port: edge.port, spki: edge.spki, http3 });
      try {
        const url = `https://localhost:${edge.port}/`;
        await page.goto(url);
        for (let round = 0; round < 4; round += 1) {
          await openMany(page, 200);
          await until('200 streams', async () => (await openStreams(edge)) === 200);
          // The places are free already: whoever comes next has all of them.
          await page.goto(`${url}other.html`);
          await openMany(page, 200);
          await until('200 streams', async () => (await openStreams(edge)) === 200);
          await page.goBack();
        }
        const hits = Object.entries(await edge.metrics()).filter(([line, count]) => line.startsWith('seventh_limit_hits') && count > 0);
        assert.deepEqual(hits, []);
      } finally {
        await close();
        await edge.stop();
      }
    });

    test(`${name} over ${protocol}: through a service worker`, { timeout: 3 * PATIENCE }, async () => {
      const edge = await Edge.start(`proxy.files = "${site}"\n`);
      const { page, close } = await browsers[name]({ port: edge.port, spki: edge.spki, http3 });
      try {
        await page.goto(`https://localhost:${edge.port}/`);
        await page.evaluate(async () => {
          await navigator.serviceWorker.register('/sw.js');
          await navigator.serviceWorker.ready;
          if (!navigator.serviceWorker.controller) {
            await new Promise((resolve) => navigator.serviceWorker.addEventListener('controllerchange', resolve, { once: true }));
          }
        });
        await openMany(page, 50);
        await edge.publish(['many'], '"x"');
        await until('an event on each', async () => {
          const seen = await page.evaluate(() => window.seen);
          return seen === 50 || seen;
        });
      } finally {
        await close();
        await edge.stop();
      }
    });
  }
}
