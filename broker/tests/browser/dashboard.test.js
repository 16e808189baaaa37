// The operators' dashboard, while loadgen runs: its counts are loadgen's; its parts work by keyboard, in every width and both
// schemes; texts of users are texts; and where there is access control it asks for a key.
//
// RINGYARD_LOADGEN names the load generator (default: the release build).
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { createServer } from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { after, afterEach, before, test } from 'node:test'
import { WebSocket } from 'ws'
import { closeTabs, isOpen, openTab, picture, startBroker, startBrowser, stop } from './harness.js'

const root = path.resolve(import.meta.dirname, '../../..')
const target = process.env.CARGO_TARGET_DIR ?? path.join(root, 'target')
const loadgen = process.env.RINGYARD_LOADGEN ?? path.join(target, 'release/ringyard-loadgen')
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
const KEY = 'rk_dashboard'

let browser
let broker
let operators

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address()
  server.close()
  await once(server, 'close')
  return port
}

before(async () => {
  const port = await freePort()
  browser = await startBrowser()
  broker = await startBroker('127.0.0.1:0', `127.0.0.1:${port}`)
  operators = `http://127.0.0.1:${port}`
})
after(async () => {
  await browser?.close()
  await stop(broker)
})
afterEach(closeTabs)

async function open(part = 'overview', options = {}) {
  const page = await openTab(browser, `${operators}/dashboard#${part}`, options)
  await isOpen(page)
  return page
}

const number = async (page, id) => Number((await page.textContent(`#${id}`)).replaceAll(',', ''))

/** Waits until the number that an element shows is one of those that are meant; the number. */
async function becomes(page, id, isMeant, withinMs = 15_000) {
  const until = Date.now() + withinMs
  for (;;) {
    const value = await number(page, id)
    if (isMeant(value)) return value
    assert.ok(Date.now() < until, `${id} is ${value}`)
    await new Promise((resolve) => setTimeout(resolve, 200))
  }
}

async function post(topic, body) {
  const answer = await fetch(`${broker.url}/pub/${topic}`, { method: 'POST', body })
  assert.equal(answer.status, 200)
}

