// Who a page's visitor is: an app of its own origin logs in, the edge knows the visitor by the
// cookie, and goes on where it was when the cookie is renewed.

import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import http from 'node:http';
import https from 'node:https';
import path from 'node:path';
import { test } from 'node:test';

import { free } from './apps.mjs';
import { browsers } from './browsers.mjs';
import { Edge, PATIENCE, Relay, until } from './edge.mjs';

const SECRET = '0123456789abcdef0123456789abcdef';

function mint(claims) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const message = `${part({ alg: 'HS256', typ: 'JWT' })}.${part(claims)}`;
  return `${message}.${createHmac('sha256', SECRET).update(message).digest('base64url')}`;
}

/** An app on another origin: a page, and a login that sets the cookie for a few seconds. */
async function startApp() {
  const app = { edge: undefined, logins: 0 };
  app.start = (pem) =>
    new Promise((resolve) => {
      app.server = https.createServer({ key: pem, cert: pem }, (request, response) => {
        const seconds = { '/login': 4, '/login-for-long': 60, '/expire': -1 }[request.url];
        if (seconds !== undefined) {
          app.logins += 1;
          const exp = Math.floor(Date.now() / 1000) + seconds;
          // Two, which browsers send as fields of their own over HTTP/2 and HTTP/3.
          const attributes = 'Secure; HttpOnly; SameSite=Lax; Path=/';
          const token = mint({ sub: 'bob', groups: ['editors'], exp });
          response.setHeader('set-cookie', [`a-theme=dark; ${attributes}`, `seventh=${token}; ${attributes}`]);
          response.end('welcome');
        } else {
          response.setHeader('content-type', 'text/html');
          response.end('<!doctype html><title>app</title>');
        }
      });
      app.server.listen(0, '127.0.0.1', () => resolve(app.server.address().port));
    });
  return app;
}

for (const [name, launch] of Object.entries(browsers)) {
  test(`${name}: a visitor is known across origins by the cookie, and stays so when it is renewed`, { timeout: 5 * PATIENCE }, async () => {
    // The edge must know the app's origin, and the app needs a certificate: the edge makes one
    // first, in a folder that both use.
    const seed = await Edge.start('');
    const pem = await readFile(path.join(seed.folder, 'certs/localhost.pem'));
    const app = await startApp();
    const port = await app.start(pem);
    const edge = await Edge.start(
      `events.retry = "500ms"
       [tls]
       directory = ${JSON.stringify(path.join(seed.folder, 'certs'))}
       [access]
       subscribe = ["authenticated", "anonymous"]
       origins = ["https://localhost:${port}"]
       expiry_notice = "2s"
       [[access.key]]
       algorithm = "HS256"
       secret = "${SECRET}"\n`,
    );
    let browser;
    try {
      browser = await launch({ port: edge.port, spki: edge.spki, http3: false });
      const { page } = browser;
      await page.goto(`https://localhost:${port}/`);
      await page.evaluate(async (edgePort) => {
        await fetch('/login');
        const url = (topic) => `https://localhost:${edgePort}/events?topic=${topic}`;
        window.seen = [];
        window.notices = 0;
        window.known = new EventSource(url('known'), { withCredentials: true });
        window.known.addEventListener('message', (event) => window.seen.push(event.data));
        // The page renews its cookie when it is told, and does nothing else.
        window.known.addEventListener('edge-auth', () => {
          window.notices += 1;
          fetch('/login');
        });
        window.unknown = new EventSource(url('unknown'));
      }, edge.port);
      const who = async (topic) => {
        const { streams } = await (await fetch(`${edge.control}/streams?topic=${topic}`)).json();
        return streams.map(({ user, groups }) => `${user}:${groups}`).join();
      };
      await until('bob', async () => (await who('known')) === 'bob:editors' || who('known'));
      await until('nobody', async () => (await who('unknown')) === 'null:' || who('unknown'));

      // Events go on through two renewals, without a reload, a loss or a double.
      let sent = 0;
      await until('two renewals', async () => {
        await edge.publish(['known'], String(sent));
        sent += 1;
        const notices = await page.evaluate(() => window.notices);
        return notices >= 2 || notices;
      });
      const opened = (await edge.metrics())['seventh_event_streams_opened_total{protocol="h2"}'];
      assert.ok(opened >= 3, `it was opened anew: ${opened}`);
      const expected = Array.from({ length: sent }, (_, n) => n).join();
      await until('every event once', async () => {
        const seen = await page.evaluate(() => window.seen.join());
        return seen === expected || seen;
      });
      assert.equal(await who('known'), 'bob:editors');
      // Whoever comes with one that is over is told so, and let in once it is renewed.
      await page.evaluate(async (edgePort) => {
        window.known.close();
        await fetch('/expire');
        window.reasons = [];
        window.expired = new EventSource(`https://localhost:${edgePort}/events?topic=expired`, { withCredentials: true });
        window.expired.addEventListener('edge-auth', ({ data }) => {
          const { reason } = JSON.parse(data);
          if (window.reasons.push(reason) === 1) fetch('/login-for-long');
        });
      }, edge.port);
      await until('bob again', async () => (await who('expired')) === 'bob:editors' || who('expired'));
      assert.equal(await page.evaluate(() => window.reasons[0]), 'expired');
      await page.evaluate(() => window.expired.close());
    } finally {
      await browser?.close();
      app.server.close();
      app.server.closeAllConnections();
      await edge.stop();
      await seed.stop();
    }
  });
}

