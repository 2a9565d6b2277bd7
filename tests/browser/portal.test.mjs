// In front of an app, in real browsers: the examples, and an app that is killed in the middle of its stream.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';

import { free, kill, start } from './apps.mjs';
import { browsers } from './browsers.mjs';
import { Edge, PATIENCE, until } from './edge.mjs';

const portal = path.resolve(import.meta.dirname ?? path.dirname(new URL(import.meta.url).pathname), '../../examples/portal');
const commands = {
  Node: () => ['node', 'app.mjs'],
  Python: () => ['python3', 'app.py'],
  PHP: (port) => ['php', '-S', `127.0.0.1:${port}`, 'app.php'],
};

const startPortal = (language, port, control) =>
  start(commands[language](port), portal, port, { CONTROL: control, PHP_CLI_SERVER_WORKERS: 6 });

async function edgeInFront(port) {
  const config = await readFile(path.join(portal, 'seventh.toml'), 'utf8');
  return Edge.start(config.replaceAll(':3000', `:${port}`));
}

for (const language of Object.keys(commands)) {
  test(`the portal in ${language}: login, publishing, both streams on one origin`, { timeout: 3 * PATIENCE }, async () => {
    const port = await free();
    const edge = await edgeInFront(port);
    const app = await startPortal(language, port, edge.control);
    let browser;
    try {
      browser = await browsers.Chromium({ port: edge.port, spki: edge.spki, http3: false });
      const { page } = browser;
      const text = (id) => page.evaluate((id) => document.getElementById(id).textContent, id);
      await page.goto(`https://localhost:${edge.port}/`);
      assert.equal(await text('user'), 'nobody yet');
      await page.fill('[name=user]', 'bob');
      await Promise.all([page.waitForNavigation(), page.click('[action="/login"] button')]);
      assert.equal(await text('user'), 'bob');
      await until('bob, to the hub', async () => {
        const { streams } = await (await fetch(`${edge.control}/streams`)).json();
        const users = streams.map(({ user }) => user).join();
        return users === 'bob' || users;
      });
      const event = { topic: 'game/7', event: 'startingfive', data: 'James, Davis', to: { users: ['bob'] } };
      const headers = { 'content-type': 'application/json' };
      await fetch(`${edge.control}/publish`, { method: 'POST', headers, body: JSON.stringify(event) });
      await until('the starting five', async () => (await text('startingfive')) === 'James, Davis' || text('startingfive'));
      // Publishing is a form of the app's, and the page is opened anew: history is not asked for.
      await page.fill('[name=data]', '31:30');
      await page.evaluate(() => {
        const form = document.querySelector('[action="/publish"]');
        return fetch('/publish', { method: 'POST', body: new URLSearchParams(new FormData(form)) });
      });
      await until('the score', async () => (await text('score')) === '31:30' || text('score'));
      await until('the clock of the app', async () => Number(await text('clock')) > 1e9 || text('clock'));
    } finally {
      await browser?.close();
      await kill(app);
      await edge.stop();
    }
  });
}

for (const name of Object.keys(browsers)) {
  for (const http3 of [false, true]) {
    test(`${name} over ${http3 ? 'h3' : 'h2'}: an app that is killed and started again`, { timeout: 3 * PATIENCE }, async () => {
      const port = await free();
      const edge = await edgeInFront(port);
      let app = await startPortal('Node', port, edge.control);
      let browser;
      try {
        browser = await browsers[name]({ port: edge.port, spki: edge.spki, http3 });
        const { page } = browser;
        await page.goto(`https://localhost:${edge.port}/`);
        await page.evaluate(() => {
          window.seen = { yes: [], no: [] };
          window.errors = 0;
          window.gaps = [];
          for (const ids of ['yes', 'no']) {
            const source = new EventSource(`/ticker?ids=${ids}`);
            source.onmessage = (event) => window.seen[ids].push(Number(event.data));
            source.onerror = () => { window.errors += 1; };
            source.addEventListener('edge-gap', (event) => window.gaps.push(`${ids}: ${JSON.parse(event.data).reason}`));
          }
        });
        const counts = () => page.evaluate(() => [window.seen.yes.length, window.seen.no.length]);
        const more = async (what) => {
          const before = await counts();
          await until(what, async () => {
            const now = await counts();
            return now.every((count, at) => count >= before[at] + 10) || now.join();
          });
        };
        await more('events');
        for (const round of [1, 2]) {
          await kill(app);
          app = await startPortal('Node', port, edge.control);
          await more(`events after the restart, number ${round}`);
        }
        const { seen, errors, gaps } = await page.evaluate(() => ({ seen: window.seen, errors: window.errors, gaps: window.gaps }));
        assert.equal(errors, 0, 'no page noticed');
        // Every tick of the app that has ids, once and in order.
        assert.deepEqual(seen.yes, seen.yes.map((_, at) => seen.yes[0] + at));
        assert.deepEqual(gaps, ['no: upstream', 'no: upstream']);
      } finally {
        await browser?.close();
        await kill(app);
        await edge.stop();
      }
    });
  }
}
