// WebKit, the engine of Safari, as Debian has it, by the WebDriver protocol (W3C): a page of its own without a
// screen. Its network stack is not Safari's, and has no HTTP/3.

import { spawn } from 'node:child_process';
import net from 'node:net';

import { free } from './apps.mjs';
import { until } from './edge.mjs';

const listens = (port) => new Promise((resolve) => {
  const probe = net.connect(port, '127.0.0.1');
  probe.once('connect', () => { probe.destroy(); resolve(true); });
  probe.once('error', () => resolve(false));
});

export async function launchWebKit() {
  const port = await free();
  const driver = spawn('xvfb-run', ['-a', 'WebKitWebDriver', `--port=${port}`], { stdio: 'ignore', detached: true });
  const kill = () => { try { process.kill(-driver.pid, 'SIGKILL'); } catch { /* it is gone */ } };
  try {
    await until('WebKitWebDriver', () => listens(port));
    const ask = async (method, path, body) => {
      const headers = { 'content-type': 'application/json' };
      const response = await fetch(`http://127.0.0.1:${port}${path}`, { method, headers, body: body && JSON.stringify(body) });
      const { value } = await response.json();
      if (!response.ok) throw new Error(`${value.error}: ${value.message}`);
      return value;
    };
    const capabilities = { alwaysMatch: { acceptInsecureCerts: true } };
    const { sessionId } = await ask('POST', '/session', { capabilities });
    const session = `/session/${sessionId}`;
    await ask('POST', `${session}/timeouts`, { script: 60_000, pageLoad: 60_000 });
    const evaluate = async (script, ...args) => {
      const source = `const [args, done] = arguments; Promise.resolve((${script})(...args)).then(done, (error) => done('failed: ' + error));`;
      const value = await ask('POST', `${session}/execute/async`, { script: source, args: [args] });
      if (String(value).startsWith('failed: ')) throw new Error(value);
      return value;
    };
    return {
      goto: (url) => ask('POST', `${session}/url`, { url }),
      evaluate,
      close: async () => {
        await ask('DELETE', session).catch(() => {});
        kill();
      },
    };
  } catch (error) {
    kill();
    throw error;
  }
}
