// What the demos share: the connection, shown in the head of the page, and small helpers. What a demo shows of Ringyard is in
// its own script.

import { connect } from '../ringyard.js';

/** The codes of a broker whose own topic rules take the place of the demos'. */
const LACKS = new Set(['unsupported', 'bad-command']);

export const by = (id) => document.getElementById(id);

/** An element with these properties and children; texts become text, never markup. */
export function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

/** A string of 1 to `max` characters that somebody else sent, or undefined. */
export function text(value, max) {
  if (typeof value !== 'string') return undefined;
  return [...value.slice(0, 2 * max).toWellFormed().trim()].slice(0, max).join('') || undefined;
}

/** Connects to the broker that this page comes from. Each demo has a session of its own, for who goes from one to the next. */
export function join(name, options = {}) {
  const url = new URL(`../ws?demo=${name}`, location);
  url.protocol = url.protocol.replace('http', 'ws');
  const bus = connect(url.href, options);
  const show = ({ state, code, reason, delay }) => {
    by('state').textContent = by('state').dataset.state = state;
    const next = delay === undefined ? '' : `next attempt within ${Math.ceil(delay / 1000)} s`;
    by('detail').textContent = state === 'closed' ? `for good: ${code} ${reason ?? ''}` : next;
    if (state === 'open') complain('');
  };
  show({ state: bus.state });
  bus.on('state', show);
  bus.on('error', (error) => complain(explain(error)));
  return bus;
}

/** What an error of the client means for who looks at a demo. */
export function explain({ code, message }) {
  if (LACKS.has(code)) return `The broker refused a part of this demo (${code}: ${message}). Its [[topic]] tables need those of demos/ringyard.toml.`;
  return `${code ?? 'error'}: ${message}`;
}

export const complain = (sentence) => { by('problem').textContent = sentence; };

let ignored = 0;

/** Counts a message that is not what this demo sends: from another version, or from somebody who plays with the topics. */
export function ignore() {
  ignored += 1;
  by('ignored').textContent = `${ignored} ${ignored === 1 ? 'message' : 'messages'} ignored: not of this demo.`;
}

/** A WebSocket class whose cable can be pulled: a connection ends, and the next one waits until the cable is back. */
export function makeCable() {
  const ends = new Set();
  let isIn = true;
  class WebSocketOnCable {
    constructor(...where) {
      this.where = where;
      ends.add(this);
      if (isIn) this.begin();
    }

    begin() {
      this.socket = new WebSocket(...this.where);
      for (const name of ['onopen', 'onmessage', 'onclose']) this.socket[name] = (event) => this[name]?.(event);
    }

    send(data) {
      this.socket.send(data);
    }

    close() {
      ends.delete(this);
      this.socket?.close();
    }
  }
  return {
    WebSocket: WebSocketOnCable,
    get isIn() { return isIn; },
    set isIn(value) {
      isIn = value;
      for (const end of ends) {
        if (!isIn) end.close();
        else if (!end.socket) end.begin();
      }
    },
  };
}
