// Presence, leases and last wills, when a tab is reloaded, its browser is killed, or the machine sleeps.
import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { after, afterEach, before, test } from 'node:test'
import { closeTabs, family, launch, openTab, startBroker, startBrowser, stop } from './harness.js'

const RULES = `
[[topic]]
match = "room/#"
presence = true

[[topic]]
match = "loco/#"
exclusive = true
`
const GRACE_MS = 3000

let browser, broker, folder

before(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'ringyard-browser-'))
  await writeFile(path.join(folder, 'ringyard.toml'), RULES)
  browser = await startBrowser()
  broker = await startBroker('127.0.0.1:0', 'public', {
    RINGYARD_CONFIG: path.join(folder, 'ringyard.toml'),
    RINGYARD_SESSION_GRACE: `${GRACE_MS}ms`, RINGYARD_PING_INTERVAL: '1s', RINGYARD_PING_TIMEOUT: '1s',
  })
})
after(async () => {
  await browser?.close()
  await stop(broker)
  await rm(folder, { recursive: true })
})
afterEach(closeTabs)

/** A tab with `bus`, which has a session. */
async function openBus(where = browser) {
  const page = await openTab(where, broker.url)
  await begin(page)
  return page
}

const begin = (page) => page.evaluate(async () => {
  const { connect } = await import('/ringyard.js')
  globalThis.bus = connect(`ws://${location.host}/ws`, { session: true })
  await new Promise((resolve) => { bus.on('state', ({ state }) => { if (state === 'open') resolve() }) })
})

/** Keeps what comes to a topic in `seen` of the tab, each with the time. */
const watch = (page, topic, options = {}) => page.evaluate(async ([topic, options]) => {
  globalThis.seen ??= []
  const subscription = bus.subscribe(topic, options)
  subscription.onmessage = (message) => seen.push({ ...message, at: performance.now() })
  await subscription.ready
}, [topic, options])

const seen = (page) => page.evaluate(() => seen)

/** Waits until something has come that `test` is true of: a message, and what came before it. Returns all that has come. */
async function comes(page, test) {
  for (const until = Date.now() + 15_000; ;) {
    const messages = await seen(page)
    if (messages.some((message, at) => test(message, messages.slice(0, at)))) return messages
    assert.ok(Date.now() < until, `it does not come; what came: ${JSON.stringify(messages)}`)
    await new Promise((resolve) => { setTimeout(resolve, 20) })
  }
}

/** A tab in a browser of its own, which the test may stop or kill. */
async function apart(run) {
  const other = await launch()
  try {
    await run(await openBus(other.browser), () => family(other.pid))
  } finally {
    await closeTabs()
    await other.close().catch(() => {})
  }
}

test('a browser that is killed: the will at once, the lease and the place among the members after the grace', async () => {
  const watcher = await openBus()
  await watch(watcher, 'loco/12')
  await watch(watcher, '$presence/room/1')
  await watch(watcher, '$lease/loco/12')
  await apart(async (page, processes) => {
    const lease = await page.evaluate(async () => {
      await bus.enter('room/1', { name: 'Ada' })
      await bus.will({ topic: 'loco/12', data: { speed: 0 } })
      globalThis.lease = await bus.lease('loco/12', { ttl: 60_000 })
      await bus.publish('loco/12', { speed: 40 }, { lease })
      return lease.lease
    })
    await comes(watcher, (message) => message.data?.speed === 40)
    await watcher.evaluate(() => {
      globalThis.next = bus.lease('loco/12', { wait: 30_000 }).then(({ lease }) => ({ lease, at: performance.now() }))
      globalThis.killed = performance.now()
    })
    for (const pid of processes()) process.kill(pid, 'SIGKILL')
    await comes(watcher, (message) => message.topic === 'loco/12' && message.data.speed === 0)
    await comes(watcher, (message) => message.topic === '$presence/room/1' && message.removed)
    const [next, killed] = await watcher.evaluate(async () => [await next, killed])
    const messages = await seen(watcher)
    const will = messages.find(({ data, topic }) => topic === 'loco/12' && data.speed === 0)
    assert.ok(next.lease > lease, `${next.lease} after ${lease}`)
    assert.ok(will.at - killed < 1000, `the will came after ${will.at - killed} ms`)
    assert.ok(next.at - killed > GRACE_MS - 100, `the lease was free after ${next.at - killed} ms`)
    const presence = messages.filter(({ topic }) => topic === '$presence/room/1')
    assert.deepEqual(presence.map(({ removed }) => Boolean(removed)), [false, true], 'one entry, one departure')
    assert.ok(presence[1].at - killed > GRACE_MS - 100, 'nobody leaves before the grace is over')
  })
})

