// A network that fails on purpose: a TCP proxy in front of the broker that cuts connections, refuses new ones, delays what
// passes, or lets both ends believe in a connection that carries nothing any more.
import { once } from 'node:events'
import net from 'node:net'

class Network {
  /** Whether new connections are closed at once. */
  refuses = false
  /** How long each chunk takes, in ms, in each direction. */
  delayMs = 0
  #server
  #links = new Set()

  constructor(server) {
    this.#server = server
    this.url = `http://127.0.0.1:${server.address().port}`
  }

  join(client, broker) {
    const link = { ends: [client, broker], silent: false }
    this.#links.add(link)
    for (const [from, to] of [[client, broker], [broker, client]]) {
      let last = Promise.resolve() // chunks keep their order
      from.on('data', (chunk) => {
        const due = this.delayMs ? new Promise((resolve) => { setTimeout(resolve, this.delayMs) }) : undefined
        last = last.then(() => due).then(() => { if (!link.silent && !to.destroyed) to.write(chunk) })
      })
      from.on('error', () => from.destroy())
      from.on('close', () => {
        if (link.silent) return // the other end is not told
        last.then(() => to.destroy())
        this.#links.delete(link)
      })
    }
  }

  /** Ends all connections. */
  cut() {
    for (const { ends } of this.#links) for (const end of ends) end.destroy()
  }

  /** No connection is closed, and nothing passes any more; new ones work. */
  silence() {
    for (const link of this.#links) link.silent = true
  }

  stop() {
    this.#server.close()
    this.cut()
  }
}

/** A network before the broker at `host`, which may restart there. */
export async function networkTo(host) {
  const [address, port] = host.split(':')
  let network
  const server = net.createServer((client) => {
    if (network.refuses) client.destroy()
    else network.join(client, net.connect(Number(port), address))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  network = new Network(server)
  return network
}
