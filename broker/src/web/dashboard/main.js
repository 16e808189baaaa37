// The dashboard: which of its parts is shown.

import { by } from './link.js';
import { draw } from './overview.js';
import * as topics from './topics.js';
import './connections.js';
import * as causes from './causes.js';

const PARTS = ['overview', 'topics', 'connections', 'security', 'ends'];

function show() {
  const wanted = PARTS.includes(location.hash.slice(1)) ? location.hash.slice(1) : 'overview';
  for (const part of PARTS) by(part).hidden = part !== wanted;
  for (const link of document.querySelectorAll('nav a')) {
    if (link.hash === `#${wanted}`) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  draw();
  topics.show();
  causes.show();
}

addEventListener('hashchange', show);
show();
