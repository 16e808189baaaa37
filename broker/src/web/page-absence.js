// What the page tells after it was without a connection: how many messages it missed and got, or which ones are missing.
// Sentences only; page.js shows them.

const seconds = (ms) => `${(ms / 1000).toFixed(1)} s`;

function messages(from, to) {
  return from === to ? `message ${from} is` : `messages ${from} to ${to} are`;
}

/** What a gap that the client tells of means. `position` is where the page was before, `EPOCH:OFFSET`. */
export function gapSentence({ topic, from, to, reason, available }, position, awayMs) {
  const back = awayMs === undefined ? '' : `Back after ${seconds(awayMs)}: `;
  switch (reason) {
    case 'unrecovered': {
      const left = available ? ` It still has ${available.from} to ${available.to}.` : '';
      return `${back}${messages(from, to)} missing (recovered: false). The broker does not remember all of them any more.${left}`;
    }
    case 'epoch': {
      const before = position?.split(':')[1] ?? 0;
      const here = to < from ? 'none of its messages is missing' : `its ${messages(from, to)} missing`;
      return `${back}the topic began anew, as it does when the broker was restarted; ${here}. `
        + `What came before that, after message ${before}, is not known (recovered: false).`;
    }
    case 'reconnect':
      return `${back}the broker cannot tell what was missed here. The present values were read again.`;
    case 'purged':
      return 'An operator deleted the messages of this topic.';
    default:
      return `On ${topic} ${messages(from, to)} missing: ${reason}.`;
  }
}

/** The time without a connection, and what came afterwards, until it is clear what was missed. */
export class Absence {
  #position;
  #begunAt = performance.now();
  #backAt;
  #newest; // the position of the topic's newest message when the connection was back
  #offsets = []; // of what came since

  /** `position` is the last message that the page has, `EPOCH:OFFSET`, or undefined for a filter. */
  constructor(position) {
    this.#position = position;
  }

  get position() {
    return this.#position;
  }

  get ms() {
    return (this.#backAt ?? performance.now()) - this.#begunAt;
  }

  back() {
    this.#backAt = performance.now();
    this.#newest = undefined;
  }

  came(offset) {
    this.#offsets.push(offset);
  }

  /** The answer to `history`: the topic's epoch and the offset of its newest message. */
  newestIs({ epoch, offset }) {
    this.#newest = { epoch, offset };
  }

  /** What was missed and came after all, once all of it is here. `now` is the page's position. */
  sentence(now, keyed) {
    const [epoch, offset] = now?.split(':') ?? [];
    const newest = this.#newest;
    if (!newest || epoch !== newest.epoch || Number(offset) < newest.offset) return '';
    const count = this.#offsets.filter((each) => each <= newest.offset).length;
    if (count === 0) return `Back after ${seconds(this.ms)}: nothing was missed.`;
    const what = keyed ? ['key', 'keys', 'changed'] : ['message', 'messages', 'missed'];
    return `${count} ${count === 1 ? what[0] : what[1]} ${what[2]} while away for ${seconds(this.ms)}, recovered.`;
  }
}
