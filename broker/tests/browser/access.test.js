// The page at a broker that wants to know who connects. The broker's side of `/ws` is scripted: what the page does depends
// on its answers only.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isOpen, openTab, picture, stage } from './harness.js'

const running = stage()

const TOKEN = 'header.claims.signature'
const ANSWERS = {
  subscribe: ({ topic }) => ({ topics: [{ topic, epoch: '00000000000000aa', offset: 1 }] }),
  publish: () => ({ epoch: '00000000000000aa', offset: 1, subscribers: 1 }),
}

/** A tab, and the commands of each connection; connections without TOKEN are refused. */
async function openRefused({ closesWith } = {}) {
  const connections = []
  const page = await openTab(running.browser, 'about:blank')
  await page.routeWebSocket(/\/ws$/, (socket) => {
    const commands = []
    let known = false
    connections.push({ socket, commands })
    socket.onMessage((text) => {
      const command = JSON.parse(text)
      const { type, id, token } = command
      commands.push(command)
      const say = (message) => socket.send(JSON.stringify({ id, ...message }))
      if (type === 'connect') known = token === TOKEN
      if (known) return say({ type: 'ok', ...ANSWERS[type]?.(command) })
      if (type === 'connect' && token === undefined) return say({ type: 'ok' })
      say({ type: 'error', code: token ? 'bad-token' : 'unauthorized', reason: 'nothing grants it' })
      if (token) socket.close({ code: 4400, reason: 'bad token' })
      else if (closesWith) socket.close({ code: closesWith, reason: 'no token in time' })
    })
  })
  await page.goto(running.broker.url)
  return { page, connections }
}

const enter = async (page, text) => {
  await page.fill('#token', text)
  await page.click('[data-testid=use-token]')
}

test('the form for a token is not there where nobody asks for one', async () => {
  const page = await openTab(running.browser, running.broker.url)
  await isOpen(page)
  assert.equal(await page.isVisible('#access'), false)
  assert.deepEqual(page.errors, [])
})

test('an error unauthorized brings the form, and the token that is entered is used', async () => {
  const { page, connections } = await openRefused()
  await page.waitForSelector('#access', { state: 'visible' })
  assert.equal(await page.textContent('#access-problem'), '')
  await picture(page, 'token')
  await enter(page, ` ${TOKEN}\n`)
  await page.waitForFunction(() => document.querySelector('#outcome').textContent.startsWith('Subscribed.'))
  await isOpen(page)
  assert.equal(await page.isVisible('#access'), false)
  const { commands } = connections.at(-1)
  assert.deepEqual([commands[0].type, commands[0].token], ['connect', TOKEN])
  assert.equal(commands[1].type, 'subscribe')
  await page.fill('#message', 'hello')
  await page.click('#send')
  await page.waitForFunction(() => document.querySelector('#message').value === 'hello')
  assert.deepEqual(page.errors, [])
})

test('the token stays in the memory of the page', async () => {
  const { page } = await openRefused()
  const requests = []
  page.on('request', (request) => requests.push(request.url() + JSON.stringify(request.headers())))
  await page.waitForSelector('#access', { state: 'visible' })
  await enter(page, TOKEN)
  await isOpen(page)
  await page.waitForFunction(() => document.querySelector('#outcome').textContent.startsWith('Subscribed.'))
  const kept = await page.evaluate(async () => [
    location.href, document.cookie, document.documentElement.outerHTML, document.querySelector('#token').value,
    JSON.stringify({ ...localStorage }), JSON.stringify({ ...sessionStorage }), JSON.stringify(history.state),
    (await indexedDB.databases()).length, (await globalThis.caches?.keys())?.length ?? 0,
  ].join(' '))
  for (const text of [kept, ...requests]) assert.doesNotMatch(text, /header\.claims/)
  await page.reload()
  await page.waitForSelector('#access', { state: 'visible' })
})

test('close code 4408 brings the form, and a bad token brings it again, with a sentence', async () => {
  const { page, connections } = await openRefused({ closesWith: 4408 })
  await page.waitForFunction(() => document.querySelector('#state').textContent === 'closed')
  assert.equal(await page.isVisible('#access'), true)
  await enter(page, 'wrong')
  await page.waitForFunction(() => document.querySelector('#access-problem').textContent.includes('does not take that token'))
  assert.equal(await page.isVisible('#access'), true)
  assert.deepEqual(connections.at(-1).commands.map(({ type }) => type), ['connect'], 'nothing goes out before it is accepted')
  await enter(page, TOKEN)
  await isOpen(page)
  assert.equal(await page.isVisible('#access'), false)
  assert.deepEqual(page.errors, [])
})