test('a reload keeps the lease, and nobody sees it', async () => {
  const [watcher, page] = [await openBus(), await openBus()]
  await watch(watcher, '$presence/room/2')
  await watch(watcher, 'loco/13')
  const before = await page.evaluate(async () => {
    await bus.enter('room/2', { name: 'Ada' })
    await bus.will({ topic: 'loco/13', data: 'the will', delay: 2000 })
    return (await bus.lease('loco/13')).lease
  })
  await comes(watcher, (message) => message.topic === '$presence/room/2')
  await page.reload()
  await begin(page)
  const after = await page.evaluate(async () => {
    await bus.enter('room/2', { name: 'Ada' })
    const lease = await bus.lease('loco/13')
    await bus.publish('loco/13', 'still mine', { lease })
    return lease.lease
  })
  assert.equal(after, before)
  await comes(watcher, (message) => message.data === 'still mine')
  await new Promise((resolve) => { setTimeout(resolve, GRACE_MS + 500) })
  const messages = await seen(watcher)
  assert.ok(!messages.some(({ removed, data }) => removed || data === 'the will'), JSON.stringify(messages))
})

test('two pages fight for one lease: their messages never mix', async () => {
  const [watcher, ...fighters] = [await openBus(), await openBus(), await openBus()]
  await watch(watcher, 'loco/14')
  const rounds = 100
  await Promise.all(fighters.map((page, who) => page.evaluate(async ([who, rounds]) => {
    let before = 1
    for (let round = 0; round < rounds; round += 1) {
      const lease = await bus.lease('loco/14', { wait: 60_000 })
      const late = await bus.publish('loco/14', { who, n: 'late' }, { lease: before }).catch((error) => error.code)
      if (late !== 'not-holder') throw new Error(`a publish under an older lease: ${JSON.stringify(late)}`)
      const commands = [0, 1, 2].map((n) => bus.publish('loco/14', { who, lease: lease.lease, n }, { lease }))
      await Promise.all(commands)
      lease.release()
      before = lease.lease
    }
  }, [who, rounds])))
  const expected = 2 * rounds * 3
  await watcher.waitForFunction((expected) => seen.length >= expected, expected)
  const messages = (await seen(watcher)).map(({ data }) => data)
  assert.equal(messages.length, expected)
  let last = 0
  for (let at = 0; at < expected; at += 3) {
    const turn = messages.slice(at, at + 3)
    assert.ok(turn[0].lease > last, 'numbers rise')
    last = turn[0].lease
    assert.deepEqual(turn.map(({ n }) => n), [0, 1, 2])
    assert.ok(turn.every(({ who, lease }) => who === turn[0].who && lease === last), JSON.stringify(turn))
  }
})

test('a machine that sleeps shortly is not missed; one that sleeps long leaves, and enters again', async () => {
  const watcher = await openBus()
  await watch(watcher, '$presence/room/3')
  await apart(async (page, processes) => {
    const sleep = async (until) => {
      const pids = processes()
      for (const pid of pids) process.kill(pid, 'SIGSTOP')
      try {
        await until()
      } finally {
        for (const pid of pids) process.kill(pid, 'SIGCONT')
      }
    }
    await page.evaluate(() => bus.enter('room/3', { name: 'Ada' }))
    await comes(watcher, ({ key }) => key)
    // Longer than the broker waits for an answer, shorter than that and the grace.
    await sleep(() => new Promise((resolve) => { setTimeout(resolve, 3500) }))
    await page.evaluate(() => bus.update('room/3', { name: 'Ada', awake: true }))
    const short = await comes(watcher, ({ data }) => data?.info?.awake)
    assert.ok(!short.some(({ removed }) => removed), JSON.stringify(short))
    await sleep(() => comes(watcher, ({ removed }) => removed))
    const long = await comes(watcher, ({ data }, before) => data?.info?.awake && before.some(({ removed }) => removed))
    assert.equal(long.at(-1).data.connections, 1)
  })
})
