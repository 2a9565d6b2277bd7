// `edge.js` in real browsers: one event stream for all tabs, over the six connections of HTTP/1.1, and what
// it does when something is wrong.

import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';

import { browsers } from './browsers.mjs';
import { Edge, PATIENCE, Relay, front, until } from './edge.mjs';

// An edge in front of a page with nothing on it.
const site = await mkdtemp(path.join(os.tmpdir(), 'seventh-site-'));
await writeFile(path.join(site, 'index.html'), '<!doctype html><title>tab</title>');
after(() => rm(site, { recursive: true }));
const start = (more = '') => Edge.start(`proxy.files = "${site}"\nevents.keepalive = "1s"\n${more}`);

const streams = async (edge) => (await (await fetch(`${edge.control}/streams`)).json()).streams;

/** Has a page read topics; what it sees is in `window.seen`. */
function read(page, topics, init = {}) {
  return page.evaluate(async ([topics, init]) => {
    const { EdgeSource } = await import('/.seventh/edge.js');
    window.seen ??= [];
    const source = new EdgeSource(topics, init);
    window.source = source;
    for (const type of ['open', 'error', 'message', 'edge-gap', 'edge-sync', 'score']) {
      source.addEventListener(type, (event) => window.seen.push([type, event.data ?? event.status ?? '']));
    }
  }, [topics, init]);
}

const seen = (page, type = 'message') =>
  page.evaluate((type) => window.seen.filter(([of]) => of === type).map(([, data]) => data), type);

const untilSeen = (page, what, type = 'message', patience = PATIENCE) => until(`${type}: ${what}`, async () => {
  const now = await seen(page, type);
  return JSON.stringify(now) === JSON.stringify(what) || now;
}, patience);

for (const name of Object.keys(browsers)) {
  test(`${name} over h1: twelve tabs and one stream`, { timeout: 3 * PATIENCE }, async (t) => {
    const edge = await start();
    const { page, tab, close } = await browsers[name]({ port: edge.port, spki: edge.spki, http3: false, http1: true });
    try {
      const tabs = [page];
      while (tabs.length < 12) tabs.push(await tab());
      for (const [n, page] of tabs.entries()) {
        await page.goto(`https://localhost:${edge.port}/`);
        await read(page, ['all', `tab/${n}`]);
      }
      for (const page of tabs) await untilSeen(page, [''], 'open');
      await until('one stream with all topics', async () => {
        const open = await streams(edge);
        return (open.length === 1 && open[0].topics.length === 13 && open[0].protocol === 'h1') || open;
      });
      await edge.publish(['all'], '"1"');
      await edge.publish(['tab/3'], '"mine"');
      await edge.publish(['all'], '"2"');
      for (const [n, page] of tabs.entries()) {
        await untilSeen(page, n === 3 ? ['"1"', '"mine"', '"2"'] : ['"1"', '"2"']);
      }
      // Ordinary requests have their connections.
      assert.equal(await tabs[5].evaluate(async () => (await fetch('/')).status), 200);
      // Without the tab that reads the stream, which came first, another one goes on.
      await edge.publish(['all'], '"3"');
      const [before] = await streams(edge);
      const began = Date.now();
      await tabs.shift().close();
      await edge.publish(['all'], '"4"');
      await until('another stream', async () => {
        const open = await streams(edge);
        return (open.length === 1 && open[0].id !== before.id) || open;
      });
      t.diagnostic(`another tab had the stream after ${Date.now() - began} ms`);
      await edge.publish(['all'], '"5"');
      for (const page of [tabs[0], tabs[10]]) await untilSeen(page, ['"1"', '"2"', '"3"', '"4"', '"5"']);
      await until('no topic of the one that is gone', async () => {
        const [{ topics }] = await streams(edge);
        return !topics.includes('tab/0') || topics;
      });
    } finally {
      await close();
      await edge.stop();
    }
  });

  test(`${name} over h2: one tab that wants what it must not have, one that comes with an id, one that is finished`, { timeout: 3 * PATIENCE }, async () => {
    const edge = await start('[[access.rule]]\ntopic = "closed/**"\nallow = ["user:bob"]\n');
    const { page, tab, close } = await browsers[name]({ port: edge.port, spki: edge.spki, http3: false });
    try {
      const publish = async (topic, data) => (await (await fetch(`${edge.control}/topics/${topic}`, { method: 'POST', body: data })).json()).id;
      const first = await publish('open/a', '1');
      await publish('open/a', '2');
      await publish('open/other', 'x');
      await page.goto(`https://localhost:${edge.port}/`);
      await read(page, ['open/a'], { lastEventId: first });
      await untilSeen(page, ['2']);
      await publish('open/a', '3');
      await untilSeen(page, ['2', '3']);
      assert.deepEqual(await seen(page, 'edge-sync'), ['{"missed":0,"replayed":1}']);

      const other = await tab();
      await other.goto(`https://localhost:${edge.port}/`);
      await read(other, ['closed/b']);
      await untilSeen(other, [401], 'error');
      await publish('open/a', '4');
      await untilSeen(page, ['2', '3', '4']);

      await fetch(`${edge.control}/topics/open/a/close?event=score`, { method: 'POST', body: 'the end' });
      await untilSeen(page, ['the end'], 'score');
      await until('its end', async () => (await seen(page, 'error')).includes(204) || seen(page, 'error'));
      assert.equal(await page.evaluate(() => window.source.readyState), 2);
    } finally {
      await close();
      await edge.stop();
    }
  });

  test(`${name} over h1: nothing of a response comes before its end`, { timeout: 3 * PATIENCE }, async () => {
    const edge = await start();
    // An antivirus program that looks at all of a response first.
    const holding = await front(edge, async (answer, response) => {
      const whole = Buffer.concat(await answer.toArray().catch(() => []));
      response.writeHead(answer.statusCode, { 'content-type': answer.headers['content-type'] ?? 'text/plain' }).end(whole);
    });
    const { page, close } = await browsers[name]({ port: holding.port, spki: edge.spki, http3: false });
    try {
      await page.goto(`https://localhost:${holding.port}/`);
      await read(page, ['held']);
      // The stream is given up after five seconds, and what is left is to poll.
      await until('a poll', async () => (await streams(edge)).length === 1 && (await page.evaluate(() => performance.getEntriesByType('resource').length)) >= 2);
      await until('events', async () => {
        await edge.publish(['held'], '"x"');
        return (await seen(page)).length >= 3 || seen(page);
      });
    } finally {
      await close();
      holding.close();
      await edge.stop();
    }
  });

  test(`${name} over h3: a network that vanishes, and a page that is left and come back to`, { timeout: 3 * PATIENCE }, async () => {
    const edge = await start();
    const relay = await Relay.start(edge.port);
    const { page, close } = await browsers[name]({ port: relay.port, spki: edge.spki, http3: true });
    try {
      await page.goto(`https://localhost:${relay.port}/`);
      await read(page, ['a']);
      await untilSeen(page, [''], 'open');
      await edge.publish(['a'], '1');
      await untilSeen(page, ['1']);
      relay.freeze();
      await edge.publish(['a'], '2');
      await untilSeen(page, ['1', '2']);
      await edge.publish(['a'], '3');
      await untilSeen(page, ['1', '2', '3']);
    } finally {
      await close();
      relay.stop();
      await edge.stop();
    }
  });
}
