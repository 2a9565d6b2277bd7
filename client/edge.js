// One event stream of a Seventh edge for all tabs of a browser, which notices when it is dead.
//
//   import { EdgeSource } from '/.seventh/edge.js';
//   const source = new EdgeSource(['orders/eu', 'news']);
//   source.addEventListener('message', (event) => console.log(event.lastEventId, event.topics, event.data));
//
// Tabs agree by a Web Lock on the one that reads the stream, with the topics of all; it tells the others by
// a BroadcastChannel. When it goes, another goes on with the last id. docs/event-streams.md says more.

const EVENTS = '/events';
const FIRST_MS = 5000; // until `edge-open`, or the stream is held back by something on the way
const POLL_MS = 40_000; // until the answer to a poll; the edge answers after 25 s
const SILENT = 2.5; // keepalives without a byte, and the stream is dead
const RETRY_MS = [1000, 30_000];
const STREAM_AGAIN_MS = 300_000; // after which a client that polls tries a stream again

const AGAIN = 'again'; // why a request is aborted that another one follows at once

const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const overlap = (one, other) => one.some((topic) => other.includes(topic));

/** What an event stream says: events with the topics that bring them, `{ retry }`, and `null` whenever anything was heard. */
async function* read(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '', message = {}, topics = [];
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    yield null;
    const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop();
    for (const line of lines) {
      const [, field, text] = /^([^:]*):? ?(.*)$/s.exec(line);
      if (line !== '') message[field] = field === 'data' && message.data !== undefined ? `${message.data}\n${text}` : text;
      else {
        const { event, data, id: lastEventId } = message;
        const type = event || 'message';
        if (message.retry !== undefined) yield { retry: Number(message.retry) };
        message = {};
        if (type === 'edge-topic') ({ topics } = JSON.parse(data));
        else if (data !== undefined) {
          yield { type, data, lastEventId, topics };
          topics = [];
        }
      }
    }
    // A lone `retry` at the end of a stream has no empty line after it.
    if (message.retry !== undefined) yield { retry: Number(message.retry) };
  }
}

/** What the tabs of one browser share of one URL. */
class Shared {
  static #all = new Map();
  #url;
  #name;
  #id = crypto.randomUUID();
  #sources = new Set();
  #channel = null;
  #away = null; // ends what this tab holds of the locks
  #present = false;
  #leads = false;
  #members = new Map(); // of the one that leads: what each tab wants
  #reading = null; // aborts the request in flight
  #woken = () => {};
  #heard = 0;
  #keepalive = 15;
  #polls = 0; // since when, if it does
  #soon = 0; // a timer
  last = '';

