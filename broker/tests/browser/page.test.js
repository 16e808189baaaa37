// Ringyard's page, and plain `new WebSocket`, in Debian's Chromium against the real broker.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import http from 'node:http'
import { test } from 'node:test'
import * as harness from './harness.js'
import { isOpen, picture, showsBroker, stage, startBroker, stop } from './harness.js'

const running = stage()

const openTab = (url) => harness.openTab(running.browser, url)

async function chooseTopic(page, topic) {
  await page.fill('#topic', topic)
  await page.press('#topic', 'Enter')
  await page.press('#topic', 'Tab')
  await isOpen(page)
}

async function say(page, text) {
  await page.fill('#message', text)
  await page.click('#send')
}

/** Waits until the page shows a message; how long it took, as shown. */
async function shows(page, text) {
  const item = page.locator('#messages li', { has: page.locator('.text', { hasText: text }) }).first()
  await item.waitFor()
  return (await item.locator('.took').textContent()).trim()
}

async function count(page) {
  return Number(/\d+/.exec(await page.textContent('#count'))[0])
}

async function post(topic, body) {
  const answer = await fetch(`${running.broker.url}/pub/${topic}`, { method: 'POST', body })
  assert.equal(answer.status, 200)
  return answer.json()
}

test('two tabs show what one of them says, and what curl posts', async () => {
  const tabs = [await openTab(running.broker.url), await openTab(running.broker.url)]
  for (const tab of tabs) await chooseTopic(tab, 'demo')
  const before = await count(tabs[1])
  await say(tabs[0], 'hello from the first tab')
  for (const tab of tabs) assert.match(await shows(tab, 'hello from the first tab'), /\d/, 'the time it took')
  await say(tabs[1], 'grüße 👋 <b>not markup</b>')
  for (const tab of tabs) await shows(tab, 'grüße 👋 <b>not markup</b>')
  const place = await post('demo', 'hello from curl')
  assert.ok(place.offset >= 3 && /^[0-9a-f]{16}$/.test(place.epoch), JSON.stringify(place))
  for (const tab of tabs) await shows(tab, 'hello from curl')
  assert.equal(await count(tabs[1]), before + 3)
  await picture(tabs[1], 'two-tabs')
  for (const tab of tabs) assert.deepEqual(tab.errors, [])
})

test('what a bare WebSocket says shows up in the page, and the other way round', async () => {
  const page = await openTab(running.broker.url)
  await chooseTopic(page, 'console')
  const heard = page.evaluate(() => new Promise((resolve, reject) => {
    const socket = new WebSocket(`ws://${location.host}/bus/console`)
    const heard = []
    socket.onopen = () => socket.send('from the console')
    socket.onerror = () => reject(new Error('refused'))
    socket.onmessage = ({ data }) => {
      heard.push(data)
      if (heard.length === 2) {
        socket.close()
        resolve(heard)
      }
    }
  }))
  await shows(page, 'from the console')
  await say(page, 'from the page')
  assert.equal((await heard)[0], 'from the console')
})

test('sub, pub and bus with text and binary', async () => {
  const page = await openTab(running.broker.url)
  const heard = await page.evaluate(async () => {
    const open = (path) => new Promise((resolve, reject) => {
      const socket = new WebSocket(`ws://${location.host}${path}`)
      socket.binaryType = 'arraybuffer'
      socket.heard = []
      socket.onmessage = ({ data }) => socket.heard.push(typeof data === 'string' ? data : [...new Uint8Array(data)])
      socket.onopen = () => resolve(socket)
      socket.onerror = () => reject(new Error(path))
    })
    const sub = await open('/sub/kinds')
    const bus = await open('/bus/kinds')
    const pub = await open('/pub/kinds')
    pub.send('text')
    pub.send(new Uint8Array([0, 255, 128]))
    while (bus.heard.length < 2) await new Promise((resolve) => { bus.addEventListener('message', resolve, { once: true }) })
    bus.send(new Uint8Array(70000).fill(7))
    bus.send('end')
    for (const socket of [sub, bus]) {
      while (!socket.heard.includes('end')) {
        await new Promise((resolve) => { socket.addEventListener('message', resolve, { once: true }) })
      }
    }
    const closed = new Promise((resolve) => { sub.onclose = ({ code, wasClean }) => resolve({ code, wasClean }) })
    sub.close(1000, 'done')
    return { sub: sub.heard, bus: bus.heard, closed: await closed }
  })
  assert.deepEqual(heard.sub, ['text', [0, 255, 128], new Array(70000).fill(7), 'end'])
  assert.deepEqual(heard.bus, heard.sub)
  assert.deepEqual(heard.closed, { code: 1000, wasClean: true })
})

