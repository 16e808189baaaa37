// What the browser tests share: a broker, Chromium, tabs, and what one does to the page.
//
// RINGYARD_BIN names the broker (default: the release build). RINGYARD_SCREENSHOTS names a directory to keep
// pictures in. Every wait is for something visible and has a limit.
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir } from 'node:fs/promises'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { after, afterEach, before } from 'node:test'
import { chromium } from 'playwright-core'

const root = path.resolve(import.meta.dirname, '../../..')
const target = process.env.CARGO_TARGET_DIR ?? path.join(root, 'target')
const binary = process.env.RINGYARD_BIN ?? path.join(target, 'release/ringyard')
const pictures = process.env.RINGYARD_SCREENSHOTS
const patience = 10_000

/** A browser and a broker for all tests of a file, from its first to its last; tabs are closed behind each test. */
export function stage() {
  const running = {}
  before(async () => {
    running.browser = await startBrowser()
    running.broker = await startBroker()
  })
  after(async () => {
    await running.browser?.close()
    await stop(running.broker)
  })
  afterEach(closeTabs)
  return running
}

/** Starts a broker whose counters are on the public port, or where `admin` says; resolves once it named its address. */
export async function startBroker(listen = '127.0.0.1:0', admin = 'public', env = {}) {
  const options = ['--listen', listen, '--admin-listen', admin, '--shards', '2', '--drain-window', '0s']
  const child = spawn(binary, options, { stdio: ['ignore', 'pipe', 'inherit'], env: { ...process.env, ...env } })
  const lines = createInterface({ input: child.stdout })
  for await (const line of lines) {
    const host = /127\.0\.0\.1:\d+/.exec(line)?.[0]
    if (host) {
      child.stdout.resume()
      return { child, host, url: `http://${host}` }
    }
  }
  throw new Error('the broker ended before it named its address')
}

export async function stop(broker) {
  if (broker && broker.child.exitCode === null && broker.child.signalCode === null) {
    broker.child.kill('SIGTERM')
    await once(broker.child, 'exit')
  }
}

const chromiumOptions = {
  executablePath: '/usr/bin/chromium',
  args: [
    '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
    '--disable-background-networking', '--disable-component-update', '--disable-sync',
  ],
}

/** Debian's Chromium, with a fresh profile, and these variables in its environment. */
export async function startBrowser(env = {}) {
  if (pictures) await mkdir(pictures, { recursive: true })
  return chromium.launch({ ...chromiumOptions, env: { ...process.env, ...env } })
}

/** The same with its process id, for tests that stop it for a while. */
export async function launch() {
  const server = await chromium.launchServer(chromiumOptions)
  const browser = await chromium.connect(server.wsEndpoint())
  return { browser, pid: server.process().pid, close: () => server.close() }
}

/** A process and all that it started. */
export function family(pid) {
  const children = execFileSync('ps', ['-e', '-o', 'pid=,ppid='], { encoding: 'utf8' }).trim().split('\n')
    .map((line) => line.trim().split(/\s+/).map(Number))
  const found = [pid]
  for (const parent of found) found.push(...children.filter(([, of]) => of === parent).map(([child]) => child))
  return found
}

const contexts = []

/** A tab with a fresh profile; errors of the page are in `page.errors`. `options` are those of a browser context. */
export async function openTab(browser, url, options = {}) {
  const context = await browser.newContext(options)
  contexts.push(context)
  const page = await context.newPage()
  page.setDefaultTimeout(patience)
  page.errors = []
  page.on('pageerror', (error) => page.errors.push(error))
  page.on('console', (message) => { if (message.type() === 'error') page.errors.push(message.text()) })
  await page.goto(url)
  return page
}

export async function closeTabs() {
  while (contexts.length) await contexts.pop().close()
}

export async function isOpen(page) {
  await page.waitForFunction(() => document.querySelector('#state').textContent.trim() === 'open')
}

/** Waits until the card about the broker shows what /healthz says. */
export async function showsBroker(page) {
  await page.locator('[data-testid=fact-shards]', { hasText: /^2$/ }).waitFor()
}

export async function picture(page, name) {
  if (pictures) await page.screenshot({ path: path.join(pictures, `${name}.png`), fullPage: true })
}