test('the example of the documentation runs: an app, a page, the edge in front', { timeout: 3 * PATIENCE }, async () => {
  const example = path.resolve(import.meta.dirname ?? path.dirname(new URL(import.meta.url).pathname), '../../examples/who-gets-what');
  const [appPort, sessionPort] = [await free(), await free()];
  // The configuration as it is, but for the ports.
  const config = (await readFile(path.join(example, 'seventh.toml'), 'utf8'))
    .replace('127.0.0.1:3001', `127.0.0.1:${sessionPort}`)
    .replace('localhost:3000', `localhost:${appPort}`);
  const edge = await Edge.start(config);
  const app = spawn('python3', [path.join(example, 'app.py')], {
    env: {
      ...process.env,
      APP_PORT: appPort,
      SESSION_PORT: sessionPort,
      EDGE: `https://localhost:${edge.port}`,
      CONTROL: edge.control,
      CERTIFICATE: path.join(edge.folder, 'certs/localhost.pem'),
    },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let browser;
  try {
    await once(app.stdout, 'data');
    browser = await browsers.Chromium({ port: edge.port, spki: edge.spki, http3: false });
    const { page } = browser;
    const post = async (at, body) => {
      const response = await fetch(`${edge.control}${at}`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) });
      return response.json();
    };
    const listed = () => page.evaluate(() => [...document.querySelectorAll('#events li')].map((item) => item.textContent).join());
    const who = async () => (await (await fetch(`${edge.control}/streams`)).json()).streams.map(({ user }) => String(user)).join();

    await page.goto(`https://localhost:${appPort}/`);
    await until('nobody in particular', async () => (await who()) === 'null' || who());
    assert.equal((await post('/send', { data: 'x', groups: ['staff'] })).delivered, false);
    await page.goto(`https://localhost:${appPort}/login?user=bob`);
    await until('bob', async () => (await who()) === 'bob' || who());
    assert.deepEqual((await post('/send', { data: 'to staff', groups: ['staff'] })).receivers, 1);
    assert.deepEqual((await post('/broadcast', { data: 'to all who are logged in' })).receivers, 1);
    assert.deepEqual((await post('/publish', { topic: 'news', data: 'not to sales', to: { groups: ['editors'] } })).receivers, 1);
    await until('three events', async () => (await listed()) === 'to staff,to all who are logged in,not to sales' || listed());
    // Whoever logs out is nobody here, and in the tabs that are open.
    const other = await page.context().newPage();
    await other.goto(`https://localhost:${appPort}/`);
    await until('bob twice', async () => (await who()) === 'bob,bob' || who());
    await Promise.all([page.waitForNavigation(), page.click('form button')]);
    await until('nobody twice', async () => (await who()) === 'null,null' || who());
  } finally {
    await browser?.close();
    app.kill();
    await edge.stop();
  }
});

