// Streams of server-sent events in Chromium's own EventSource: through cuts, over six connections of a host, and refused.
import assert from 'node:assert/strict'
import { after, afterEach, before, test } from 'node:test'
import { networkTo } from './faults.js'
import { closeTabs, openTab, startBroker, startBrowser, stop } from './harness.js'

let browser, broker, network

before(async () => {
  browser = await startBrowser()
  broker = await startBroker()
  network = await networkTo(broker.host)
})
after(async () => {
  await browser?.close()
  network?.stop()
  await stop(broker)
})
afterEach(async () => {
  network.refuses = false
  await closeTabs()
})

async function post(topic, body) {
  const answer = await fetch(`${broker.url}/pub/${topic}`, { method: 'POST', body, headers: { 'content-type': 'text/plain' } })
  assert.equal(answer.status, 200)
}

/** Follows a path in the page; what it hears is in `window.streams[path]`. */
const follow = (page, path) => page.evaluate((path) => new Promise((resolve) => {
  const stream = { heard: [], positions: [], state: () => source.readyState }
  const source = new EventSource(path)
  source.onmessage = ({ data }) => stream.heard.push(data)
  source.addEventListener('position', ({ data }) => {
    stream.positions.push(JSON.parse(data))
    resolve('open')
  })
  source.onerror = () => { if (source.readyState === EventSource.CLOSED) resolve('closed') }
  window.streams = { ...window.streams, [path]: stream }
}), path)

const heard = async (page, path, count) => {
  await page.waitForFunction(([path, count]) => window.streams[path].heard.length >= count, [path, count], { timeout: 30_000 })
  return page.evaluate((path) => window.streams[path].heard, path)
}

const lines = (from, to) => Array.from({ length: to - from }, (_, at) => `line ${from + at}\nof two`)

const postAll = async (topic, bodies) => {
  for (const body of bodies) await post(topic, body)
}

test('an EventSource that is cut off goes on where it was, every time', { timeout: 120_000 }, async () => {
  const page = await openTab(browser, network.url)
  assert.equal(await follow(page, '/sub/cut'), 'open')
  for (let round = 0; round < 3; round += 1) {
    await postAll('cut', lines(round * 20, round * 20 + 10))
    network.refuses = true
    network.cut()
    await postAll('cut', lines(round * 20 + 10, round * 20 + 20))
    network.refuses = false
    assert.deepEqual(await heard(page, '/sub/cut', round * 20 + 20), lines(0, round * 20 + 20), `round ${round}`)
  }
  const positions = await page.evaluate(() => window.streams['/sub/cut'].positions)
  assert.ok(positions.length >= 4, JSON.stringify(positions))
  assert.ok(positions.slice(1).every(({ recovered }) => recovered === true), JSON.stringify(positions))
})

test('what it does not get any more is said', { timeout: 60_000 }, async () => {
  const page = await openTab(browser, network.url)
  await follow(page, '/sub/long')
  await page.evaluate(() => {
    window.restarted = new Promise((resolve) => {
      const watch = setInterval(() => {
        const { positions } = window.streams['/sub/long']
        if (positions.length > 1) {
          clearInterval(watch)
          resolve(positions[1])
        }
      }, 20)
    })
  })
  await post('long', 'first')
  assert.deepEqual(await heard(page, '/sub/long', 1), ['first'])
  network.refuses = true
  network.cut()
  // More than a topic remembers.
  await postAll('long', Array.from({ length: 300 }, (_, at) => `${at}`))
  network.refuses = false
  const position = await page.evaluate(() => window.restarted)
  assert.equal(position.recovered, false, JSON.stringify(position))
  await post('long', 'at last')
  await page.waitForFunction(() => window.streams['/sub/long'].heard.includes('at last'))
})

test('six streams of a host work beside each other', { timeout: 60_000 }, async () => {
  const page = await openTab(browser, broker.url)
  const paths = Array.from({ length: 6 }, (_, at) => `/sub/six/${at}`)
  // Chromium opens six HTTP/1.1 connections of a host, so that each has one.
  for (const path of paths) assert.equal(await follow(page, path), 'open')
  for (const [at] of paths.entries()) await post(`six/${at}`, `to ${at}`)
  for (const [at, path] of paths.entries()) assert.deepEqual(await heard(page, path, 1), [`to ${at}`])
})

test('several topics come over one stream, in one order each', { timeout: 60_000 }, async () => {
  const page = await openTab(browser, broker.url)
  const path = '/sub?topic=several%2F%2B&topic=other'
  assert.equal(await follow(page, path), 'open')
  await post('several/1', 'one')
  await post('other', 'two')
  await post('several/2', 'three')
  assert.deepEqual((await heard(page, path, 3)).toSorted(), ['one', 'three', 'two'])
})

test('an EventSource that is refused stops', { timeout: 60_000 }, async () => {
  const page = await openTab(browser, broker.url)
  assert.equal(await follow(page, '/sub?topic='), 'closed')
  page.errors.length = 0
})
