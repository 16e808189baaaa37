// A line plot on a canvas: what came in the last two minutes at most; the lines of a plot have one scale.

const SPAN_MS = 120_000;
const SPAN_MIN_MS = 15_000; // a plot that has just begun is not a dot at the edge
const POINTS_MAX = 600; // of one line

/** What a custom property of the style sheet says at this element. */
const style = (node, name) => getComputedStyle(node).getPropertyValue(name).trim();

export class Plot {
  #canvas;
  #lines;
  #labelled;

  /** `colors` are names of custom properties, one for each line. With `labelled`, the scale is written beside it. */
  constructor(canvas, colors, labelled = false) {
    this.#canvas = canvas;
    this.#lines = colors.map((color) => ({ color, points: [] }));
    this.#labelled = labelled;
  }

  /** Adds a value to a line. `at` is in ms, of any clock that `draw` is called with too. */
  add(line, at, value) {
    const { points } = this.#lines[line];
    points.push([at, value]);
    while (points.length > POINTS_MAX || points[0][0] < at - SPAN_MS) points.shift();
  }

  draw(now) {
    const canvas = this.#canvas;
    const scale = devicePixelRatio;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(height * scale);
    }
    const pen = canvas.getContext('2d');
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    const values = this.#lines.flatMap(({ points }) => points.map(([, value]) => value));
    if (!values.length) return;
    const [low, high] = this.#range(values);
    const left = this.#labelled ? 40 : 2;
    const oldest = Math.min(...this.#lines.map(({ points }) => points[0]?.[0] ?? now));
    const span = Math.min(SPAN_MS, Math.max(SPAN_MIN_MS, now - oldest));
    const x = (at) => left + (width - left - 3) * (1 - (now - at) / span);
    const y = (value) => height - 8 - (height - 16) * (value - low) / (high - low);
    if (this.#labelled) this.#grid(pen, low, high, y, width);
    pen.lineWidth = 1.75;
    pen.lineJoin = pen.lineCap = 'round';
    for (const { color, points } of this.#lines) this.#line(pen, style(canvas, color), points, x, y, left);
  }

  #range(values) {
    const low = Math.min(...values), high = Math.max(...values);
    const least = Math.max(1e-9, Math.abs(high) * 0.02); // noise of a constant value is no mountain range
    const middle = (low + high) / 2, half = Math.max(high - low, least) * 0.55;
    return [middle - half, middle + half];
  }

  #grid(pen, low, high, y, width) {
    pen.strokeStyle = style(this.#canvas, '--line');
    pen.fillStyle = style(this.#canvas, '--faint');
    pen.font = '12px system-ui, sans-serif';
    pen.textBaseline = 'middle';
    pen.lineWidth = 1;
    const power = 10 ** Math.floor(Math.log10((high - low) / 3));
    const step = power * [5, 2, 1].find((factor) => factor * power <= (high - low) / 3);
    for (let count = Math.ceil(low / step); count * step <= high; count += 1) {
      const value = count * step;
      pen.fillText(value.toPrecision(3).replace(/\.0+$/, ''), 2, y(value));
      pen.beginPath();
      pen.moveTo(40, y(value));
      pen.lineTo(width, y(value));
      pen.stroke();
    }
  }

  #line(pen, color, points, x, y, left) {
    pen.strokeStyle = pen.fillStyle = color;
    pen.beginPath();
    for (const [at, value] of points) if (x(at) >= left) pen.lineTo(x(at), y(value));
    pen.stroke();
    const [at, value] = points.at(-1) ?? [];
    if (!(x(at) >= left)) return;
    pen.beginPath();
    pen.arc(x(at), y(value), 2.5, 0, 2 * Math.PI);
    pen.fill();
  }
}
