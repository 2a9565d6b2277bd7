// Reads an event stream with an npm package, unchanged, and prints what it gets: a line of JSON an
// event. In a process of its own, as the CA to trust is settled when Node starts.

const [name, url] = process.argv.slice(2);
const { default: fallback, ...named } = await import(name);
const EventSource = named.EventSource ?? fallback?.EventSourcePolyfill ?? named.EventSourcePolyfill;
const source = new EventSource(url);
const print = (event) => console.log(JSON.stringify({ type: event.type, data: event.data, id: event.lastEventId }));
source.addEventListener('message', print);
source.addEventListener('edge-open', print);
source.addEventListener('edge-gap', print);
