// A page over https, at a broker that asks for tokens: TLS with a certificate that the browser checks, tokens, their renewal
// and their revocation, in a real browser.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { createHash, createHmac } from 'node:crypto'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { after, afterEach, before, test } from 'node:test'
import { closeTabs, isOpen, openTab, picture, startBroker, startBrowser, stop } from './harness.js'

const SECRET = '0123456789abcdef0123456789abcdef'
const KEY = 'rk_operator'
const folder = mkdtempSync(path.join(tmpdir(), 'ringyard-secure-'))
const file = (name) => path.join(folder, name)
let browser, broker, secure

/** A port that is free now. */
async function freePort() {
  const server = createServer().listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  const { port } = server.address()
  await new Promise((resolve) => server.close(resolve))
  return port
}

/** A token of a user that ends in so many seconds. */
function token(sub, seconds) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const now = Math.floor(Date.now() / 1000)
  const text = `${part({ alg: 'HS256' })}.${part({ sub, iat: now - 1, exp: now + seconds })}`
  return `${text}.${createHmac('sha256', SECRET).update(text).digest('base64url')}`
}

/** Makes an authority, and a certificate that it has signed for 127.0.0.1. */
function makeCertificates() {
  const openssl = (...words) => execFileSync('openssl', words, { cwd: folder, stdio: 'ignore' })
  const ec = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes']
  openssl('req', '-x509', ...ec, '-days', '2', '-subj', '/CN=Ringyard test authority', '-keyout', 'ca.key', '-out', 'ca.pem',
    '-addext', 'keyUsage=critical,keyCertSign,cRLSign')
  openssl('req', ...ec, '-subj', '/CN=localhost', '-keyout', 'key.pem', '-out', 'request.pem')
  writeFileSync(file('extensions'), 'subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n')
  openssl('x509', '-req', '-days', '2', '-in', 'request.pem', '-CA', 'ca.pem', '-CAkey', 'ca.key', '-extfile', 'extensions',
    '-out', 'cert.pem')
}

/** A home directory whose certificates (NSS) are those of the authority; Chromium trusts what is there. */
function makeHome() {
  const store = path.join(folder, 'home/.pki/nssdb')
  mkdirSync(store, { recursive: true })
  const certutil = (...words) => execFileSync('certutil', ['-d', `sql:${store}`, ...words], { stdio: 'ignore' })
  certutil('-N', '--empty-password')
  certutil('-A', '-n', 'Ringyard test authority', '-t', 'C,,', '-i', file('ca.pem'))
  return file('home')
}

before(async () => {
  makeCertificates()
  writeFileSync(file('secret'), SECRET)
  writeFileSync(file('ringyard.toml'), `
    [auth]
    hs-secret-file = '${file('secret')}'
    algorithms = ['HS256']
    [[allow]]
    principal = 'user'
    subscribe = ['#']
    publish = ['demo', 'chat/+']
    [[key]]
    name = 'operator'
    sha256 = '${createHash('sha256').update(KEY).digest('hex')}'
    api = ['connections']
    [[tls]]
    cert = '${file('cert.pem')}'
    key = '${file('key.pem')}'
  `)
  const port = await freePort()
  const operators = await freePort()
  const env = { RINGYARD_CONFIG: file('ringyard.toml'), RINGYARD_TLS_LISTEN: `127.0.0.1:${port}` }
  browser = await startBrowser({ HOME: makeHome() })
  broker = await startBroker('127.0.0.1:0', `127.0.0.1:${operators}`, env)
  secure = { url: `https://127.0.0.1:${port}`, operators: `http://127.0.0.1:${operators}` }
})
after(async () => {
  await browser?.close()
  await stop(broker)
  rmSync(folder, { recursive: true })
})
afterEach(closeTabs)

const tab = () => openTab(browser, secure.url)

test('the page is served over https, asks for a token, and works with it', async () => {
  const page = await tab()
  await page.waitForSelector('#access', { state: 'visible' })
  await page.fill('#token', token('ada', 600))
  await page.click('[data-testid=use-token]')
  await isOpen(page)
  await page.waitForFunction(() => document.querySelector('#outcome').textContent.startsWith('Subscribed.'))
  await page.fill('#message', 'over TLS')
  await page.click('#send')
  await page.getByText('over TLS', { exact: true }).first().waitFor()
  await picture(page, 'secure')
  assert.equal(await page.evaluate(() => location.protocol), 'https:')
})

test('without the authority the browser does not come', async () => {
  const stranger = await startBrowser()
  await assert.rejects(openTab(stranger, secure.url), /ERR_CERT_AUTHORITY_INVALID/)
  await stranger.close()
})

test('the client renews its token on the open connection, and a revocation ends it', async () => {
  const page = await tab()
  await page.exposeFunction('sign', (seconds) => token('eve', seconds))
  const states = await page.evaluate(async () => {
    const { connect } = await import('/ringyard.js')
    globalThis.states = []
    globalThis.fetched = 0
    const token = async () => { fetched++; return sign(4) }
    globalThis.bus = connect(location.origin.replace('http', 'ws') + '/ws', { token })
    bus.on('state', ({ state, code }) => states.push([state, code ?? null]))
    const chat = bus.subscribe('chat/7')
    await chat.ready
    await new Promise((resolve) => setTimeout(resolve, 7000))
    const { offset } = await bus.publish('chat/7', 'still here')
    return { states, offset, fetched }
  })
  assert.deepEqual(states.states, [['open', null]], 'one connection all the time')
  assert.equal(states.offset, 1)
  assert.ok(states.fetched >= 3 && states.fetched < 12, `${states.fetched} tokens`)
  const revoked = await fetch(`${secure.operators}/api/users/eve/revoke`, {
    method: 'POST', headers: { authorization: `Bearer ${KEY}` },
  })
  assert.equal((await revoked.json()).closed, 1)
  await page.waitForFunction(() => states.at(-1)[0] === 'closed')
  assert.equal(await page.evaluate(() => states.at(-1)[1]), 4403)
})
