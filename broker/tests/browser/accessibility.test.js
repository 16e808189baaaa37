// Whether everybody can use the page: axe-core's rules, and the keyboard alone, at the width of a desk and of a phone.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { test } from 'node:test'
import { isOpen, openTab, picture, showsBroker, stage } from './harness.js'

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
const widths = [1600, 1280, 400, 320]
const schemes = ['light', 'dark']

const running = stage()

async function post(body, type = 'text/plain') {
  const answer = await fetch(`${running.broker.url}/pub/demo`, { method: 'POST', headers: { 'content-type': type }, body })
  assert.equal(answer.status, 200)
}

/** The page with a message of each kind in it: short, empty, longer than its place, binary, and one of its own. */
async function pageWithMessages(width, colorScheme = 'light') {
  const options = { viewport: { width, height: 800 }, colorScheme, reducedMotion: 'reduce' }
  const page = await openTab(running.browser, running.broker.url, options)
  await isOpen(page)
  await showsBroker(page)
  await post('short')
  await post('')
  await post('one line of many\n'.repeat(40))
  await post(new Uint8Array(300).fill(0x41), 'application/octet-stream')
  await page.fill('#message', 'from this page')
  await page.click('#send')
  await page.locator('#messages li').nth(4).waitFor()
  return page
}

/** What axe-core holds against the page. The page's policy allows no scripts from elsewhere; the debugger may run them. */
async function violations(page) {
  await page.evaluate(axe)
  const { violations } = await page.evaluate(() => window.axe.run())
  return violations.map(({ id, impact, nodes }) => `${impact} ${id}: ${nodes.map(({ html }) => html).join(', ')}`)
}

for (const width of widths) {
  for (const scheme of schemes) {
    test(`axe finds nothing at ${width} px, ${scheme}, without and with messages`, async () => {
      const options = { viewport: { width, height: 800 }, colorScheme: scheme }
      const bare = await openTab(running.browser, running.broker.url, options)
      await isOpen(bare)
      await showsBroker(bare)
      assert.deepEqual(await violations(bare), [])
      const page = await pageWithMessages(width, scheme)
      assert.deepEqual(await violations(page), [])
      await picture(page, `messages-${width}-${scheme}`)
      assert.deepEqual(page.errors, [])
    })
  }

  test(`axe finds nothing at ${width} px with present values, and nothing is wider than the window`, async () => {
    const long = 'x'.repeat(100)
    for (const topic of ['values/a', `values/${long}`]) {
      const answer = await fetch(`${running.broker.url}/pub/${topic}?retain=true&key=k`, { method: 'POST', body: long })
      assert.equal(answer.status, 200)
    }
    for (const colorScheme of schemes) {
      const options = { viewport: { width, height: 800 }, colorScheme, reducedMotion: 'reduce' }
      const page = await openTab(running.browser, `${running.broker.url}/#values/%23`, options)
      await isOpen(page)
      await page.locator('#values-body tr').nth(1).waitFor()
      await showsBroker(page)
      await fetch(`${running.broker.url}/pub/values/a?key=k`, { method: 'POST', body: 'live' })
      await page.locator('#messages .tag').waitFor()
      assert.deepEqual(await violations(page), [])
      const wide = await page.evaluate(() => document.documentElement.scrollWidth)
      assert.ok(wide <= width, `${wide} px`)
      await picture(page, `values-${width}-${colorScheme}`)
    }
  })

  test(`at ${width} px nothing is wider than the window`, async () => {
    const page = await pageWithMessages(width)
    const wide = await page.evaluate(() => document.documentElement.scrollWidth)
    assert.ok(wide <= width, `${wide} px`)
  })
}

