// How long a message takes from the publisher to the document: in the page, which uses the client, against the least that
// a page can do, a bare WebSocket whose messages go into a list. Both in one tab, in turns.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isOpen, openTab, stage } from './harness.js'

const BLOCKS = 5 // the median one counts: a machine that is busy for a moment spoils one
const ROUNDS = 200 // messages each way in a block
const RATIO_MAX = 1.2 // of the 99th percentiles
const JITTER_MS = 5 // of a machine that does other things besides: allowed on top

const running = stage()

/** In the page: publishes in turns, and returns for each way how long every message took, in ms. */
async function measure(rounds) {
  const socket = (path) => new Promise((resolve, reject) => {
    const socket = new WebSocket(`ws://${location.host}${path}`)
    socket.onopen = () => resolve(socket)
    socket.onerror = () => reject(new Error(path))
  })
  const bareList = document.body.appendChild(document.createElement('ol'))
  const bare = await socket('/sub/bare')
  bare.onmessage = ({ data }) => {
    const item = document.createElement('li')
    item.textContent = data
    bareList.prepend(item)
  }
  const ways = {
    bare: { list: bareList, publisher: await socket('/pub/bare'), took: [] },
    page: { list: document.querySelector('#messages'), publisher: await socket('/pub/latency'), took: [] },
  }
  for (let round = 0; round < rounds; round += 1) {
    for (const way of Object.values(ways)) {
      const appeared = new Promise((resolve) => {
        const observer = new MutationObserver(() => {
          observer.disconnect()
          resolve()
        })
        observer.observe(way.list, { childList: true })
      })
      const begun = performance.now()
      way.publisher.send(`message ${round}`)
      await appeared
      way.took.push(performance.now() - begun)
      if (way.list.childElementCount > 50) way.list.lastElementChild.remove()
      await new Promise((resolve) => { setTimeout(resolve, 1) })
    }
  }
  for (const socket of [bare, ways.bare.publisher, ways.page.publisher]) socket.close()
  bareList.remove()
  return { bare: ways.bare.took, page: ways.page.took }
}

const quantile = (took, share) => took.toSorted((a, b) => a - b)[Math.floor(took.length * share)]

test('a message is in the document as soon as with a bare WebSocket', async (t) => {
  const page = await openTab(running.browser, `${running.broker.url}/#latency`)
  await isOpen(page)
  await page.locator('#outcome', { hasText: /^Subscribed/ }).waitFor()
  await page.evaluate(measure, 50) // warm
  const blocks = []
  for (let block = 0; block < BLOCKS; block += 1) {
    const { bare, page: client } = await page.evaluate(measure, ROUNDS)
    const [bare99, client99] = [quantile(bare, 0.99), quantile(client, 0.99)]
    blocks.push({ bare99, client99, beyond: client99 - RATIO_MAX * bare99 })
    const medians = [client, bare].map((took) => quantile(took, 0.5).toFixed(2))
    const p99s = [client99, bare99].map((took) => took.toFixed(2))
    t.diagnostic(`p99 ${p99s[0]} ms, bare ${p99s[1]} ms, ratio ${(client99 / bare99).toFixed(2)}; median ${medians.join(', bare ')} ms`)
  }
  const { bare99, client99, beyond } = blocks.toSorted((a, b) => a.beyond - b.beyond)[Math.floor(BLOCKS / 2)]
  assert.ok(beyond <= JITTER_MS, `${client99} ms against ${bare99} ms`)
  assert.deepEqual(page.errors, [])
})
