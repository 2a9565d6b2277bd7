// What the edge promises to people, in real Chromium and real Firefox, over HTTP/2 and HTTP/3.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { browsers } from './browsers.mjs';
import { Edge, PATIENCE, Relay, until } from './edge.mjs';

// A silent QUIC connection is given up after the keepalive: the test need not wait for long.
const CONFIG = 'events.keepalive = "3s"\nevents.retry = "500ms"\n';

/** Runs `act` with a browser on the page of an edge behind a relay. */
async function withPage(launch, http3, act, config = CONFIG) {
  const edge = await Edge.start(config);
  const relay = await Relay.start(edge.port);
  let browser;
  try {
    browser = await launch({ port: relay.port, spki: edge.spki, http3 });
    await browser.page.goto(`https://localhost:${relay.port}/`);
    await act({ edge, relay, page: browser.page });
  } finally {
    await browser?.close();
    relay.stop();
    await edge.stop();
  }
}

/** In the page: opens event sources, each of its own topic, and notes what they get. */
function openSources(count) {
  window.sources = Array.from({ length: count }, (_, n) => {
    const source = new EventSource(`/events?topic=t/${n}`);
    source.seen = [];
    source.gaps = 0;
    source.opens = 0;
    source.addEventListener('edge-open', () => (source.opens += 1));
    source.addEventListener('edge-gap', () => (source.gaps += 1));
    source.addEventListener('message', (event) => source.seen.push(event.data));
    return source;
  });
}

const openCount = (page) => page.evaluate(() => window.sources.filter((source) => source.readyState === 1 && source.opens > 0).length);

async function untilOpen(page, count) {
  await until(`${count} open sources`, async () => {
    const open = await openCount(page);
    return open === count || open;
  });
}

/** Waits until every source has seen exactly these events, in this order. */
async function untilSeen(page, expected) {
  await until(`${expected} on every source`, () =>
    page.evaluate((expected) => {
      const seen = window.sources.map((source) => source.seen.join());
      const wrong = seen.filter((list) => !expected.startsWith(list));
      if (wrong.length > 0) return `lost or doubled: ${wrong[0]}`;
      return seen.every((list) => list === expected) || seen.filter((list) => list !== expected).length;
    }, expected),
  );
}

async function manySources({ edge, relay, page }, count, protocol) {
  const topics = Array.from({ length: count }, (_, n) => `t/${n}`);
  const spoken = await page.evaluate(() => performance.getEntriesByType('navigation')[0].nextHopProtocol);
  assert.equal(spoken, protocol);

  await page.evaluate(openSources, count);
  await untilOpen(page, count);
  await until('one connection', async () => {
    const metrics = await edge.metrics();
    const connections = ['h1', 'h2', 'h3'].map((name) => metrics[`seventh_connections{protocol="${name}"}`]);
    const streams = metrics[`seventh_event_streams{protocol="${protocol}"}`];
    const wanted = protocol === 'h2' ? [0, 1, 0] : [0, 0, 1];
    return (streams === count && wanted.every((n, i) => n === connections[i])) || { connections, streams };
  });

  await edge.publish(topics, '0');
  await edge.publish(topics, '1');
  await untilSeen(page, '0,1');

  const status = await page.evaluate(async () => (await fetch('/', { cache: 'no-store' })).status);
  assert.equal(status, 200, 'an ordinary fetch still answers');

  relay.cut();
  await edge.publish(topics, '2');
  await edge.publish(topics, '3');
  await untilSeen(page, '0,1,2,3');
  await edge.publish(topics, '4');
  await untilSeen(page, '0,1,2,3,4');
  const gaps = await page.evaluate(() => window.sources.reduce((sum, source) => sum + source.gaps, 0));
  assert.equal(gaps, 0, 'history held all that was missed');
  await page.evaluate(() => window.sources.forEach((source) => source.close()));
}

for (const [name, launch] of Object.entries(browsers)) {
  for (const protocol of ['h2', 'h3']) {
    test(`${name} over ${protocol}: 200 event sources on one connection`, { timeout: 5 * PATIENCE }, () =>
      withPage(launch, protocol === 'h3', (context) => manySources(context, 200, protocol)));
  }
}

test('Chromium over h3: 600 event sources on one connection', { timeout: 5 * PATIENCE }, () =>
  withPage(browsers.Chromium, true, (context) => manySources(context, 600, 'h3')));

