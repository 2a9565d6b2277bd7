// An app as people write them: Express, the `ws` package, and an event stream by hand.

import http from 'node:http';

import express from 'express';
import { WebSocketServer } from 'ws';

const app = express();
let next = 1;
app.use(express.json({ limit: '8mb' }));
app.get('/', (request, response) => response.type('html').send('<!doctype html><title>app</title>'));
app.get('/seen', (request, response) => {
  const { protocol, hostname, ip, originalUrl } = request;
  response.json({ protocol, hostname, ip, originalUrl });
});
app.set('trust proxy', 'loopback');
app.post('/json', (request, response) => response.json({ length: request.body.text.length }));
app.post('/publish', (request, response) => {
  const data = JSON.stringify(request.body);
  for (const stream of streams) stream.write(`data: ${data}\n\n`);
  response.json({ streams: streams.size, number: next++ });
});
const streams = new Set();
app.get('/events', (request, response) => {
  response.set({ 'content-type': 'text/event-stream', 'cache-control': 'no-cache' }).flushHeaders();
  streams.add(response);
  request.on('close', () => streams.delete(response));
});

const server = http.createServer(app).listen(Number(process.env.PORT), '127.0.0.1');
const sockets = new WebSocketServer({ server, path: '/ws' });
sockets.on('connection', (socket) => socket.on('message', (data, binary) => socket.send(data, { binary })));
