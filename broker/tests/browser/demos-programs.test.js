// The demos that have a program besides: the status page with its publisher, the model railway with its controller.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { end, has, open, post, run, running, stageDemos } from './demos.js'
import { picture } from './harness.js'

stageDemos()

test('status page: the values live, and the last ones at once when the publisher is gone', async () => {
  const publisher = run('wifi')
  const [one, other] = [await open('status'), await open('status')]
  for (const tab of [one, other]) await tab.locator('#values .value').nth(21).waitFor()
  assert.deepEqual((await one.locator('#values h2').allTextContents()).slice(0, 2), ['signal', 'noise'])
  const first = await one.textContent('#signal')
  assert.match(first, /^-\d+(\.\d+)? dBm$/)
  for (const tab of [one, other]) {
    await tab.waitForFunction((first) => document.querySelector('#signal').textContent !== first, first)
    assert.ok(await tab.evaluate(() => {
      const canvas = document.querySelector('#radio')
      return canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some((value) => value !== 0)
    }), 'the plot is drawn')
  }
  await picture(one, 'demo-status')
  await end(publisher)
  await has(one, '#values .old', /^\d+ s old$/)
  const late = await open('status')
  await has(late, '#count', /^22$/)
  await has(late, '#values .old', /^\d+ s old$/)
  assert.equal(await late.textContent('#signal'), await one.textContent('#signal'))
  for (const tab of [one, other, late]) assert.deepEqual(tab.errors, [])
})

test('status page: what is not a value is counted, and names and units are text', async () => {
  const page = await open('status')
  await page.waitForFunction(() => document.querySelector('#count').textContent !== '')
  for (const body of ['null', '"-60"', '{"value":"-60"}', '{"dbm":-60}', '{"value":null}']) await post('demos/status/garbage', body)
  await has(page, '#ignored', /^[5-6] messages ignored/)
  await post('demos/status/%3Cb%3Ehuge', JSON.stringify({ value: 1e300, unit: `<i>${'u'.repeat(100)}` }))
  const card = page.locator('.value', { hasText: '<b>huge' })
  await card.locator('strong', { hasText: /^1\.000e\+300 <i>u+$/ }).waitFor()
  await post('demos/status/%3Cb%3Ehuge', 'null', { query: '?retain=true&removed=true' })
  await post('demos/status/garbage', 'null', { query: '?retain=true&removed=true' })
  await card.waitFor({ state: 'detached' })
  assert.deepEqual(page.errors, [])
})

const button = (page, kind, number) => page.locator(`button[data-kind=${kind}][data-number="${number}"]`)

/** Sets points, which may be taken by a train for a moment. */
async function setPoints(page, number, wanted) {
  for (let attempt = 0; attempt < 40; attempt += 1) {
    if (await page.textContent(`#set-points-${number}`) === wanted) return
    await button(page, 'points', number).click()
    await page.waitForTimeout(250)
  }
  assert.fail(`points ${number} do not go to ${wanted}`)
}

test('railway: a click in one tab is answered in ms, by WebSocket, by HTTP and by long poll, and seen in the other', async () => {
  run('railway')
  const [one, other] = [await open('railway'), await open('railway')]
  for (const tab of [one, other]) await has(tab, '#controller', 'The controller is here.')
  await has(other, '#set-signal-2', /^(green|red)$/)
  const [signal] = await other.locator('#set-signal-2').allTextContents()
  await button(one, 'signal', 2).focus()
  await one.keyboard.press('Enter')
  await has(other, '#set-signal-2', signal === 'red' ? /^green$/ : /^red$/)
  for (const way of ['ws', 'http', 'poll']) await has(one, `#${way}-last`, /^\d+(\.\d+)? ms$/)
  await has(one, '#answer', /^The controller: signal 2, (red|green)\.$/)
  await setPoints(one, 1, 'loop')
  await has(other, '#set-points-1', /^loop$/)
  await one.waitForFunction(() => document.querySelector('#blade-1-main').matches('.unset') && !document.querySelector('#blade-1-loop').matches('.unset'))
  const place = await other.getAttribute('#car-1-0', 'transform')
  await other.waitForFunction((place) => document.querySelector('#car-1-0').getAttribute('transform') !== place, place)
  await picture(one, 'demo-railway')
  for (const tab of [one, other]) assert.deepEqual(tab.errors, [])
})

