// The overview: what `$sys/load` says, now and as plots of the last quarter of an hour.

import { by, bytes, number, row, watch } from './link.js';

const SPAN_S = 900;

/** What a custom property of the style sheet says at this element. */
const style = (node, name) => getComputedStyle(node).getPropertyValue(name).trim();

/** Lines over the last quarter of an hour, on a canvas, from 0 to the greatest value. */
class Plot {
  #canvas;
  #colors = ['--accent', '--other'];
  #points = []; // [seconds, value of each line]
  #label;

  constructor(id, label) {
    this.#canvas = by(id);
    this.#label = label;
  }

  /** Adds values; a time before the last one is that of a broker that was started anew. */
  add(at, ...values) {
    if (this.#points.length && at < this.#points.at(-1)[0]) this.#points = [];
    this.#points.push([at, ...values]);
    while (this.#points[0][0] < at - SPAN_S) this.#points.shift();
  }

  draw() {
    const last = this.#points.at(-1);
    if (!last) return;
    const canvas = this.#canvas;
    const [width, height, scale] = [canvas.clientWidth, canvas.clientHeight, devicePixelRatio];
    if (width === 0) return; // it is hidden
    [canvas.width, canvas.height] = [Math.round(width * scale), Math.round(height * scale)];
    const pen = canvas.getContext('2d');
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    const top = Math.max(1e-3, ...this.#points.flatMap(([, ...values]) => values.map((value) => value ?? 0))) * 1.08;
    const span = Math.min(SPAN_S, Math.max(30, last[0] - this.#points[0][0]));
    const x = (at) => 48 + (width - 52) * (1 - (last[0] - at) / span);
    const y = (value) => height - 8 - (height - 16) * (value / top);
    this.#grid(pen, top, y, width);
    last.slice(1).forEach((_, line) => this.#line(pen, line, x, y));
    canvas.setAttribute('aria-label', `${this.#label}: now ${last.slice(1).map((value) => number(value)).join(' and ')}`);
  }

  #grid(pen, top, y, width) {
    pen.strokeStyle = style(this.#canvas, '--line');
    pen.fillStyle = style(this.#canvas, '--faint');
    pen.font = '12px system-ui, sans-serif';
    pen.textBaseline = 'middle';
    pen.lineWidth = 1;
    const power = 10 ** Math.floor(Math.log10(top / 2));
    const step = power * ([5, 2, 1].find((factor) => factor * power <= top / 2) ?? 1);
    for (let count = 0; count * step <= top; count += 1) {
      const value = count * step;
      pen.fillText(Intl.NumberFormat('en', { notation: 'compact' }).format(value), 2, y(value));
      pen.beginPath();
      pen.moveTo(44, y(value));
      pen.lineTo(width, y(value));
      pen.stroke();
    }
  }

  #line(pen, line, x, y) {
    pen.strokeStyle = style(this.#canvas, this.#colors[line]);
    pen.lineWidth = 1.75;
    pen.lineJoin = 'round';
    pen.beginPath();
    let draws = false;
    for (const [at, ...values] of this.#points) {
      const value = values[line];
      if (typeof value === 'number') pen[draws ? 'lineTo' : 'moveTo'](x(at), y(value));
      draws = typeof value === 'number';
    }
    pen.stroke();
  }
}

const plots = {
  connections: new Plot('plot-connections', 'Connections'),
  messages: new Plot('plot-messages', 'Messages a second, in and out'),
  delivery: new Plot('plot-delivery', 'Delivery in ms, median and 99th percentile'),
  memory: new Plot('plot-memory', 'MiB held for clients and of the process'),
};

const ms = (us) => (typeof us === 'number' ? us / 1000 : undefined);
const mib = (size) => (typeof size === 'number' ? Math.round((size / 2 ** 20) * 10) / 10 : undefined);

let newest;
let due = false;

function take(load) {
  newest = load;
  const { uptime_s: at, delivery_us: delivery, memory } = load;
  plots.connections.add(at, load.connections);
  plots.messages.add(at, load.messages_in, load.messages_out);
  plots.delivery.add(at, ms(delivery?.p50), ms(delivery?.p99));
  plots.memory.add(at, mib(memory?.held), mib(memory?.resident));
  // The past comes all at once: it is drawn once.
  if (due) return;
  due = true;
  requestAnimationFrame(draw);
}

export function draw() {
  due = false;
  if (!newest) return;
  const { totals, shards } = newest;
  const figures = {
    'load-connections': newest.connections, 'load-subscriptions': newest.subscriptions, 'load-in': newest.messages_in,
    'load-out': newest.messages_out, 'load-sends': newest.sends, 'load-batch': newest.messages_per_send,
    'total-in': totals.messages_in, 'total-out': totals.messages_out,
  };
  for (const [id, value] of Object.entries(figures)) by(id).textContent = number(value);
  by('shards').replaceChildren(...shards.map((shard, at) => row(String(at), number(shard.connections), number(shard.messages_in),
    number(shard.messages_out), number(shard.sends), bytes(shard.log_bytes))));
  for (const plot of Object.values(plots)) plot.draw();
}

addEventListener('resize', draw);
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
watch('$sys/load', take, { last: 900 });
