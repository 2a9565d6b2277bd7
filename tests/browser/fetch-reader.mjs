// Reads an event stream with an npm package that is built on fetch, unchanged, and prints every
// message that it hands to an app: a line of JSON each. In a process of its own, as the CA to trust is
// settled when Node starts. The packages are made for pages: what they want of one is stood in for.

const [name, url] = process.argv.slice(2);
globalThis.window ??= globalThis;
globalThis.document ??= { hidden: false, addEventListener() {}, removeEventListener() {} };
const print = (event, data) => console.log(JSON.stringify({ event, data }));

if (name === '@microsoft/fetch-event-source') {
  const { fetchEventSource } = await import(name);
  await fetchEventSource(url, {
    openWhenHidden: true,
    onmessage: (message) => print(message.event, message.data),
    // It stops for good at a clean end unless this throws.
    onclose() { throw new Error('come back'); },
    onerror: () => 200,
  });
} else {
  const { EventSource } = await import(name);
  const source = new EventSource(url, { retryInterval: 200 });
  for (const type of ['message', 'edge-open', 'edge-gap', 'edge-auth']) {
    source.addEventListener(type, (event) => print(event.type, event.data));
  }
}
