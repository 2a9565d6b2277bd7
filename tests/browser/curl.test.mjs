// What curl, as publishers use it, makes of a refusal while it still sends.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';

import { Edge, PATIENCE } from './edge.mjs';

const KEY = '0123456789abcdef';

for (const version of ['--http2', '--http1.1']) {
  test(`curl ${version} reads why a body was refused that is still on its way`, { timeout: PATIENCE }, async () => {
    const edge = await Edge.start(`access.publish = ["${KEY}"]\n`);
    try {
      for (const size of [300_000, 30_000_000]) {
        const file = path.join(edge.folder, `${size}`);
        await writeFile(file, 'x'.repeat(size));
        for (const [status, headers] of [[401, []], [413, ['-H', `authorization: Bearer ${KEY}`]], [413, ['-H', `authorization: Bearer ${KEY}`, '-H', 'expect:']]]) {
          for (let time = 0; time < 5; time += 1) {
            const url = `https://localhost:${edge.port}/topics/a`;
            const args = ['-s', '-S', version, '--cacert', path.join(edge.folder, 'certs/ca.pem'), '--data-binary', `@${file}`, ...headers, url];
            const { stdout } = await promisify(execFile)('curl', args);
            assert.equal(JSON.parse(stdout).status, status);
          }
        }
      }
    } finally {
      await edge.stop();
    }
  });
}
