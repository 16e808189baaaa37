// The WebSocket that the page gives to the client. It does two things that the client leaves to pages: it finds out why a
// handshake was refused, and waits as the broker asks; and it asks where the topic's newest message is, so that the page
// can say how many messages came in its absence.

import { currentToken } from './page-token.js';

const ASK_MS = 5000; // how long an answer of /readyz is waited for
const RETRY_AFTER_MAX_S = 60; // a longer Retry-After is not believed
const QUESTION_ID = 'page'; // the client's own ids are numbers

/** Why the broker takes no WebSocket, and how long it wants to be left alone. The WebSocket API hides both: a refused
 *  handshake tells a page neither its status nor Retry-After. */
async function askWhy(httpBase) {
  try {
    const answer = await fetch(`${httpBase}/readyz`, { cache: 'no-store', signal: AbortSignal.timeout(ASK_MS) });
    const waitMs = 1000 * Math.min(RETRY_AFTER_MAX_S, Number(answer.headers.get('retry-after')) || 0);
    if (answer.ok) return { reason: 'the handshake was refused', waitMs };
    return { reason: answer.status === 503 ? 'the broker takes no connections now (503)' : `status ${answer.status}`, waitMs };
  } catch {
    return { reason: '', waitMs: 0 };
  }
}

/** A class for the client's option `WebSocket`, and how long the broker wants to be left alone.
 *  `question()` names the topic to ask about after a handshake, if any; `answered` gets the broker's answer. */
export function linkTo(httpBase, question, answered) {
  let notBefore = 0;
  const waitMs = () => Math.max(0, notBefore - performance.now());

  class Link {
    onopen = null;
    onmessage = null;
    onclose = null;
    onerror = null;
    #socket;
    #timer;
    #opened = false;
    #mayAsk = false; // as soon as the broker takes commands
    #asked = false;

    constructor(url, protocol) {
      if (waitMs() === 0) this.#open(url, protocol);
      else this.#timer = setTimeout(() => this.#open(url, protocol), waitMs());
    }

    send(text) {
      this.#socket.send(text);
    }

    close() {
      clearTimeout(this.#timer);
      this.#socket?.close();
    }

    #open(url, protocol) {
      this.#socket = new WebSocket(url, protocol);
      this.#socket.onopen = () => {
        this.#opened = true;
        this.onopen?.();
        this.#mayAsk = true;
        // With a token, nothing else is sent before the broker has answered `connect` with ok.
        if (currentToken() === undefined) this.#ask();
      };
      this.#socket.onmessage = (event) => {
        if (!this.#takeAnswer(event.data)) this.onmessage?.(event);
        if (this.#mayAsk && JSON.parse(event.data).type === 'ok') this.#ask();
      };
      this.#socket.onclose = (event) => {
        if (this.#opened) this.onclose?.(event);
        else this.#refused(event);
      };
    }

    async #refused({ code }) {
      const why = await askWhy(httpBase);
      // Not all pages at the same moment.
      if (why.waitMs) notBefore = performance.now() + why.waitMs * (1 + Math.random() / 2);
      this.onclose?.({ code, reason: why.reason });
    }

    #ask() {
      this.#mayAsk = false;
      const topic = question();
      if (topic === undefined) return;
      this.#asked = true;
      this.send(JSON.stringify({ type: 'history', id: QUESTION_ID, topic, limit: 1, reverse: true }));
    }

    /** Whether this is the answer to our question, which is none of the client's business. */
    #takeAnswer(text) {
      if (!this.#asked || !text.includes(`"id":"${QUESTION_ID}"`)) return false;
      const answer = JSON.parse(text);
      if (answer.id !== QUESTION_ID) return false; // a message that quotes it
      this.#asked = false;
      answered(answer);
      return true;
    }
  }

  return { Link, waitMs };
}
