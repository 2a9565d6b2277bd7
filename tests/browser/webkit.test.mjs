// The basics in WebKit, over HTTP/2 and HTTP/1.1: streams, what an edge says, resuming, a gentle refusal,
// and the client script.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Edge, PATIENCE, Relay, front, until } from './edge.mjs';
import { launchWebKit } from './webkit.mjs';

test('WebKit over h2: streams, resuming, the script for all tabs', { timeout: 3 * PATIENCE }, async () => {
  const edge = await Edge.start('events.retry = "500ms"\nevents.keepalive = "1s"\n');
  const relay = await Relay.start(edge.port);
  const page = await launchWebKit();
  try {
    await page.goto(`https://localhost:${relay.port}/`);
    const opened = await page.evaluate(async () => {
      window.seen = [];
      window.errors = 0;
      const open = (topic) => new Promise((resolve) => {
        const source = new EventSource(`/events?topic=${topic}&edge=heartbeat`);
        source.onopen = () => resolve(source);
        source.onmessage = ({ data, lastEventId }) => window.seen.push([topic, data, lastEventId]);
        source.onerror = () => { window.errors += 1; };
        source.addEventListener('edge-ping', () => { window.pinged = true; });
      });
      window.sources = await Promise.all(Array.from({ length: 100 }, (_, n) => open(`w/${n}`)));
      return performance.getEntriesByType('navigation')[0].nextHopProtocol;
    });
    assert.ok(['h2', ''].includes(opened), opened);
    const metrics = await edge.metrics();
    assert.equal(metrics['seventh_event_streams{protocol="h2"}'], 100);
    const topics = Array.from({ length: 100 }, (_, n) => `w/${n}`);
    const seen = async (count) => until(`${count} events`, async () => {
      const { length } = await page.evaluate(() => window.seen);
      return length === count || length;
    });
    await edge.publish(topics, '1');
    await seen(100);
    await until('a heartbeat', () => page.evaluate(() => window.pinged === true));
    const events = await page.evaluate(() => window.seen);
    for (const topic of topics) {
      assert.deepEqual(events.filter(([of]) => of === topic).map(([, data]) => data), ['1'], topic);
    }
    // A stream that ends in good order goes on where it was.
    await page.evaluate(async () => {
      for (const source of window.sources) source.close();
      window.aged = [];
      const source = new EventSource('/events?topic=aged&max_age=10s');
      source.onmessage = ({ data }) => window.aged.push(data);
      await new Promise((resolve) => { source.onopen = resolve; });
    });
    await edge.publish(['aged'], '1');
    await until('the end of its age', async () => (await edge.metrics()).seventh_event_streams_aged_total === 1);
    await edge.publish(['aged'], '2');
    await until('both', async () => (await page.evaluate(() => window.aged)).join() === '1,2');
    await page.evaluate(async () => {
      const { EdgeSource } = await import('/.seventh/edge.js');
      window.said = [];
      window.source = new EdgeSource(['x']);
      window.source.onmessage = ({ data }) => window.said.push(data);
      await new Promise((resolve) => { window.source.onopen = resolve; });
    });
    await edge.publish(['x'], 'by the script');
    await until('an event', async () => (await page.evaluate(() => window.said)).join() === 'by the script');
    // Its network stack does not notice that a connection was reset; the script does.
    relay.cut();
    await edge.publish(['x'], 'after the cut');
    await until('what it missed', async () => (await page.evaluate(() => window.said)).join() === 'by the script,after the cut');
  } finally {
    await page.close();
    relay.stop();
    await edge.stop();
  }
});

test('WebKit over h1: five streams and a call beside them', { timeout: 3 * PATIENCE }, async () => {
  const edge = await Edge.start('');
  const way = await front(edge, (answer, response) => answer.pipe(response.writeHead(answer.statusCode, answer.headers)));
  const page = await launchWebKit();
  try {
    await page.goto(`https://localhost:${way.port}/`);
    await page.evaluate(async () => {
      window.seen = [];
      const open = (n) => new Promise((resolve) => {
        const source = new EventSource(`/events?topic=w/${n}`);
        source.onopen = resolve;
        source.onmessage = ({ data }) => window.seen.push(data);
      });
      await Promise.all([0, 1, 2, 3, 4].map(open));
    });
    await edge.publish(['w/0', 'w/1', 'w/2', 'w/3', 'w/4'], 'x');
    await until('five events', async () => (await page.evaluate(() => window.seen)).length === 5);
    assert.equal(await page.evaluate(async () => (await fetch('/')).status), 200);
    assert.equal((await edge.metrics())['seventh_event_streams{protocol="h1"}'], 5);
  } finally {
    await page.close();
    way.close();
    await edge.stop();
  }
});
