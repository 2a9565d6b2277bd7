// Real browsers, headless, over the protocol that a test asks for.

import { chromium } from 'playwright-core';
import puppeteer from 'puppeteer-core';

import { PATIENCE } from './edge.mjs';

/** Chromium; HTTP/3 is forced or switched off, so that nothing is left to chance, or left to it (`'offered'`). */
async function launchChromium({ port, spki, http3, http1 = false }) {
  const args = [
    '--no-sandbox',
    '--disable-gpu',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    `--ignore-certificate-errors-spki-list=${spki}`,
    '--host-resolver-rules=MAP localhost 127.0.0.1',
    ...(http3 === true ? [`--origin-to-force-quic-on=localhost:${port}`] : []),
    ...(http3 === false ? ['--disable-quic'] : []),
    ...(http1 ? ['--disable-http2'] : []),
  ];
  const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args, timeout: PATIENCE });
  const context = await browser.newContext();
  const tab = () => context.newPage();
  const page = await tab();
  page.setDefaultTimeout(PATIENCE);
  return { page, tab, screenshot: (file) => page.screenshot({ path: file }), close: () => browser.close() };
}

async function launchFirefox({ port, http3, http1 = false }) {
  const extraPrefsFirefox = {
    'network.dns.disableIPv6': true,
    'network.http.http3.enable': Boolean(http3),
    'network.http.http2.enabled': !http1,
    'network.http.http3.disable_when_third_party_roots_found': false,
    ...(http3 === true && {
      'network.http.http3.alt-svc-mapping-for-testing': `localhost;h3=:${port}`,
      'network.http.http3.force-use-alt-svc-mapping-for-testing': true,
    }),
  };
  const browser = await puppeteer.launch({
    browser: 'firefox',
    executablePath: '/usr/bin/firefox-esr',
    acceptInsecureCerts: true,
    headless: true,
    timeout: PATIENCE,
    protocolTimeout: 2 * PATIENCE,
    extraPrefsFirefox,
  });
  const page = await browser.newPage();
  page.setDefaultTimeout(PATIENCE);
  const tab = () => browser.newPage();
  return { page, tab, screenshot: (file) => page.screenshot({ path: file }), close: () => browser.close() };
}

export const browsers = { Chromium: launchChromium, Firefox: launchFirefox };
