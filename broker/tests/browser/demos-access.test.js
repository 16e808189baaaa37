// Whether everybody can use the demos: axe-core's rules, the keyboard alone, the width of a phone and of a desk.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { test } from 'node:test'
import { addressOf, has, open, pages, run, running, stageDemos } from './demos.js'
import { closeTabs, openTab, picture } from './harness.js'

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')

stageDemos()

async function violations(page) {
  await page.evaluate(axe)
  const { violations } = await page.evaluate(() => window.axe.run())
  return violations.map(({ id, impact, nodes }) => `${impact} ${id}: ${nodes.map(({ html }) => html).join(', ')}`)
}

/** What has to be there before a demo is looked at. */
const ready = {
  '': async () => {},
  chat: async (page) => { await page.waitForSelector('#here li'); await page.fill('#message', 'words '.repeat(80)); await page.press('#message', 'Enter'); await page.waitForSelector('#log .text') },
  editor: (page) => page.fill('#text', 'Line of a text that many write\n'.repeat(12)),
  game: (page) => page.waitForSelector('#players tr'),
  status: (page) => page.locator('#values .value').nth(21).waitFor(),
  railway: async (page) => { await has(page, '#controller', 'The controller is here.'); await has(page, '#doing-2', /runs|waits|stands/) },
}

for (const name of ['', ...pages]) {
  test(`axe finds nothing in ${name || 'the list'} at 400 and 1,600 px, light and dark, and nothing is wider than the window`, async () => {
    if (name === 'status') run('wifi')
    if (name === 'railway') run('railway')
    const page = await openTab(running.browser, addressOf(name))
    await ready[name](page)
    for (const width of [400, 1600]) {
      await page.setViewportSize({ width, height: 900 })
      for (const colorScheme of ['light', 'dark']) {
        await page.emulateMedia({ colorScheme })
        assert.deepEqual(await violations(page), [], `${width} px, ${colorScheme}`)
        await picture(page, `demo-${name || 'index'}-${width}-${colorScheme}`)
      }
      assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `too wide for ${width} px`)
    }
    assert.deepEqual(page.errors, [])
  })
}

test('the keyboard reaches everything in every demo, and shows where it is', async () => {
  run('railway')
  for (const name of pages) {
    const page = await open(name)
    await ready[name === 'status' ? '' : name](page)
    const count = await page.evaluate(() => {
      const usable = [...document.querySelectorAll('a[href], button:not(:disabled), input:not(:disabled), textarea:not(:disabled), [tabindex="0"]')]
      usable.forEach((node, step) => { node.dataset.step = step })
      document.body.tabIndex = -1
      document.body.focus()
      return usable.length
    })
    const reached = new Set()
    for (let press = 0; press < count; press += 1) {
      await page.keyboard.press('Tab')
      const { step, isSeen } = await page.evaluate(() => {
        const node = document.activeElement
        return { step: node.dataset.step, isSeen: getComputedStyle(node).outlineStyle !== 'none' }
      })
      assert.ok(isSeen, `${name}: step ${step} does not show that it has the focus`)
      reached.add(step)
    }
    assert.equal(reached.size, count, name)
    await closeTabs()
  }
})
