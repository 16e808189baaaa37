// What the page does, and says, when the network, the broker or the machine goes away for a while.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { after, afterEach, before, test } from 'node:test'
import { networkTo } from './faults.js'
import { closeTabs, family, isOpen, launch, openTab, picture, startBroker, startBrowser, stop } from './harness.js'

const RULES = `
[[topic]]
match = "small/#"
history-messages = 5

[[topic]]
match = "keyed/#"
history = "keyed"

[[topic]]
match = "none/#"
history = "none"
`

let browser, folder, broker, network

const start = (listen) => startBroker(listen, 'public', {
  RINGYARD_CONFIG: path.join(folder, 'ringyard.toml'), RINGYARD_PING_INTERVAL: '1s', RINGYARD_PING_TIMEOUT: '1s',
})

before(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'ringyard-browser-'))
  await writeFile(path.join(folder, 'ringyard.toml'), RULES)
  browser = await startBrowser()
  broker = await start()
  network = await networkTo(broker.host)
})
after(async () => {
  await browser?.close()
  network?.stop()
  await stop(broker)
  await rm(folder, { recursive: true })
})
afterEach(async () => {
  Object.assign(network, { refuses: false, delayMs: 0 })
  await closeTabs()
})

/** Publishes past the faulty network. */
async function post(topic, body, query = '') {
  const answer = await fetch(`${broker.url}/pub/${topic}${query}`, { method: 'POST', body })
  assert.equal(answer.status, 200)
  return answer.json()
}

const postAll = async (topic, bodies) => {
  for (const body of bodies) await post(topic, body)
}

const numbers = (from, to) => Array.from({ length: to - from + 1 }, (_, at) => `m${from + at}`)

async function openTopic(topic, url = network.url, options = {}) {
  const page = await openTab(options.browser ?? browser, `${url}/#${encodeURIComponent(topic)}`, options.context)
  await isOpen(page)
  await tells(page, /^Subscribed/)
  return page
}

/** The line about what happened, once it is like `pattern`. */
async function tells(page, pattern) {
  await page.waitForFunction(
    ([source]) => new RegExp(source).test(document.querySelector('#outcome').textContent),
    [pattern.source], { timeout: 20_000 },
  )
  return page.textContent('#outcome')
}

/** The messages in the page, oldest first, once there are so many. */
async function shown(page, count) {
  await page.waitForFunction((count) => document.querySelectorAll('#messages .text').length >= count, count)
  return (await page.locator('#messages .text').allTextContents()).reverse()
}

const isAway = (page) => page.waitForFunction(() => document.querySelector('#state').dataset.state === 'reconnecting')

/** Cuts the page off, does something meanwhile, and lets it come back. */
async function whileAway(page, what) {
  network.refuses = true
  network.cut()
  await isAway(page)
  await what()
  network.refuses = false
}

test('the page says how many messages it missed, and has them all', async () => {
  const page = await openTopic('away')
  await postAll('away', numbers(1, 2))
  await shown(page, 2)
  await whileAway(page, () => postAll('away', numbers(3, 5)))
  assert.match(await tells(page, /recovered/), /^3 messages missed while away for [\d.]+ s, recovered\.$/)
  await post('away', 'm6')
  assert.deepEqual(await shown(page, 6), numbers(1, 6))
  await picture(page, 'recovered')
})

test('the page says that it missed nothing', async () => {
  const page = await openTopic('quiet')
  await post('quiet', 'm1')
  await shown(page, 1)
  await whileAway(page, () => undefined)
  assert.match(await tells(page, /missed/), /^Back after [\d.]+ s: nothing was missed\.$/)
  assert.deepEqual(await shown(page, 1), ['m1'])
})

test('the page says which messages are missing when the window was too small', async () => {
  const page = await openTopic('small/a')
  await postAll('small/a', numbers(1, 1))
  await shown(page, 1)
  await whileAway(page, () => postAll('small/a', numbers(2, 13)))
  const sentence = await tells(page, /missing/)
  assert.match(sentence, /messages 2 to 13 are missing \(recovered: false\).* It still has 9 to 13\.$/)
  assert.equal(await page.textContent('#messages .notice'), sentence)
  assert.equal(await page.getAttribute('#outcome', 'data-kind'), 'bad')
  await post('small/a', 'm14')
  assert.deepEqual(await shown(page, 2), ['m1', 'm14'])
  await picture(page, 'window-too-small')
})