test('railway: who drives sets the speed, and the other tab sees the train stand', async () => {
  run('railway')
  const [driver, other] = [await open('railway'), await open('railway')]
  await has(driver, '#controller', 'The controller is here.')
  assert.ok(await driver.isDisabled('#speed-1'))
  await driver.click('#take-1')
  await has(driver, '#take-1', 'Leave train 1')
  await driver.locator('#speed-1').fill('0')
  await has(other, '#doing-1', /^(stands|waits: .*)$/)
  await other.waitForFunction(() => document.querySelector('#speed-1').value === '0')
  await has(driver, '#driver-1', 'you drive')
  await has(other, '#driver-1', /^driver: /)
  await other.click('#take-1')
  await has(other, '#problem', /^Train 1 has a driver: /)
  assert.ok(await other.isDisabled('#speed-1'))
  await driver.click('#take-1')
  assert.ok(await driver.isDisabled('#speed-1'))
  await other.click('#take-1')
  await has(other, '#take-1', 'Leave train 1')
  await other.reload()
  await has(driver, '#driver-1', /^driver: /)
  await other.click('#take-1')
  await has(other, '#take-1', 'Leave train 1')
  await other.click('#take-1')
  await driver.waitForFunction(() => document.querySelector('#driver-1').textContent === '')
  for (const tab of [driver, other]) assert.deepEqual(tab.errors, [])
})

test('railway: when the tab of a driver is closed, its train stops: a last will', async () => {
  run('railway')
  const [driver, other] = [await open('railway'), await open('railway')]
  await driver.click('#take-2')
  await has(driver, '#take-2', 'Leave train 2')
  await driver.locator('#speed-2').fill('50')
  await other.waitForFunction(() => document.querySelector('#speed-2').value === '50')
  await driver.close()
  await other.waitForFunction(() => document.querySelector('#speed-2').value === '0')
  await has(other, '#doing-2', /^(stands|waits: .*)$/)
  assert.deepEqual(other.errors, [])
})

test('railway: without a controller a click says so, and garbage moves nothing', async () => {
  const controller = run('railway')
  const page = await open('railway')
  await has(page, '#controller', 'The controller is here.')
  await end(controller)
  await button(page, 'signal', 1).click()
  await has(page, '#problem', /^No controller is there/)
  const place = await page.getAttribute('#car-2-0', 'transform')
  const garbage = [
    ['train/2', '{"block":"nowhere","before":"top","at":0.5,"speed":1,"waits":""}'], ['train/2', '{"block":"top","before":"left","at":7,"speed":1,"waits":""}'],
    ['train/2', 'null'], ['train/2', '{"position":12}'], ['train/9', '{}'], ['points/1', '{"is":"<b>"}'], ['signal/1', '"red"'], ['nothing', '{}'],
  ]
  for (const [index, [key, body]] of garbage.entries()) {
    await post('demos/rail/state', body, { query: `?key=${encodeURIComponent(key)}` })
    await has(page, '#ignored', new RegExp(`^${index + 1} messages? ignored`)) // of one key, only the newest might come
  }
  assert.equal(await page.getAttribute('#car-2-0', 'transform'), place)
  for (const [key] of garbage) await post('demos/rail/state', 'null', { query: `?removed=true&key=${encodeURIComponent(key)}` })
  assert.deepEqual(page.errors, [])
})

test('railway: the controller refuses what would be wrong, and goes on', async () => {
  run('railway')
  const page = await open('railway')
  await has(page, '#controller', 'The controller is here.')
  const ask = async (topic, body) => {
    const answer = await fetch(`${running.base}/request/demos/rail/${topic}`, { method: 'POST', headers: { 'content-type': 'application/json' }, body })
    return { status: answer.status, body: await answer.json() }
  }
  for (const [topic, body, code] of [
    ['points/1', '{"to":"left"}', 'bad-request'], ['points/1', 'null', 'bad-request'], ['points/5', '{"to":"main"}', 'not-found'],
    ['signal/x', '{"to":"red"}', 'not-found'], ['signal/__proto__', '{"to":"red"}', 'not-found'],
  ]) {
    const answer = await ask(topic, body)
    assert.deepEqual([answer.status, answer.body.error?.code], [500, code], JSON.stringify(answer))
  }
  const refused = await fetch(`${running.base}/pub/demos/rail/throttle/1`, { method: 'POST', body: '{"speed":1}' })
  assert.equal(refused.status, 423, 'only who has the lease sets a speed')
  await page.evaluate(async () => {
    const { connect } = await import('/ringyard.js')
    const bus = connect(`${location.origin.replace('http', 'ws')}/ws`)
    for (const [number, data] of [[1, null], [1, { speed: 'fast' }], [1, { speed: null }], [7, { speed: 1 }]]) {
      const topic = `demos/rail/throttle/${number}`
      const lease = await bus.lease(topic)
      await bus.publish(topic, data, { lease })
      lease.release()
    }
    bus.close()
  })
  assert.deepEqual(await ask('signal/1', '{"to":"green"}'), { status: 200, body: { is: 'green' } })
})