  static of(url) {
    if (!this.#all.has(url)) this.#all.set(url, new this(url));
    return this.#all.get(url);
  }

  constructor(url) {
    this.#url = url;
    this.#name = `seventh ${url}`;
    setInterval(() => this.#watch(), 1000);
    addEventListener('online', () => this.#leads && this.#again());
    addEventListener('pagehide', () => this.#leave());
    addEventListener('pageshow', ({ persisted }) => persisted && this.#sources.size > 0 && this.#join());
    document.addEventListener('visibilitychange', () => document.hidden || this.#watch() || this.#woken());
  }

  add(source) {
    this.#sources.add(source);
    if (this.#away === null) this.#join();
    else this.#want(true);
  }

  remove(source) {
    this.#sources.delete(source);
    if (this.#sources.size === 0) this.#leave();
    else this.#want();
  }

  #join() {
    const away = this.#away = new AbortController();
    this.#heard = Date.now();
    for (const source of this.#sources) source.begins(this.last);
    if (!navigator.locks || !globalThis.BroadcastChannel) return this.#lead();
    this.#channel = new BroadcastChannel(this.#name);
    this.#channel.onmessage = ({ data }) => this.#hear(data);
    const held = (release) => away.signal.addEventListener('abort', release);
    this.#queue({ signal: away.signal });
    // By this lock the one that leads knows when the tab is gone: it is not to be told of it before.
    navigator.locks.request(`${this.#name} ${this.#id}`, () => {
      this.#present = true;
      this.#want();
      return new Promise(held);
    });
  }

  #queue(options) {
    const { signal } = this.#away;
    const led = navigator.locks.request(this.#name, options, () => {
      if (signal.aborted) return undefined;
      this.#lead();
      return new Promise((release) => signal.addEventListener('abort', release));
    });
    // Taken by another, who has heard nothing of this one.
    led.catch(() => {
      if (signal.aborted || !this.#leads) return;
      this.#follow();
      this.#queue({ signal });
    });
  }

  #leave() {
    this.#tell({ kind: 'gone', id: this.#id });
    this.#follow();
    this.#away?.abort();
    this.#channel?.close();
    this.#away = this.#channel = null;
    this.#present = false;
  }

  #follow() {
    this.#leads = false;
    this.#reading?.abort();
    this.#woken();
  }

  #topics() {
    return [...this.#sources].flatMap((source) => source.topics);
  }

  /** Says what it wants; of a stream that is `fresh` it hears from the next request on. */
  #want(fresh = false) {
    this.#tell({ kind: 'want', id: this.#id, topics: this.#topics(), fresh });
  }

  #tell(message) {
    this.#channel?.postMessage(message);
    this.#hear(message);
  }

  #hear(message) {
    if (message.kind === 'who' && this.#present) this.#want();
    else if (message.kind === 'want' && this.#leads) this.#member(message);
    else if (message.kind === 'gone' && this.#leads) this.#members.delete(message.id);
    if (message.keepalive === undefined) return;
    this.#heard = Date.now();
    this.#keepalive = message.keepalive;
    if (message.lastEventId) this.last = message.lastEventId;
    if (message.to === undefined || message.to === this.#id) for (const source of this.#sources) source.hear(message);
  }

  // --- The one that leads

  #lead() {
    this.#leads = true;
    this.#members.clear();
    this.#member({ id: this.#id, topics: this.#topics() });
    this.#channel?.postMessage({ kind: 'who' });
    this.#run();
  }

  #member({ id, topics, fresh }) {
    const comes = !this.#members.has(id);
    this.#members.set(id, topics);
    if (comes && id !== this.#id) navigator.locks.request(`${this.#name} ${id}`, () => this.#members.delete(id));
    if (!comes && !fresh) return;
    clearTimeout(this.#soon);
    this.#soon = setTimeout(() => this.#again(), 50);
  }

  #wanted() {
    return new Set([...this.#members.values()].flat());
  }

  #say(message) {
    this.#tell({ keepalive: this.#keepalive, ...message });
  }

  /** A stream that is silent for too long is dead, whatever it says of itself; so is one that leads and is. */
  #watch() {
    const silent = Date.now() - this.#heard > SILENT * 1000 * this.#keepalive;
    if (!silent || this.#away === null || (this.#leads && this.#members.size === 0)) return false;
    this.#heard = Date.now();
    if (this.#leads) this.#again();
    else if (!document.hidden) this.#queue({ steal: true });
    return true;
  }

  /** Another request, now. */
  #again() {
    this.#reading?.abort(AGAIN);
    this.#woken();
  }

  async #run() {
    const { signal } = this.#away;
    await wait(50); // for what the other tabs want
    for (let failures = 0; this.#leads && !signal.aborted;) {
      const woken = new Promise((resolve) => { this.#woken = resolve; });
      if (this.#members.size === 0) { await woken; continue; }
      const { again, open, retry } = await this.#request([...this.#wanted()]);
      if (!this.#leads || signal.aborted) return;
      failures = open ? 0 : failures + 1;
      if (again) continue;
      this.#say({ kind: 'lost' });
      const backoff = Math.min(RETRY_MS[1], RETRY_MS[0] * 2 ** Math.min(failures, 10)) * (0.5 + Math.random() / 2);
      await Promise.race([wait(retry ?? backoff), woken]);
    }
  }

  /** One request: how it went. */
  async #request(topics) {
    const reading = this.#reading = new AbortController();
    if (this.#polls && Date.now() - this.#polls > STREAM_AGAIN_MS) this.#polls = 0;
    const polls = this.#polls > 0;
    let open = false, retry;
    const late = setTimeout(() => {
      this.#polls ||= Date.now();
      reading.abort(polls ? undefined : AGAIN);
    }, polls ? POLL_MS : FIRST_MS);
    try {
      const response = await this.#ask(topics, this.last, polls, reading.signal);
      if (!response.ok || response.status === 204) return await this.#refused(response.status, topics);
      for await (const message of read(response)) {
        this.#heard = Date.now();
        if (message === null) { if (open) this.#say({ kind: 'alive' }); continue; }
        if (message.retry !== undefined) { retry = message.retry; continue; }
        if (message.type === 'edge-open') {
          open = true;
          clearTimeout(late);
          // An answer to a poll that is held back comes whole: until then nothing is heard.
          this.#keepalive = Math.max(JSON.parse(message.data).keepalive, polls ? POLL_MS / 1000 / SILENT : 0);
        }
        this.#say({ kind: 'said', all: topics, ...message });
      }
      return polls && open ? { again: true } : { open, retry };
    } catch {
      // Aborted, cut, or not to be reached: who cannot poll either has no network, and begins with a stream.
      const again = reading.signal.reason === AGAIN;
      if (polls && !again) this.#polls = 0;
      return { again, open, retry };
    } finally {
      clearTimeout(late);
      reading.abort();
    }
  }

  #ask(topics, last, polls, signal, method = 'GET') {
    const url = new URL(this.#url, location.href);
    for (const topic of topics) url.searchParams.append('topic', topic);
    url.searchParams.set('edge', 'sync,topics');
    if (last) url.searchParams.set('lastEventId', last);
    if (polls) url.searchParams.set('poll', '1');
    const credentials = url.origin === location.origin ? 'same-origin' : 'include';
    return fetch(url, { method, signal, credentials, cache: 'no-store', headers: { accept: 'text/event-stream' } });
  }

  /** Of many tabs one may want what it must not have: the others go on without it. */
  async #refused(status, topics) {
    if (status === 429 || status >= 500) return {};
    let left = false;
    for (const [id, wants] of status === 204 ? [] : this.#members) {
      const { ok, status } = await this.#ask(wants, '', false, undefined, 'HEAD').catch(() => ({ ok: true }));
      if (!ok) {
        this.#members.delete(id);
        this.#say({ kind: 'closed', status, to: id });
        left = true;
      }
    }
    if (left && this.#members.size > 0) return { again: true };
    this.#say({ kind: 'closed', status });
    this.#members.clear();
    return { again: true };
  }

  /** What a page missed that comes with an id of its own, for it alone: `edge-sync` is the last of it. */
  async catchUp(topics, lastEventId, hear) {
    const reading = new AbortController();
    try {
      const response = await this.#ask(topics, lastEventId, false, reading.signal);
      if (!response.ok || response.status === 204) return;
      for await (const message of read(response)) {
        if (message?.data === undefined || message.type === 'edge-open') continue;
        hear(message);
        if (message.type === 'edge-sync') return;
      }
    } catch {
      // The stream that all share goes on.
    } finally {
      reading.abort();
    }
  }
}

/** An `EventSource` of some topics, whose stream all tabs of the browser share. */
export class EdgeSource extends EventTarget {
  static CONNECTING = 0;
  static OPEN = 1;
  static CLOSED = 2;
  #shared;
  #from;
  #waiting = null; // what comes while a page catches up
  #joined = false;
  readyState = EdgeSource.CONNECTING;

  constructor(topics, { url = EVENTS, lastEventId = '' } = {}) {
    super();
    this.topics = [topics].flat();
    this.url = new URL(url, location.href).href;
    this.#from = lastEventId;
    this.#shared = Shared.of(this.url);
    for (const type of ['open', 'message', 'error']) {
      this[`on${type}`] = null;
      this.addEventListener(type, (event) => this[`on${type}`]?.(event));
    }
    this.#shared.add(this);
  }

  /** The last id that any of the tabs has seen: where all of them stand. */
  get lastEventId() {
    return this.#shared.last;
  }

  close() {
    this.readyState = EdgeSource.CLOSED;
    this.#shared.remove(this);
  }

  /** Its tab has come, or come back: what it missed begins after `last`. */
  begins(last) {
    this.#joined = false;
    this.#from ||= last;
  }

  /** What the tab that leads says. */
  hear(message) {
    if (this.readyState === EdgeSource.CLOSED) return;
    if (message.kind === 'closed') {
      this.close();
      this.dispatchEvent(Object.assign(new Event('error'), { status: message.status }));
    } else if (message.kind === 'lost' && this.readyState === EdgeSource.OPEN) {
      this.readyState = EdgeSource.CONNECTING;
      this.dispatchEvent(new Event('error'));
    } else if (message.kind === 'said' && (this.#joined || this.#begins(message))) this.#said(message);
  }

  /** It has begun once a stream with its topics has said all that was before. */
  #begins({ type, all }) {
    if (type !== 'edge-sync' || !this.topics.every((topic) => all.includes(topic))) return false;
    this.#joined = true;
    this.#opened();
    const from = this.#from;
    this.#from = '';
    if (!from) return true;
    this.#waiting = [];
    const seen = new Set();
    this.#shared.catchUp(this.topics, from, (message) => {
      seen.add(message.lastEventId);
      this.#dispatch(message);
    }).then(() => {
      const waiting = this.#waiting;
      this.#waiting = null;
      for (const message of waiting) if (!seen.has(message.lastEventId)) this.#dispatch(message);
    });
    return false;
  }

  #opened() {
    if (this.readyState !== EdgeSource.CONNECTING) return;
    this.readyState = EdgeSource.OPEN;
    this.dispatchEvent(new Event('open'));
  }

  #said(message) {
    if (message.type === 'edge-open') this.#opened();
    else if (this.#waiting) this.#waiting.push(message);
    else this.#dispatch(message);
  }

  #dispatch({ type, data, lastEventId, topics }) {
    const about = type === 'edge-gap' ? JSON.parse(data).topics : topics;
    if (this.readyState === EdgeSource.CLOSED || (about.length > 0 && !overlap(about, this.topics))) return;
    const event = new MessageEvent(type, { data, lastEventId: lastEventId ?? this.lastEventId, origin: new URL(this.url).origin });
    this.dispatchEvent(Object.assign(event, { topics: about }));
  }
}