test('a topic without history: what came meanwhile is missing, and the page says so', async () => {
  const page = await openTopic('none/a')
  await postAll('none/a', numbers(1, 1))
  await shown(page, 1)
  await whileAway(page, () => postAll('none/a', numbers(2, 3)))
  assert.match(await tells(page, /missing \(/), /messages 2 to 3 are missing \(recovered: false\)/)
})

test('a slow network delivers everything, in order, and the page announces nothing', async () => {
  const page = await openTopic('slow')
  network.delayMs = 200
  await postAll('slow', numbers(1, 20))
  assert.deepEqual(await shown(page, 20), numbers(1, 20))
  assert.match(await page.textContent('#outcome'), /^Subscribed/)
})

test('a connection that is only half there is noticed, and what it did not carry is recovered', async () => {
  const page = await openTopic('half')
  await post('half', 'm1')
  await shown(page, 1)
  network.silence()
  await postAll('half', numbers(2, 6))
  await tells(page, /5 messages missed while away.*recovered/)
  assert.deepEqual(await shown(page, 6), numbers(1, 6))
})

test('the page comes back after kill -9, and says that the topic began anew', async () => {
  const page = await openTopic('killed')
  await postAll('killed', numbers(1, 3))
  await shown(page, 3)
  network.refuses = true
  broker.child.kill('SIGKILL')
  await once(broker.child, 'exit')
  await isAway(page)
  broker = await start(broker.host)
  await postAll('killed', ['n1', 'n2'])
  network.refuses = false
  const sentence = await tells(page, /began anew/)
  assert.match(sentence, /its messages 1 to 2 are missing\. What came before that, after message 3, is not known/)
  await post('killed', 'n3')
  assert.deepEqual(await shown(page, 4), ['m1', 'm2', 'm3', 'n3'])
  await picture(page, 'began-anew')
})

test('a laptop sleeps: the page has everything when it wakes up', async () => {
  const sleeper = await launch()
  try {
    const page = await openTopic('asleep', network.url, { browser: sleeper.browser })
    await post('asleep', 'm1')
    await shown(page, 1)
    const pids = family(sleeper.pid)
    for (const pid of pids) process.kill(pid, 'SIGSTOP')
    try {
      // Until the broker has given the page up.
      let sent = 1
      let answer
      do {
        await new Promise((resolve) => { setTimeout(resolve, 250) })
        answer = await post('asleep', `m${sent += 1}`)
        assert.ok(sent < 80, 'the broker keeps a page that says nothing')
      } while (answer.subscribers > 0)
      for (const pid of pids) process.kill(pid, 'SIGCONT')
      await tells(page, /missed while away.*recovered/)
      assert.deepEqual(await shown(page, sent), numbers(1, sent))
    } finally {
      for (const pid of pids) process.kill(pid, 'SIGCONT')
    }
    await closeTabs()
  } finally {
    await sleeper.close()
  }
})

test('what is sent while away is published once, when the page is back', async () => {
  const [writer, reader] = [await openTopic('offline'), await openTopic('offline', broker.url)]
  await whileAway(writer, async () => {
    await writer.fill('#message', 'written offline')
    await writer.click('#send')
    await tells(writer, /1 of your messages waits/)
  })
  for (const page of [writer, reader]) assert.deepEqual(await shown(page, 1), ['written offline'])
  await post('offline', 'last')
  for (const page of [writer, reader]) assert.deepEqual(await shown(page, 2), ['written offline', 'last'])
})

test('two tabs: the one that was away has what the other one said', async () => {
  const [away, here] = [await openTopic('tabs'), await openTopic('tabs', broker.url)]
  await whileAway(away, async () => {
    for (const text of numbers(1, 4)) {
      await here.fill('#message', text)
      await here.click('#send')
    }
    assert.deepEqual(await shown(here, 4), numbers(1, 4))
  })
  await tells(away, /4 messages missed while away.*recovered/)
  assert.deepEqual(await shown(away, 4), numbers(1, 4))
  assert.match(await here.textContent('#outcome'), /^Subscribed/)
})

test('a late newcomer sees 20 of 20 retained values at once, and again after a drop', async () => {
  for (let n = 10; n < 30; n += 1) await post(`state/${n}`, `value ${n}`, '?retain=true')
  const page = await openTopic('state/#')
  const rows = () => page.locator('#values-body tr').evaluateAll((rows) => rows.map((row) => row.children[1].textContent))
  const has = (count) => page.waitForFunction((count) => document.querySelectorAll('#values-body tr').length === count, count)
  await has(20)
  assert.deepEqual(await rows(), Array.from({ length: 20 }, (_, at) => `value ${at + 10}`))
  assert.equal(await page.textContent('#values-count'), '20')
  await picture(page, 'values')
  await whileAway(page, async () => {
    await post('state/10', 'newer', '?retain=true')
    await post('state/29', '', '?retain=true&removed=true')
  })
  await tells(page, /the broker cannot tell what was missed/)
  await has(19)
  assert.equal((await rows())[0], 'newer')
  await post('state/11', 'live')
  await page.waitForFunction(() => document.querySelectorAll('#values-body td')[2].textContent === 'live')
  assert.ok(await page.isDisabled('#send'), 'a filter only listens')
})

test('a keyed topic shows its keys, and which of them changed', async () => {
  for (const key of ['a', 'b', 'c']) await post('keyed/x', `${key}1`, `?key=${key}`)
  const page = await openTopic('keyed/x')
  const values = () => page.locator('#values-body tr').evaluateAll(
    (rows) => Object.fromEntries(rows.map((row) => [row.children[0].textContent, row.children[1].textContent])),
  )
  const holds = (text) => page.locator('#values-body td', { hasText: text }).waitFor()
  await holds('c1')
  assert.deepEqual(await values(), { a: 'a1', b: 'b1', c: 'c1' })
  await page.fill('#key', 'd')
  await page.fill('#message', 'd1')
  await page.click('#send')
  await holds('d1')
  await whileAway(page, async () => {
    await post('keyed/x', 'a2', '?key=a')
    await post('keyed/x', '', '?key=b&removed=true')
  })
  await tells(page, /2 keys changed while away.*recovered/)
  assert.deepEqual(await values(), { a: 'a2', c: 'c1', d: 'd1' })
  await picture(page, 'keys')
})