// A page of another site, whose browser sends no cookie along: what says who it is stands in the URL, and is spent
// by the time it comes back.
for (const name of Object.keys(browsers)) {
  for (const http3 of [false, true]) {
    const transport = http3 ? 'h3' : 'h2';
    test(`${name} over ${transport}: a ticket outlives three cuts, and nothing is lost`, { timeout: 3 * PATIENCE }, async () => {
      const site = http.createServer((_, response) => response.setHeader('content-type', 'text/html').end('<title>another site</title>'));
      await new Promise((resolve) => site.listen(0, '127.0.0.1', resolve));
      const origin = `http://127.0.0.1:${site.address().port}`;
      const edge = await Edge.start(`
access.origins = ["${origin}"]
access.subscribe = ["authenticated"]
access.audience = "seventh"
access.ticket_opens = "1s"
events.retry = "500ms"
[[access.key]]
algorithm = "HS256"
secret = "${SECRET}"
`);
      const relay = await Relay.start(edge.port);
      let browser;
      try {
        browser = await browsers[name]({ port: relay.port, spki: edge.spki, http3 });
        const { page } = browser;
        const json = { 'content-type': 'application/json' };
        const post = async (at, body) => (await fetch(`${edge.control}${at}`, { method: 'POST', headers: json, body: JSON.stringify(body) })).json();
        const { ticket } = await post('/tickets', { user: 'bob', groups: ['staff'] });
        await page.goto(origin);
        await page.evaluate(({ url }) => {
          window.seen = [];
          window.opens = [];
          window.source = new EventSource(url);
          window.source.onmessage = ({ data }) => window.seen.push(Number(data));
          window.source.addEventListener('edge-open', ({ data }) => window.opens.push(JSON.parse(data).user));
          window.source.addEventListener('edge-auth', ({ data }) => window.opens.push(JSON.parse(data).reason));
        }, { url: `https://localhost:${relay.port}/events?topic=t&ticket=${ticket}` });
        const opens = () => page.evaluate(() => window.opens.join());
        await until('the stream', async () => (await opens()) === 'bob' || opens());
        // What opens nothing any more by itself goes on with what it has read.
        const spent = () => page.evaluate(({ url }) => new Promise((resolve) => {
          const another = new EventSource(url);
          const end = ({ data }) => { another.close(); resolve(JSON.parse(data).reason === 'ticket'); };
          another.addEventListener('edge-open', end);
          another.addEventListener('edge-auth', end);
        }), { url: `https://localhost:${relay.port}/events?ticket=${ticket}` });
        await until('the end of its time', spent);
        let sent = 0;
        for (let cut = 1; cut <= 3; cut += 1) {
          await post('/send', { groups: 'staff', data: String(sent += 1) });
          if (http3) {
            // A browser takes a minute to see that nothing comes over UDP any more: its stream is ended.
            const { streams } = await (await fetch(`${edge.control}/streams?user=bob`)).json();
            for (const { id } of streams) await fetch(`${edge.control}/streams/${id}`, { method: 'DELETE' });
          } else {
            relay.cut();
          }
          await post('/send', { users: 'bob', data: String(sent += 1) });
          await until(`stream number ${cut + 1}`, async () => (await opens()).split(',').length > cut || opens());
        }
        await post('/publish', { topic: 't', data: String(sent += 1) });
        const seen = () => page.evaluate(() => window.seen);
        await until('all of it', async () => (await seen()).length === sent || seen());
        assert.deepEqual(await seen(), Array.from({ length: sent }, (_, at) => at + 1));
        assert.match(await opens(), /^bob(,bob)+$/);
      } finally {
        await browser?.close();
        relay.stop();
        site.close();
        site.closeAllConnections();
        await edge.stop();
      }
    });
  }
}