test('the page shows the counters where the public port has them', async () => {
  const page = await openTab(running.broker.url)
  await page.waitForFunction(() => /\d/.test(document.querySelector('#stat-connections').textContent))
  assert.ok(await page.isVisible('#stats') && await page.isVisible('#all-counters'))
  assert.equal(await page.textContent('#stat-about'), '')
  await picture(page, 'counters')
  assert.deepEqual(page.errors, [])
})

test('the page hides the counters where they are for operators only', async () => {
  const shy = await startBroker('127.0.0.1:0', '127.0.0.1:0')
  try {
    const page = await openTab(shy.url)
    await isOpen(page)
    await showsBroker(page)
    await page.locator('#stat-about', { hasText: "operators' port" }).waitFor()
    assert.ok(!await page.isVisible('#stats') && !await page.isVisible('#all-counters'))
    await picture(page, 'no-counters')
    assert.equal((await fetch(`${shy.url}/api/stats`)).status, 404)
    assert.deepEqual(page.errors, [])
  } finally {
    await stop(shy)
  }
})

test('the page shows everything that /healthz says', async () => {
  const epoll = await startBroker('127.0.0.1:0', 'public', { RINGYARD_IO: 'epoll' })
  try {
    const page = await openTab(epoll.url)
    await showsBroker(page)
    const { counters, ...health } = await (await fetch(`${epoll.url}/healthz`)).json()
    assert.equal(counters, true)
    for (const [name, value] of Object.entries(health)) {
      assert.equal(await page.textContent(`[data-testid=fact-${name}]`), String(value), name)
    }
    assert.equal(await page.textContent('[data-testid=fact-driver]'), 'epoll')
  } finally {
    await stop(epoll)
  }
})

test('what the page says about /ws works as it stands', async () => {
  const page = await openTab(running.broker.url)
  await chooseTopic(page, "it's\\here")
  const code = await page.textContent('#v1')
  const heard = page.waitForEvent('console', { predicate: async (line) => (await line.args()[0].jsonValue()).type === 'ok' })
  // Chromium keeps page scripts from evaluating text; the debugger may, as if the lines were pasted into the console.
  await page.evaluate(`{\n${code}\n}`)
  const answer = await (await heard).args()[0].jsonValue()
  assert.deepEqual(answer.topics.map(({ topic }) => topic), ["it's\\here", 'chat/+'])
})

test('what the page says about the client works as it stands', async () => {
  const page = await openTab(running.broker.url)
  await chooseTopic(page, "it's\\there")
  const code = await page.textContent('#client')
  const heard = page.waitForEvent('console')
  await page.evaluate(`(async () => {\n${code}\n})()`)
  assert.equal((await heard).text(), 'hello')
  await shows(page, 'hello')
  assert.deepEqual(page.errors, [])
})

test('what the README says about the client works as it stands', async () => {
  const readme = await (await fetch(`${running.broker.url}/README.md`)).text()
  const lines = readme.split('```js\n').map((part) => part.split('```')[0]).find((code) => code.includes('/ringyard.js'))
  const code = lines.replaceAll('localhost:8080', running.broker.host).replace(/import (.*) from (.*?);/, 'const $1 = await import($2);')
  assert.notEqual(code, lines)
  await post('chat/7', 'before')
  const page = await openTab(running.broker.url)
  const said = []
  page.on('console', (line) => said.push(line.text()))
  const heard = page.waitForEvent('console', (line) => line.text() === 'hello')
  await page.evaluate(`void (async () => {\n${code}\n})()`)
  await heard
  assert.ok(said.includes('published as message 2') && said.includes('undefined'), `${said}`)
  assert.deepEqual(page.errors, [])
})

