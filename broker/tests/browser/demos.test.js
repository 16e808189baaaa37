// The demos of chat and game, each in two tabs: what one does, the other shows.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { addressOf, becomes, has, open, pages, post, running, stageDemos } from './demos.js'
import { isOpen, openTab, picture } from './harness.js'

const helpers = ['ask.js', 'demo.js', 'plot.js', 'steer.js']
const LINES_MAX = 150 // of a script
const BYTES_MAX = 150_000 // of all files

stageDemos()

test('the list leads to every demo, each to its source, and nothing comes from elsewhere', async () => {
  const page = await openTab(running.browser, addressOf(''))
  let bytes = 0
  page.on('request', (request) => assert.ok(request.url().startsWith(running.base) || request.url().startsWith(running.base.replace('http', 'ws'))))
  for (const name of pages) {
    await page.click(`h2 a[href=${name}]`)
    await isOpen(page)
    await page.locator('.try', { hasText: 'Try this:' }).waitFor()
    assert.ok(await page.isVisible(`footer a[href="${name}.js"]`), 'the source is one click away')
    await page.click('.way a')
  }
  assert.deepEqual(page.errors, [])
  for (const file of ['', 'demos.css', 'editor.css', ...helpers, ...pages, ...pages.map((name) => `${name}.js`)]) {
    const answer = await fetch(addressOf(file))
    const text = await answer.text()
    assert.equal(answer.status, 200, file)
    assert.match(answer.headers.get('content-security-policy'), /default-src 'none'; script-src 'self'( 'sha256-[^']+')?; style-src 'self'/)
    if (file.endsWith('.js')) assert.ok(text.split('\n').length <= LINES_MAX + 1, `${file} is longer than ${LINES_MAX} lines`)
    bytes += text.length
  }
  assert.ok(bytes < BYTES_MAX, `${bytes} bytes`)
})

const roomNames = new Set()

/** Tabs in a room that no other test uses. */
async function roomWith(...names) {
  const room = `room ${roomNames.size} ${Date.now()}`
  roomNames.add(room)
  const tabs = []
  for (const name of names) {
    const tab = await open(`chat#${encodeURIComponent(room)}`)
    await tab.fill('#name', name)
    await tab.press('#name', 'Tab')
    tabs.push(tab)
  }
  return { room, tabs, topic: `demos/chat/${encodeURIComponent(room)}` }
}

async function say(tab, words) {
  await tab.fill('#message', words)
  await tab.press('#message', 'Enter')
}

const said = (tab) => tab.locator('#log p .text').allTextContents()

test('chat: both tabs show what is said, who is here, and who is typing; who comes late reads it', async () => {
  const { room, tabs: [ada, bob] } = await roomWith('Ada', 'Bob')
  await has(ada, '#here', /Ada \(you\)Bob|BobAda \(you\)/)
  await say(ada, 'hello <b>Bob</b>')
  await has(bob, '#log p .text', /^hello <b>Bob<\/b>$/)
  // The hint is there for three seconds, and none is sent again: whoever is slow to see it sees the next.
  let isSeen = false
  const seen = has(ada, '#typing', /^Bob is typing…$/).then(() => { isSeen = true })
  while (!isSeen) await Promise.all([bob.locator('#message').pressSequentially('I am '), Promise.race([seen, ada.waitForTimeout(2500)])])
  const late = await open(`chat#${encodeURIComponent(room)}`)
  await has(late, '#log p .text', 'hello <b>Bob</b>')
  assert.equal(await late.textContent('#typing'), '', 'hints are not kept')
  await say(bob, 'I am here')
  await has(ada, '#log p .text', 'I am here')
  assert.equal(await late.locator('#log b').count(), 0, 'texts are no markup')
  await ada.waitForFunction(() => document.querySelector('#typing').textContent === '')
  await picture(ada, 'demo-chat')
  for (const tab of [ada, bob, late]) assert.deepEqual(tab.errors, [])
})

test('chat: what was missed comes once, in order, and is counted; what was written meanwhile is sent', async () => {
  const { tabs: [ada, bob] } = await roomWith('Ada', 'Bob')
  await say(bob, 'before')
  await has(ada, '#log p .text', 'before')
  await ada.click('#cable')
  await ada.waitForFunction(() => document.querySelector('#state').textContent === 'connecting')
  await say(ada, 'from the tunnel')
  await has(ada, '#waiting', /^1 of yours will be sent/)
  for (const words of ['one', 'two', 'three']) {
    await say(bob, words)
    await has(bob, '#log p .text', words)
  }
  assert.deepEqual(await said(ada), ['before'])
  await ada.click('#cable')
  await has(ada, '.notice', /^Back after \d+ s: 3 missed, recovered\.$/)
  await has(bob, '#log p .text', 'from the tunnel')
  assert.deepEqual(await said(ada), ['before', 'one', 'two', 'three', 'from the tunnel'])
  assert.deepEqual(await said(bob), await said(ada))
  assert.equal(await ada.textContent('#waiting'), '')
  await picture(ada, 'demo-chat-recovered')
  for (const tab of [ada, bob]) assert.deepEqual(tab.errors, [])
})

test('chat: rooms are apart, and who goes to another one is gone from the first at once', async () => {
  const { tabs: [ada, bob] } = await roomWith('Ada', 'Bob')
  await has(ada, '#here-count', /^2$/)
  await bob.fill('#other', 'a/b#c 100%')
  await bob.press('#other', 'Enter')
  await has(bob, '#room', /^abc 100%$/)
  await has(ada, '#here-count', /^1$/)
  await say(bob, 'in another room')
  await has(bob, '#log p .text', 'in another room')
  assert.deepEqual(await said(ada), [])
  for (const tab of [ada, bob]) assert.deepEqual(tab.errors, [])
})

test('chat: what is not of this demo is counted, and shown neither as a message nor as markup', async () => {
  const { topic, tabs: [ada] } = await roomWith('Ada')
  for (const body of ['null', '[]', '17', '{}', '{"name":"x"}', '{"name":{},"text":[]}', '{"nick":"old","message":"fields"}']) await post(topic, body)
  await post(topic, '{"name":', { type: 'text/plain' })
  await post(topic, new Uint8Array([0, 255, 254]), { type: 'application/octet-stream' })
  await post(`${topic}/typing`, '{"name":7}')
  await has(ada, '#ignored', /^10 messages ignored/)
  assert.deepEqual(await said(ada), [])
  await post(topic, JSON.stringify({ name: 'n'.repeat(5000), text: `<img src=x>${'t'.repeat(5000)}`, member: [], more: 1 }))
  await has(ada, '#log p .text', /^<img src=x>t+$/)
  assert.equal((await said(ada))[0].length, 1000)
  assert.deepEqual(ada.errors, [])
})

const drawn = (tab) => tab.evaluate(() => document.querySelector('#field').toDataURL())

test('game: a key pressed in one tab moves the dot in the other, and who leaves is gone', async () => {
  const [one, other] = [await open('game'), await open('game')]
  for (const tab of [one, other]) await tab.locator('#players tr').nth(1).waitFor()
  for (const tab of [one, other]) await becomes(tab, '#got', (rate) => rate >= 30)
  await other.waitForTimeout(300)
  const before = await drawn(other)
  await one.focus('#field')
  await one.keyboard.down('ArrowRight')
  await one.waitForTimeout(500)
  await one.keyboard.up('ArrowRight')
  await other.waitForFunction((image) => document.querySelector('#field').toDataURL() !== image, before)
  await becomes(one, '#lag', (ms) => ms >= 0 && ms < 1000)
  await picture(one, 'demo-game')
  assert.deepEqual([...one.errors, ...other.errors], [])
  await one.goto('about:blank')
  await other.waitForFunction(() => document.querySelectorAll('#players tr').length === 1)
})

test('game: a slow tab is sent fewer positions and is not further and further behind; the other stays quick', async () => {
  const [slow, quick] = [await open('game'), await open('game')]
  await quick.locator('#players tr').nth(1).waitFor()
  await slow.locator('#slow').fill('500')
  await becomes(slow, '#skipped', (rate) => rate >= 10)
  await slow.waitForTimeout(4000)
  await becomes(slow, '#got', (rate) => rate > 0 && rate < 20)
  await becomes(slow, '#skipped', (rate) => rate >= 10)
  await becomes(slow, '#lag', (ms) => ms > 100 && ms < 2500)
  await becomes(quick, '#lag', (ms) => ms < 250)
  await becomes(quick, '#skipped', (rate) => rate <= 5)
  await picture(slow, 'demo-game-slow')
  assert.deepEqual([...slow.errors, ...quick.errors], [])
})

test('game: what is not a position is counted and moves nobody', async () => {
  const page = await open('game')
  await page.locator('#players tr', { hasText: 'you' }).waitFor()
  const as = (key) => ({ type: 'application/octet-stream', query: `?key=${key}` }) // of one key, only the newest might come
  await post('demos/game', new Uint8Array(11), as('00000001'))
  await post('demos/game', new Uint8Array(13).fill(1), as('00000002'))
  await post('demos/game', new Uint8Array(12), as('00000003')) // format 0
  await post('demos/game', '{"x":1}', { query: '?key=00000004' })
  await post('demos/game', new Uint8Array(12).fill(1), as('%3Cb%3E'))
  await has(page, '#ignored', /^5 messages ignored/)
  assert.doesNotMatch(await page.textContent('#players'), /0000000|<b>/)
  assert.deepEqual(page.errors, [])
})
