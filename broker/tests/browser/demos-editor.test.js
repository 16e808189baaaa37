// The demo of an editor: two tabs write one text, also without a connection.
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { test } from 'node:test'
import { addressOf, has, open, running, stageDemos } from './demos.js'
import { openTab, picture } from './harness.js'

stageDemos()

let documents = 0

/** Tabs at a document that no other test uses. */
async function documentWith(...names) {
  const tabs = []
  const name = `text ${++documents} ${Date.now()}`
  for (const who of names) {
    const tab = await open(`editor#${encodeURIComponent(name)}`)
    await tab.locator('#text:enabled').waitFor()
    await tab.fill('#name', who)
    await tab.press('#name', 'Tab')
    tabs.push(tab)
  }
  return { name, tabs }
}

const read = (tab) => tab.inputValue('#text')

async function reads(tab, wanted) {
  await tab.waitForFunction((wanted) => document.querySelector('#text').value === wanted, wanted)
}

const putCaret = (tab, index) => tab.evaluate((index) => {
  document.querySelector('#text').focus()
  document.querySelector('#text').setSelectionRange(index, index)
}, index)

test('editor: the policy allows the import map of the page, and no other inline script', async () => {
  const answer = await fetch(addressOf('editor'))
  const [, map] = /<script type="importmap">(.*?)<\/script>/s.exec(await answer.text())
  const hash = createHash('sha256').update(map).digest('base64')
  assert.match(answer.headers.get('content-security-policy'), new RegExp(`script-src 'self' 'sha256-${hash.replace(/[+/]/g, '\\$&')}';`))
})

test('editor: both tabs write, see each other, and keep their carets', async () => {
  const { tabs: [ada, bob] } = await documentWith('Ada', 'Bob')
  await ada.locator('#text').pressSequentially('Hello world')
  await reads(bob, 'Hello world')
  await putCaret(bob, 5)
  await bob.keyboard.type(', <b>my</b>')
  await reads(ada, 'Hello, <b>my</b> world')
  assert.equal(await ada.evaluate(() => document.querySelector('#text').selectionStart), 22, 'the caret stays at the end')
  await ada.keyboard.type('!\nnext')
  await reads(bob, 'Hello, <b>my</b> world!\nnext')
  assert.equal(await bob.evaluate(() => document.querySelector('#text').selectionStart), 16)
  await has(bob, '#here', /Bob \(you\)Ada, line 2/)
  await has(ada, '#here', /Ada \(you\)Bob, line 1/)
  assert.equal(await bob.getAttribute('#carets span', 'data-name'), 'Ada')
  assert.equal(await ada.textContent('#here-count'), '2')
  await has(ada, '#saved', 'Everything is saved.')
  await picture(bob, 'demo-editor')
  await bob.setViewportSize({ width: 400, height: 800 })
  await picture(bob, 'demo-editor-phone')
  assert.ok(await bob.evaluate(() => document.documentElement.scrollWidth <= innerWidth))
  await bob.goto('about:blank')
  await has(ada, '#here-count', /^1$/)
  assert.deepEqual(ada.errors, [])
})

test('editor: what both write without a connection merges', async () => {
  const { name, tabs: [ada, bob] } = await documentWith('Ada', 'Bob')
  await ada.locator('#text').pressSequentially('one two three')
  await reads(bob, 'one two three')
  await ada.click('#cable')
  await has(ada, '#state', 'connecting')
  await putCaret(ada, 3)
  await ada.keyboard.type(' and a half')
  await has(ada, '#saved', 'Not saved yet.')
  await putCaret(bob, 13)
  await bob.keyboard.type(' four')
  await ada.click('#cable')
  await reads(ada, 'one and a half two three four')
  await reads(bob, 'one and a half two three four')
  await has(ada, '#saved', 'Everything is saved.')
  for (const tab of [ada, bob]) {
    assert.deepEqual(tab.errors, [])
    await tab.close()
  }
  const late = await open(`editor#${encodeURIComponent(name)}`)
  await reads(late, 'one and a half two three four')
})

test('editor: emoji stay whole, repeated letters go where they were typed, garbage is counted', async () => {
  const { name, tabs: [ada, bob] } = await documentWith('Ada', 'Bob')
  await ada.fill('#text', '\u{1f600}aaa')
  await reads(bob, '\u{1f600}aaa')
  await ada.fill('#text', '\u{1f601}aaa') // has the same first half
  await reads(bob, '\u{1f601}aaa')
  await putCaret(bob, 5)
  await putCaret(ada, 3)
  await ada.keyboard.type('a')
  await reads(bob, '\u{1f601}aaaa')
  assert.equal(await bob.evaluate(() => document.querySelector('#text').selectionStart), 6)
  const topic = `demos/doc/${encodeURIComponent(name)}`
  for (const where of [topic, `${topic}/awareness`]) {
    const answer = await fetch(`${running.base}/pub/${where}`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: '{}' })
    assert.equal(answer.status, 200)
  }
  await has(ada, '#ignored', '2 messages ignored')
  await ada.keyboard.type('!')
  await reads(bob, '\u{1f601}aa!aa')
  assert.equal(await read(ada), await read(bob))
})

test('editor: no request goes elsewhere', async () => {
  const requests = []
  const page = await openTab(running.browser, 'about:blank')
  page.on('request', (request) => requests.push(request.url()))
  await page.goto(addressOf('editor'))
  await page.locator('#text:enabled').waitFor()
  assert.ok(requests.some((url) => url.endsWith('/yjs.js')))
  for (const url of requests) assert.equal(new URL(url).host, new URL(running.base).host)
})