/** Numbers everything that can be used or scrolled, `data-step`; says what each is. */
function numberUsable() {
  const scrolls = (node) => {
    const { overflowX, overflowY } = getComputedStyle(node)
    return (/auto|scroll/.test(overflowY) && node.scrollHeight > node.clientHeight)
      || (/auto|scroll/.test(overflowX) && node.scrollWidth > node.clientWidth)
  }
  const all = [...document.querySelectorAll('main *')]
  const used = all.filter((node) => node.matches('a[href], button:not(:disabled), input, textarea') || scrolls(node))
  const visible = used.filter((node) => node.checkVisibility())
  return visible.map((node, step) => {
    node.dataset.step = step
    return node.id || node.dataset.copy || node.getAttribute('href') || node.className
  })
}

/** Where the focus is: the number of the element, and whether one sees it there. */
function focused() {
  const node = document.activeElement
  const { top, bottom } = node.getBoundingClientRect()
  const outlined = getComputedStyle(node).outlineStyle !== 'none'
  return { step: node.dataset.step, seen: outlined && bottom > 0 && top < innerHeight }
}

for (const width of [1280, 400]) {
  test(`at ${width} px the keyboard reaches everything, and shows where it is`, async () => {
    const page = await pageWithMessages(width)
    const names = await page.evaluate(numberUsable)
    for (const name of ['topic', 'message', 'send', 'key', 'retain', 'clear', 'log', 'text', 'curl', 'v1', 'README.md', 'all-counters']) {
      assert.ok(names.includes(name), `${name} is not among ${names}`)
    }
    await page.evaluate(() => {
      document.body.tabIndex = -1
      document.body.focus()
    })
    const reached = new Set()
    for (let press = 0; press < names.length; press += 1) {
      await page.keyboard.press('Tab')
      const { step, seen } = await page.evaluate(focused)
      assert.ok(seen, `${names[step]} has the focus and does not show it`)
      reached.add(names[step])
    }
    assert.deepEqual(names.filter((name) => !reached.has(name)), [])
  })
}

test('the keyboard scrolls a message that is longer than its place, and leaves it', async () => {
  const page = await pageWithMessages(400)
  const long = page.locator('#messages .text', { hasText: 'one line of many' })
  assert.equal(await long.getAttribute('tabindex'), '0')
  await long.focus()
  await page.keyboard.press('End')
  await page.waitForFunction((node) => node.scrollTop > 100, await long.elementHandle())
  await page.keyboard.press('Tab')
  assert.ok(await long.evaluate((node) => node !== document.activeElement))
  const short = page.locator('#messages .text', { hasText: /^short$/ })
  assert.equal(await short.getAttribute('tabindex'), null, 'there is nothing to scroll')
})

test('a message stops taking the focus when it has room', async () => {
  const page = await pageWithMessages(320)
  const dump = page.locator('#messages .binary .text')
  await page.waitForFunction((node) => node.tabIndex === 0, await dump.elementHandle())
  await dump.evaluate((node) => { node.style.maxHeight = 'none'; node.style.width = 'max-content' })
  await page.waitForFunction((node) => !node.hasAttribute('tabindex'), await dump.elementHandle())
})

for (const [width, scheme] of [[1280, 'light'], [320, 'dark']]) {
  test(`axe finds nothing in the form for a token at ${width} px, ${scheme}, and nothing is wider than the window`, async () => {
    const page = await openTab(running.browser, 'about:blank', { viewport: { width, height: 800 }, colorScheme: scheme })
    await page.routeWebSocket(/\/ws$/, (socket) => {
      socket.onMessage((text) => {
        const { type, id, token } = JSON.parse(text)
        if (type === 'connect') socket.send(JSON.stringify({ type: 'error', id, code: token ? 'bad-token' : 'unauthorized', reason: '' }))
        if (token) socket.close({ code: 4400, reason: 'bad token' })
      })
    })
    await page.goto(running.broker.url)
    await page.waitForSelector('#access', { state: 'visible' })
    assert.deepEqual(await violations(page), [])
    await page.fill('#token', 'x'.repeat(2000))
    await page.press('#token', 'Enter')
    await page.waitForFunction(() => document.querySelector('#access-problem').textContent !== '')
    assert.deepEqual(await violations(page), [])
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth))
  })
}
