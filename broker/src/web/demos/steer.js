// Where the player of the game is: moved by the keys, else to where the pointer was, else along a curve.

const SPEED = 0.5; // of the field, per second
const STEP_MAX_S = 0.1; // a page that was away does not leap
const KEYS = /^(Arrow(Left|Right|Up|Down)|[wasd])$/;

const clamp = (value) => Math.min(1, Math.max(0, value));

/** Follows keys and pointer on a canvas; `isAuto()` says whether the player steers by itself. Coordinates are from 0 to 1. */
export function steer(canvas, isAuto) {
  const pressed = new Set();
  let target, movedAt, turn = 2 * Math.PI * Math.random();
  const own = { x: 0.2 + 0.6 * Math.random(), y: 0.2 + 0.6 * Math.random(), move };

  canvas.addEventListener('keydown', (event) => {
    if (!KEYS.test(event.key) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault(); // the page does not scroll
    target = undefined;
    pressed.add(event.key);
  });
  addEventListener('keyup', ({ key }) => pressed.delete(key));
  canvas.addEventListener('blur', () => pressed.clear());
  for (const name of ['pointerdown', 'pointermove']) {
    canvas.addEventListener(name, ({ buttons, offsetX, offsetY }) => {
      if (buttons) target = { x: clamp(offsetX / canvas.clientWidth), y: clamp(offsetY / canvas.clientHeight) };
    });
  }

  function direction() {
    const is = (...names) => names.some((name) => pressed.has(name));
    const dx = is('ArrowRight', 'd') - is('ArrowLeft', 'a');
    const dy = is('ArrowDown', 's') - is('ArrowUp', 'w');
    if (dx || dy) return [dx, dy, Infinity];
    if (isAuto()) target = { x: 0.5 + 0.4 * Math.cos(turn), y: 0.5 + 0.4 * Math.sin(1.7 * turn) };
    if (!target) return [0, 0, 0];
    const [x, y] = [target.x - own.x, target.y - own.y];
    return [x, y, Math.hypot(x, y)];
  }

  /** Moves on; `now` is in ms. */
  function move(now) {
    const seconds = Math.min(STEP_MAX_S, (now - (movedAt ?? now)) / 1000);
    movedAt = now;
    turn += seconds;
    const [dx, dy, way] = direction();
    const length = Math.hypot(dx, dy);
    if (!length) return;
    const step = Math.min(SPEED * seconds, way) / length;
    own.x = clamp(own.x + dx * step);
    own.y = clamp(own.y + dy * step);
  }

  return own;
}