/** Runs loadgen to its end; what it counted. */
async function load(...options) {
  const args = ['--url', `ws://${broker.host}`, '--json', '-', ...options]
  const child = spawn(loadgen, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  const pieces = []
  child.stdout.on('data', (piece) => pieces.push(piece))
  const [status] = await once(child, 'close')
  assert.equal(status, 0)
  return JSON.parse(Buffer.concat(pieces))
}

test('while loadgen runs, counts are those of loadgen', async () => {
  const page = await open()
  await becomes(page, 'load-connections', (value) => value === 1)
  const before = { in: await number(page, 'total-in'), out: await number(page, 'total-out'), at: Date.now() }
  const running = load('--clients', '300', '--rate', '100', '--duration', '5', '--topic-prefix', 'measured')
  // 300 subscribers, one publisher, the page.
  await becomes(page, 'load-connections', (value) => value === 302)
  await becomes(page, 'load-out', (value) => value > 25_000 && value < 35_000)
  await page.click('nav a[href="#topics"]')
  const row = page.locator('#busiest tr', { hasText: 'measured' })
  await row.filter({ hasText: '300' }).waitFor()
  // The first look may have begun before the load.
  await row.locator('td').nth(0).filter({ hasText: /^(9\d|10\d)(\.\d)?$/ }).waitFor()
  await picture(page, 'dashboard-topics')
  await page.click('nav a[href="#overview"]')
  await picture(page, 'dashboard-overview')
  const { traffic } = await running
  await becomes(page, 'load-connections', (value) => value === 1)
  // Between two looks nothing else was published but the page's own topics: at most two a second, each sent once.
  const own = 2 * Math.ceil((Date.now() - before.at) / 1000) + 2
  const isEqual = (was, counted) => (value) => value - was >= counted && value - was <= counted + own
  await becomes(page, 'total-in', isEqual(before.in, traffic.published))
  await becomes(page, 'total-out', isEqual(before.out, traffic.delivered_total))
  assert.deepEqual(page.errors, [])
})

test('a topic is looked at, read and published to by keyboard, and its texts are texts', async () => {
  const markup = '<img src=x onerror="document.title = 1">'
  await post('seen/%3Cb%3E', markup)
  const page = await open('topics')
  await page.focus('#topic')
  await page.keyboard.type('seen/<b>')
  await page.keyboard.press('Enter')
  await page.waitForSelector('#one-topic', { state: 'visible' })
  assert.equal(await page.textContent('#one-topic-name'), 'seen/<b>')
  assert.equal(await page.evaluate(() => document.activeElement.id), 'one-topic')
  assert.match(await page.textContent('#facts'), /window, 256 messages/)
  await page.keyboard.press('Tab')
  await page.keyboard.press('Enter')
  await page.locator('#messages li', { hasText: markup }).waitFor()
  await page.fill('#payload', 'from the dashboard')
  await page.press('#payload', 'Enter')
  await page.locator('#published', { hasText: 'Published as 2' }).waitFor()
  assert.equal(await page.locator('main img').count(), 0)
  assert.equal(await page.title(), 'Dashboard · Ringyard')
  assert.deepEqual(page.errors, [])
})

test('a connection is traced until it ends', async () => {
  const page = await open('connections')
  const socket = new WebSocket(`ws://${broker.host}/ws`, 'ringyard.v1')
  await new Promise((resolve) => { socket.onopen = resolve })
  // Without access control it has no name to be found by: the slowest of a topic would name it. There are few.
  let name
  // Shard, slot, and how often that was used before: there have been some hundred connections.
  for (let at = 0; name === undefined && at < 4000; at += 1) {
    const candidate = `${at % 2}-${(at >> 1) % 400}-${Math.floor(at / 800)}`
    const stopped = new AbortController()
    const answer = await fetch(`${operators}/api/connections/${candidate}/trace`, { signal: stopped.signal })
    if (answer.status === 200) {
      const lines = answer.body.pipeThrough(new TextDecoderStream()).getReader()
      socket.send('{"type":"ping","id":"mine"}')
      const seen = await Promise.race([lines.read().then(() => lines.read()), new Promise((resolve) => setTimeout(resolve, 2000, {}))])
      if (seen.value?.includes('mine')) name = candidate
    } else {
      await answer.text()
    }
    stopped.abort()
  }
  assert.ok(name, 'no trace had the ping')
  await page.selectOption('#find-by', 'connection')
  await page.fill('#find-what', name)
  await page.press('#find-what', 'Enter')
  await page.click('#found-connections button')
  await page.locator('#trace-lines li', { hasText: 'begun' }).waitFor()
  socket.send('{"type":"subscribe","id":"<b>","topics":["a"]}')
  await page.locator('#trace-lines li', { hasText: '"id":"<b>"' }).first().waitFor()
  socket.close()
  await page.locator('#trace-lines li', { hasText: 'ended by_client' }).waitFor()
  await page.locator('#trace-end', { hasText: 'has ended' }).waitFor()
  assert.deepEqual(page.errors, [])
})

test('what ended and was refused is counted and explained', async () => {
  const page = await open('ends')
  const count = async () => Number(await page.locator('#closed tr', { hasText: 'violation' }).locator('td').first().textContent())
  await page.locator('#closed tr', { hasText: 'violation' }).waitFor()
  const before = await count()
  const socket = new WebSocket(`ws://${broker.host}/sub/a`)
  await new Promise((resolve) => { socket.onopen = resolve })
  socket.send('a subscriber publishes nothing')
  await new Promise((resolve) => { socket.onclose = resolve })
  await page.waitForFunction((was) => {
    const row = [...document.querySelectorAll('#closed tr')].find((row) => row.cells[0].textContent === 'violation')
    return Number(row?.cells[1].textContent) === was + 1
  }, before)
  // Every reason that the broker counts has its sentence.
  for (const id of ['closed', 'refused', 'credentials']) {
    const unexplained = await page.locator(`#${id} tr`).evaluateAll((rows) => rows.filter((row) => !row.cells[row.cells.length - 1].textContent).map((row) => row.cells[0].textContent))
    assert.deepEqual(unexplained, [], id)
  }
  assert.deepEqual(page.errors, [])
})

for (const width of [1600, 400]) {
  for (const colorScheme of ['light', 'dark']) {
    test(`axe finds nothing at ${width} px, ${colorScheme}, and nothing is wider than the window`, async () => {
      await post('wide/of/a/topic/whose/name/is/long', 'x'.repeat(300))
      const options = { viewport: { width, height: 800 }, colorScheme, reducedMotion: 'reduce' }
      for (const part of ['overview', 'topics', 'connections', 'security', 'ends']) {
        const page = await open(part, options)
        if (part === 'overview') await becomes(page, 'load-connections', (value) => value >= 1)
        if (part === 'topics') await page.locator('#registered', { hasText: 'in use' }).waitFor()
        if (part === 'security') await page.locator('#refused tr').first().waitFor()
        if (part === 'ends') await page.locator('#closed tr').first().waitFor()
        await page.evaluate(axe)
        const { violations } = await page.evaluate(() => window.axe.run())
        assert.deepEqual(violations.map(({ id, nodes }) => `${part} ${id}: ${nodes.map(({ html }) => html).join(', ')}`), [])
        const wide = await page.evaluate(() => document.documentElement.scrollWidth)
        assert.ok(wide <= width, `${part}: ${wide} px`)
        await picture(page, `dashboard-${part}-${width}-${colorScheme}`)
        await closeTabs()
      }
    })
  }
}

test('on a public port it asks for a key, which stays in the page', async () => {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'ringyard-dashboard-'))
  const file = path.join(folder, 'ringyard.toml')
  writeFileSync(file, `
    [auth]
    required = false
    [[allow]]
    principal = 'anonymous'
    subscribe = ['#']
    [[key]]
    name = 'operator'
    sha256 = '${createHash('sha256').update(KEY).digest('hex')}'
    api = ['topics', 'metrics', 'inspect']
  `)
  const guarded = await startBroker('127.0.0.1:0', 'public', { RINGYARD_CONFIG: file })
  try {
    const page = await openTab(browser, `${guarded.url}/dashboard`)
    await page.waitForSelector('#access', { state: 'visible' })
    assert.equal(await page.textContent('#load-connections'), '–')
    await page.fill('#key', KEY)
    await page.press('#key', 'Enter')
    await becomes(page, 'load-connections', (value) => value >= 1)
    await page.click('nav a[href="#ends"]')
    await page.locator('#closed tr').first().waitFor()
    const kept = await page.evaluate(() => [location.href, document.cookie, JSON.stringify({ ...localStorage }),
      JSON.stringify({ ...sessionStorage }), document.documentElement.outerHTML].join(' '))
    assert.doesNotMatch(kept, /rk_dashboard/)
  } finally {
    await stop(guarded)
    rmSync(folder, { recursive: true })
  }
})
