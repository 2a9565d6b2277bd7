// The portal's app in Node: login, a page, publishing, and an event stream of its own.
import { randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import http from 'node:http';

const { PORT = '3000', CONTROL = 'http://127.0.0.1:7070' } = process.env;
const users = new Map(); // cookie -> user
const tick = () => Math.floor(Date.now() / 100);

http.createServer(async (request, response) => {
  const user = users.get(/sid=([^;]+)/.exec(request.headers.cookie)?.[1]);
  const form = async () => new URLSearchParams((await request.toArray()).join(''));
  const redirect = (headers) => response.writeHead(303, { location: '/', ...headers }).end();
  if (request.url === '/') {
    const page = await readFile(new URL('page.html', import.meta.url), 'utf8');
    response.setHeader('content-type', 'text/html; charset=utf-8').end(page.replace('USER', user ?? 'nobody yet'));
  } else if (request.url === '/login') {
    const sid = randomUUID();
    users.set(sid, (await form()).get('user'));
    redirect({ 'set-cookie': `sid=${sid}; HttpOnly; SameSite=Lax; Path=/` });
  } else if (request.url === '/session') {
    response.writeHead(user ? 200 : 401, user ? { 'remote-user': user } : {}).end();
  } else if (request.url === '/publish' && user) {
    const { event, data } = Object.fromEntries(await form());
    const headers = { 'content-type': 'application/json' };
    await fetch(`${CONTROL}/publish`, { method: 'POST', headers, body: JSON.stringify({ topic: 'game/7', event, data }) });
    redirect();
  } else if (request.url.startsWith('/ticker')) {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    let next = Number(request.headers['last-event-id'] ?? tick()) + 1;
    const ids = request.url !== '/ticker?ids=no';
    const timer = setInterval(() => {
      for (; next <= tick(); next += 1) response.write(`${ids ? `id: ${next}\n` : ''}data: ${next}\n\n`);
    }, 20);
    response.on('close', () => clearInterval(timer));
  } else response.writeHead(404).end();
}).listen(Number(PORT), '127.0.0.1', () => console.log(`http://127.0.0.1:${PORT}`));
