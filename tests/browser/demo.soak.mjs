// What takes too long for every run: the demo page with all of its 900 streams and its pulse, over
// HTTP/3, for two minutes. Run by `make soak`.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { browsers } from './browsers.mjs';
import { Edge, until } from './edge.mjs';

const SECONDS = 120;

for (const [name, launch] of Object.entries(browsers)) {
  test(`${name}: the demo page lives for two minutes of 900 streams and their pulse`, { timeout: 2 * SECONDS * 1000 }, async () => {
    const edge = await Edge.start('');
    let browser;
    try {
      browser = await launch({ port: edge.port, spki: edge.spki, http3: true });
      const { page } = browser;
      await page.goto(`https://localhost:${edge.port}/`);
      const shown = (key) => page.evaluate((key) => Number(document.documentElement.dataset[key]), key);
      await page.evaluate(() => document.getElementById('open-900').click());
      await until('900 open streams', async () => (await shown('open')) === 900 || shown('open'));
      await page.evaluate(() => document.getElementById('pulse').click());
      const published = async () => (await edge.metrics()).seventh_events_published_total;
      let [pulses, events] = [await published(), await shown('events')];
      for (let second = 10; second <= SECONDS; second += 10) {
        await new Promise((resolve) => setTimeout(resolve, 10_000));
        assert.equal(await shown('open'), 900, `after ${second} s`);
        const [pulsesNow, eventsNow] = [await published(), await shown('events')];
        // Four a second, each to 900 streams; a slow machine may do with half.
        assert.ok(pulsesNow >= pulses + 20, `${pulsesNow - pulses} pulses in the 10 s to ${second} s`);
        assert.ok(eventsNow >= events + 900 * 20, `${eventsNow - events} events in the 10 s to ${second} s`);
        [pulses, events] = [pulsesNow, eventsNow];
      }
      console.log(`      ${pulses} pulses, ${events} events`);
      const metrics = await edge.metrics();
      assert.equal(metrics['seventh_event_streams_opened_total{protocol="h3"}'] ?? 901, 901, 'none was opened twice, and one is of what the edge says of itself');
    } finally {
      await browser?.close();
      await edge.stop();
    }
  });
}