/** Fetches a page so many times, one after the other; how long the slowest took, in milliseconds. */
const fetchMany = async (count) => {
  let slowest = 0;
  for (let n = 0; n < count; n++) {
    const begun = performance.now();
    const response = await fetch('/', { cache: 'no-store' });
    await response.text();
    slowest = Math.max(slowest, performance.now() - begun);
  }
  return slowest;
};

for (const [name, launch] of Object.entries(browsers)) {
  test(`${name} over h3: 1,000 event sources, and 400 requests beside them`, { timeout: 5 * PATIENCE }, () =>
    withPage(launch, true, async ({ page }) => {
      await page.evaluate(openSources, 1000);
      await untilOpen(page, 1000);
      await page.evaluate(`(${fetchMany})(400)`);
      await page.evaluate(() => window.sources.forEach((source) => source.close()));
    }));
}

test('Chromium over h2: 300 event sources asked for, calls answered meanwhile, and all get their turn', { timeout: 5 * PATIENCE }, () =>
  withPage(
    browsers.Chromium,
    false,
    async ({ edge, page }) => {
      await page.evaluate(openSources, 300);
      await until('240 open', async () => {
        const open = (await edge.metrics())['seventh_event_streams{protocol="h2"}'];
        return open === 240 || open;
      });
      const slowest = await page.evaluate(`(${fetchMany})(10)`);
      assert.ok(slowest < 10_000, `${slowest} ms`);
      console.log(`      the slowest of ten calls beside 240 streams: ${Math.round(slowest)} ms`);
      // As others close, those that were told to come back get in.
      await page.evaluate(() => window.sources.slice(0, 100).forEach((source) => source.close()));
      await until('the rest', () =>
        page.evaluate(() => window.sources.slice(100).every((source) => source.readyState === EventSource.OPEN)));
      await edge.publish(Array.from({ length: 200 }, (_, n) => `t/${n + 100}`), 'hello');
      await until('their events', () =>
        page.evaluate(() => window.sources.slice(100).every((source) => source.seen.includes('hello'))));
    },
  ));

for (const [name, launch] of Object.entries(browsers)) {
  test(`${name}: the demo page opens 50 streams and publishes to them`, { timeout: 5 * PATIENCE }, () =>
    withPage(launch, true, async ({ page }) => {
      const shown = (key) => page.evaluate((key) => Number(document.documentElement.dataset[key]), key);
      await page.evaluate(() => document.getElementById('open-50').click());
      await until('50 open streams', async () => (await shown('open')) === 50 || shown('open'));
      const server = () => page.evaluate(() => document.getElementById('server').textContent);
      await until('what the edge says of itself', async () => /^The server: \d+ streams on (one|\d+) connection/.test(await server()) || server());
      const before = await shown('events');
      await page.evaluate(() => {
        document.getElementById('text').value = 'hello from a test';
        document.getElementById('publish').requestSubmit();
      });
      await until('events on the page', async () => (await shown('events')) > before);
      await page.evaluate(() => document.getElementById('open-0').click());
      await until('no open streams', async () => (await shown('open')) === 0 || shown('open'));
    }));
}

for (const [name, launch] of Object.entries(browsers)) {
  test(`${name}: a gentle refusal is survived, and a 404 is for good`, { timeout: 5 * PATIENCE }, () =>
    withPage(
      launch,
      true,
      async ({ page }) => {
        await page.evaluate(openSources, 16);
        await untilOpen(page, 16);
        // The seventeenth is told to come back later, and does, once there is room.
        await page.evaluate(() => {
          window.late = new EventSource('/events?topic=late');
          window.late.errors = [];
          window.late.onerror = () => window.late.errors.push(window.late.readyState);
          window.late.addEventListener('edge-open', () => (window.late.welcome = true));
        });
        await until('a refusal', () => page.evaluate(() => window.late.errors.length > 0));
        assert.equal(await page.evaluate(() => window.late.errors[0]), 0, 'it will reconnect');
        await page.evaluate(() => window.sources.pop().close());
        await until('a welcome', () => page.evaluate(() => window.late.welcome === true));

        const ended = await page.evaluate(
          () =>
            new Promise((resolve) => {
              const source = new EventSource('/nothing-here');
              source.onerror = () => resolve(source.readyState);
            }),
        );
        assert.equal(ended, 2);
      },
      `${CONFIG}limits.event_streams_http3 = 16\n`,
    ));
}