test('an allowed page of another origin loads the client, as a module and as a script', async () => {
  const stranger = http.createServer((_, answer) => {
    answer.setHeader('content-type', 'text/html')
    answer.end('<!doctype html><title>elsewhere</title>')
  })
  stranger.listen(0, '127.0.0.1')
  await once(stranger, 'listening')
  const origin = `http://127.0.0.1:${stranger.address().port}`
  const broker = await startBroker('127.0.0.1:0', 'off', { RINGYARD_ALLOW_ORIGIN: origin })
  try {
    const page = await openTab(origin)
    const publish = async (connect, host) => {
      const bus = connect(`ws://${host}/ws`)
      const { offset } = await bus.publish('elsewhere', 'hello')
      bus.close()
      return offset
    }
    const byModule = await page.evaluate(`(async () => {
      const { connect } = await import('${broker.url}/ringyard.js')
      return (${publish})(connect, '${broker.host}')
    })()`)
    await page.addScriptTag({ url: `${broker.url}/ringyard.min.js` })
    const byScript = await page.evaluate(`(${publish})(ringyard.connect, '${broker.host}')`)
    assert.deepEqual([byModule, byScript], [1, 2])
  } finally {
    stranger.closeAllConnections()
    stranger.close()
    await stop(broker)
  }
})

test('the page loads nothing from elsewhere', async () => {
  const page = await openTab('about:blank')
  const asked = []
  page.on('request', (request) => asked.push(request.url()))
  await page.goto(running.broker.url)
  await isOpen(page)
  await showsBroker(page)
  assert.ok(asked.some((url) => url.endsWith('/ringyard.js')), `${asked}`)
  assert.deepEqual(asked.filter((url) => !url.startsWith(`${running.broker.url}/`)), [])
})

test('a topic or filter that the broker would refuse is explained', async () => {
  const page = await openTab(running.broker.url)
  for (const [topic, problem] of [['a+', 'whole levels'], ['#/a', 'at the end'], ['ä'.repeat(128), '255 bytes']]) {
    await page.fill('#topic', topic)
    await page.press('#topic', 'Enter')
    assert.match(await page.textContent('#topic-problem'), new RegExp(problem), topic)
    assert.equal(await page.textContent('#current'), 'demo')
  }
  await chooseTopic(page, '$sys/load')
  await page.locator('#messages .text', { hasText: 'uptime_s' }).first().waitFor()
  assert.ok(await page.isDisabled('#send'))
  assert.equal(await page.textContent('#topic-problem'), '')
})

test('a page of another origin is refused', async () => {
  const stranger = http.createServer((_, answer) => {
    answer.setHeader('content-type', 'text/html')
    answer.end('<!doctype html><title>elsewhere</title>')
  })
  stranger.listen(0, '127.0.0.1')
  await once(stranger, 'listening')
  try {
    const page = await openTab(`http://127.0.0.1:${stranger.address().port}/`)
    const code = await page.evaluate((host) => new Promise((resolve) => {
      const socket = new WebSocket(`ws://${host}/bus/demo`)
      socket.onopen = () => resolve('open')
      socket.onclose = ({ code }) => resolve(code)
    }), running.broker.host)
    assert.equal(code, 1006)
  } finally {
    stranger.closeAllConnections()
    stranger.close()
  }
})

test('the page comes back after the broker did', async () => {
  const page = await openTab(running.broker.url)
  await chooseTopic(page, 'comeback')
  await say(page, 'before')
  await shows(page, 'before')
  const { host } = running.broker
  await stop(running.broker)
  assert.equal(running.broker.child.exitCode, 0)
  await page.waitForFunction(() => document.querySelector('#state').textContent.trim() !== 'open')
  await picture(page, 'broker-gone')
  running.broker = await startBroker(host)
  await page.waitForFunction(
    () => document.querySelector('#state').textContent.trim() === 'open', null, { timeout: 30_000 },
  )
  await post('comeback', 'after')
  await shows(page, 'after')
})

