// The page that compares protocols, until its figures stand; and what shows by which way messages come, where WebSockets are blocked.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { createServer, request as ask } from 'node:http'
import { createRequire } from 'node:module'
import { test } from 'node:test'
import { isOpen, openTab, picture, stage } from './harness.js'

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
const ways = ['short-poll', 'long-poll', 'sse', 'websocket']
const running = stage()

const address = () => `${running.broker.url}/compare`
const shown = (page, way, what) => page.textContent(`#${way} [data-shows=${what}]`)

/** Milliseconds or bytes, as the page writes them. */
function number(text) {
  const [, value, unit] = /^([\d.]+) ?(ms|B|kB|MB)?$/.exec(text)
  return Number(value) * ({ kB: 1e3, MB: 1e6 }[unit] ?? 1)
}

/** Waits until each way has got so many messages, and returns what stands there. */
async function figures(page, count) {
  await page.waitForFunction(({ ways, count }) => ways.every((way) =>
    Number(document.querySelector(`#${way} [data-shows=messages]`).textContent) >= count), { ways, count }, { timeout: 60_000 })
  const all = {}
  for (const way of ways) {
    all[way] = { missing: await shown(page, way, 'missing') }
    for (const what of ['bytes-each', 'requests-each', 'median', 'p99']) all[way][what] = number(await shown(page, way, what))
  }
  return all
}

test('four ways get the same messages, and what each costs is as it must be', async () => {
  const page = await openTab(running.browser, address())
  await isOpen(page)
  await page.selectOption('#rate', '10')
  await page.click('#reset')
  const all = await figures(page, 60)
  for (const way of ways) {
    assert.equal(all[way].missing, '0', way)
    assert.ok(all[way].median > 0 && all[way].p99 >= all[way].median, way)
    assert.ok(all[way]['bytes-each'] > 200, way)
  }
  // Ten messages a second, asked for once a second: on average each waits for half a second.
  assert.ok(all['short-poll'].median > 200 && all['short-poll'].median < 1000)
  assert.ok(all['short-poll']['requests-each'] < 0.5)
  for (const way of ['long-poll', 'sse', 'websocket']) assert.ok(all[way].median < 100, way)
  assert.ok(all['long-poll']['requests-each'] > 0.5)
  for (const way of ['sse', 'websocket']) assert.equal(all[way]['requests-each'], 0, way)
  assert.ok(all['long-poll']['bytes-each'] > 2 * all.websocket['bytes-each'])
  await picture(page, 'compare')
  assert.deepEqual(page.errors, [])
})

test('it publishes over a WebSocket as well, stops on request, and counts anew', async () => {
  const page = await openTab(running.browser, address())
  await isOpen(page)
  await page.selectOption('#by', 'websocket')
  await page.selectOption('#rate', '30')
  await page.selectOption('#poll', '250')
  const all = await figures(page, 30)
  for (const way of ways) assert.equal(all[way].missing, '0', way)
  await page.focus('#run')
  await page.keyboard.press('Enter')
  assert.equal(await page.getAttribute('#run', 'aria-pressed'), 'false')
  await page.waitForTimeout(1500)
  const sent = await page.textContent('#sent')
  await page.waitForTimeout(1000)
  assert.equal(await page.textContent('#sent'), sent)
  for (const way of ways) assert.equal(`${await shown(page, way, 'messages')} published`, sent, way)
  await page.click('#reset')
  await page.locator('#sent', { hasText: /^0 published$/ }).waitFor()
  assert.deepEqual(page.errors, [])
})

test('the table has every use and protocol, and says by which rule it judges', async () => {
  const page = await openTab(running.browser, address())
  await page.locator('#uses tbody tr').nth(4).waitFor()
  const { machine, rule, uses } = await (await fetch(`${running.broker.url}/compare.json`)).json()
  assert.equal(await page.locator('#uses tbody td').count(), 20)
  assert.deepEqual(await page.locator('#uses tbody th strong').allTextContents(), uses.map(({ name }) => name))
  assert.deepEqual(await page.locator('#rule li').allTextContents(), rule)
  assert.match(await page.textContent('#measured'), machine ? /^Measured by bench protocols\. \d{4}-/ : /^Not measured yet/)
  const verdicts = await page.locator('#uses .verdict').allTextContents()
  assert.equal(verdicts.length, uses.flatMap(({ cells }) => cells).length)
  assert.ok(verdicts.every((verdict) => ['fits', 'costs much', 'does not serve'].includes(verdict)))
})

for (const width of [1600, 1280, 400]) {
  for (const colorScheme of ['light', 'dark']) {
    test(`axe finds nothing at ${width} px, ${colorScheme}, and nothing is wider than the window`, async () => {
      const page = await openTab(running.browser, address(), { viewport: { width, height: 800 }, colorScheme, reducedMotion: 'reduce' })
      await isOpen(page)
      await page.locator('#uses tbody tr').nth(4).waitFor()
      await figures(page, 3)
      await page.evaluate(axe)
      const { violations } = await page.evaluate(() => window.axe.run())
      assert.deepEqual(violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(', ')}`), [])
      assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth))
      await picture(page, `compare-${width}-${colorScheme}`)
    })
  }
}

/** A proxy that passes everything on but WebSockets, unless `passes` is set. */
async function startProxy() {
  const proxy = { passes: false }
  const { port } = new URL(running.broker.url)
  const server = createServer((request, response) => {
    const { method, url: path, headers } = request
    const onward = ask({ port, host: '127.0.0.1', method, path, headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers)
      answer.pipe(response)
    })
    onward.on('error', () => response.destroy())
    response.on('close', () => onward.destroy())
    request.pipe(onward)
  })
  server.on('upgrade', (request, client) => {
    client.on('error', () => {})
    if (!proxy.passes) return client.end('HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 0\r\n\r\n')
    const onward = ask({ port, host: '127.0.0.1', path: request.url, headers: request.headers })
    onward.on('upgrade', (answer, upstream) => {
      const fields = Object.entries(answer.headers).map(([name, value]) => `${name}: ${value}\r\n`).join('')
      client.write(`HTTP/1.1 101 Switching Protocols\r\n${fields}\r\n`)
      for (const [from, to] of [[client, upstream], [upstream, client]]) from.pipe(to).on('error', () => from.destroy())
    })
    onward.on('error', () => client.destroy())
    onward.end()
  })
  await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve) })
  proxy.url = `http://127.0.0.1:${server.address().port}`
  proxy.stop = () => {
    server.closeAllConnections()
    server.close()
  }
  return proxy
}

const publish = (name, value) =>
  fetch(`${running.broker.url}/pub/demos/status/${name}`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ value, unit: 'dBm' }) })

test('status page: where WebSockets are blocked the values come by server-sent events, and it says so', { timeout: 200_000 }, async () => {
  const proxy = await startProxy()
  try {
    const page = await openTab(running.browser, `${proxy.url}/demos/status`)
    await publish('signal', -50)
    await page.locator('#transport', { hasText: 'By server-sent events' }).waitFor({ timeout: 30_000 })
    await page.locator('#signal', { hasText: '-50 dBm' }).waitFor()
    await publish('signal', -51)
    await page.locator('#signal', { hasText: '-51 dBm' }).waitFor()
    await picture(page, 'demo-status-sse')
    proxy.passes = true
    await page.locator('#transport', { hasText: 'By WebSocket' }).waitFor({ timeout: 100_000 })
    await publish('signal', -52)
    await page.locator('#signal', { hasText: '-52 dBm' }).waitFor()
  } finally {
    proxy.stop()
  }
})
