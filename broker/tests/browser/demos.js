// What the tests of the demos share: a broker, the demos' programs, and what one waits for.
//
// RINGYARD_DEMOS names an address where the demos are served from otherwise, before a broker: so a change of a page is seen
// without building a broker. Without it, the broker serves them; their rules are built in.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import path from 'node:path'
import { after, afterEach, before } from 'node:test'
import { closeTabs, isOpen, openTab, startBroker, startBrowser, stop } from './harness.js'

const folder = path.resolve(import.meta.dirname, '../../../deploy/demos')
const programs = {
  wifi: ['python3', '-B', path.join(folder, 'wifi.py')],
  railway: [process.execPath, path.join(folder, 'railway.mjs')],
}

export const pages = ['chat', 'editor', 'game', 'status', 'railway']

/** What a test of the demos runs with: `browser`, and `base`, the address of the pages. */
export const running = {}
const children = []

/** Starts it all for the tests of a file; tabs and programs end behind each test. */
export function stageDemos() {
  before(async () => {
    running.browser = await startBrowser()
    running.base = process.env.RINGYARD_DEMOS
    if (running.base) return
    running.broker = await startBroker()
    running.base = running.broker.url
  })
  after(async () => {
    await running.browser?.close()
    await stop(running.broker)
  })
  afterEach(async () => {
    await closeTabs()
    while (children.length) await end(children[0])
  })
}

/** Starts a publisher or controller as a user would. */
export function run(name) {
  const [command, ...args] = programs[name]
  const child = spawn(command, args, { stdio: ['ignore', 'ignore', 'inherit'], env: { ...process.env, BROKER: running.base } })
  children.push(child)
  return child
}

export async function end(child) {
  children.splice(children.indexOf(child), 1)
  if (child.exitCode !== null || child.signalCode !== null) return
  child.kill('SIGKILL')
  await once(child, 'exit')
}

export const addressOf = (name) => `${running.base}/demos/${name}`

/** A tab with a demo, connected. */
export async function open(name, options) {
  const page = await openTab(running.browser, addressOf(name), options)
  await isOpen(page)
  return page
}

/** Waits until an element reads so. */
export const has = (page, selector, pattern) => page.locator(selector, { hasText: pattern }).first().waitFor()

export async function post(topic, body, { type = 'application/json', query = '' } = {}) {
  const answer = await fetch(`${running.base}/pub/${topic}${query}`, { method: 'POST', headers: { 'content-type': type }, body })
  assert.equal(answer.status, 200, await answer.text())
}

/** Waits until the number that an element shows is `wanted`. */
export async function becomes(page, selector, wanted, withinMs = 10_000) {
  const until = Date.now() + withinMs
  let value
  do {
    value = Number.parseFloat(await page.textContent(selector))
    if (wanted(value)) return value
    await page.waitForTimeout(100)
  } while (Date.now() < until)
  assert.fail(`${selector} is ${value}`)
}