/** A proxy that gives the broker a path of its own, and answers as `refuse` says where that says anything. */
async function behindPrefix(prefix, refuse = () => undefined) {
  const inside = (url) => url.startsWith(`${prefix}/`) && url.slice(prefix.length)
  const proxy = http.createServer((request, answer) => {
    const target = inside(request.url)
    if (!target) return answer.writeHead(404).end()
    const refused = refuse(target)
    if (refused) return answer.writeHead(refused.status, refused.headers).end()
    const options = { method: request.method, headers: request.headers }
    const onward = http.request(`${running.broker.url}${target}`, options, (from) => {
      answer.writeHead(from.statusCode, from.headers)
      from.pipe(answer)
    })
    onward.on('error', () => answer.destroy())
    request.pipe(onward)
  })
  proxy.on('upgrade', (request, socket) => {
    socket.on('error', () => socket.destroy())
    const target = inside(request.url)
    const refused = target ? refuse(target) : { status: 404 }
    if (refused) return socket.end(`HTTP/1.1 ${refused.status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`)
    const onward = http.request(`${running.broker.url}${target}`, { headers: request.headers })
    onward.on('error', () => socket.destroy())
    onward.on('upgrade', (from, other, head) => {
      const fields = from.rawHeaders.map((text, at) => (at % 2 ? `${text}\r\n` : `${text}: `)).join('')
      socket.write(`HTTP/1.1 101 Switching Protocols\r\n${fields}\r\n`)
      socket.write(head)
      other.on('error', () => socket.destroy())
      socket.pipe(other).pipe(socket)
    })
    onward.end()
  })
  proxy.listen(0, '127.0.0.1')
  await once(proxy, 'listening')
  const stopProxy = () => {
    proxy.closeAllConnections()
    proxy.close()
  }
  return { url: `http://127.0.0.1:${proxy.address().port}${prefix}/`, stop: stopProxy }
}

test('the page works behind a path of its own', async () => {
  for (const prefix of ['/ringyard', '/a/b']) {
    const proxy = await behindPrefix(prefix)
    try {
      const page = await openTab(proxy.url)
      await chooseTopic(page, 'prefixed')
      await say(page, `through ${prefix}`)
      await shows(page, `through ${prefix}`)
      assert.match(await page.textContent('#curl'), new RegExp(`${proxy.url}pub/prefixed$`))
      assert.match(await page.textContent('#wscat'), new RegExp(`${proxy.url.replace('http', 'ws')}bus/prefixed$`))
      await showsBroker(page)
      assert.ok(await page.isVisible('#all-counters'))
      for (const link of await page.locator('a').all()) {
        const status = await link.evaluate(async ({ href }) => (await fetch(href)).status)
        assert.equal(status, 200, await link.textContent())
      }
      assert.deepEqual(page.errors, [])
    } finally {
      proxy.stop()
    }
  }
})

test('a page whose handshake is refused says so, waits as it is told, and comes back', async () => {
  let full = true
  const handshakes = []
  const proxy = await behindPrefix('/full', (target) => {
    if (target === '/ws' && full) {
      handshakes.push(performance.now())
      return { status: 503 }
    }
    if (target === '/readyz' && full) return { status: 503, headers: { 'retry-after': '2' } }
    return undefined
  })
  try {
    const page = await openTab(proxy.url)
    await page.waitForFunction(() => /takes no connections now \(503\), again in/.test(document.querySelector('#detail').textContent))
    while (handshakes.length < 2) await new Promise((resolve) => { setTimeout(resolve, 50) })
    assert.ok(handshakes[1] - handshakes[0] >= 2000, `came back after ${handshakes[1] - handshakes[0]} ms`)
    full = false
    await isOpen(page)
    assert.equal(await page.textContent('#detail'), '')
  } finally {
    proxy.stop()
  }
})
