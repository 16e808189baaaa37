// The page at `/`: one topic, or one filter, over the client that the broker serves. This file joins the parts: the form,
// the subscription, and the line that says what happened. Every address is relative to the page's own: a proxy may have
// given the broker a path of its own.

import { connect } from './ringyard.js';
import { Absence, gapSentence } from './page-absence.js';
import { watchBroker } from './page-facts.js';
import { addMessage, addNotice, clearFeed, isOwn } from './page-feed.js';
import { linkTo } from './page-link.js';
import { askAccess, currentToken, whenEntered } from './page-token.js';
import { clearValues, setValue, showValues } from './page-values.js';

const by = (id) => document.getElementById(id);
const ui = {
  state: by('state'), detail: by('detail'), outcome: by('outcome'), compose: by('compose'), topic: by('topic'),
  problem: by('topic-problem'), message: by('message'), key: by('key'), retain: by('retain'), send: by('send'),
  current: by('current'), clear: by('clear'),
};

// ---- topics and addresses

const isFilter = (topic) => /[+#]/.test(topic);
const mayPublish = (topic) => !isFilter(topic) && !topic.startsWith('$');

/** Why the broker would refuse this topic or filter, or ''. Its own rules are in protocol/src/topic.rs. */
function topicProblem(topic) {
  if (topic === '') return 'Give the topic a name.';
  if (new TextEncoder().encode(topic).length > 255) return 'A topic has at most 255 bytes.';
  if (/\p{Cc}/u.test(topic)) return 'A topic has no control characters.';
  if (topic.split('/').some((level) => isFilter(level) && level.length > 1)) return '+ and # stand for whole levels.';
  if (/#./.test(topic)) return '# stands at the end.';
  return '';
}

function pathOf(topic) {
  const level = (text) => encodeURIComponent(text).replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16)}`);
  return topic.split('/').map(level).join('/');
}

/** As JavaScript writes it. */
const quoted = (text) => `'${text.replace(/['\\]/g, '\\$&')}'`;

/** Where the broker is: the page's folder, without a slash at its end. */
const httpBase = new URL('.', document.baseURI).href.replace(/\/$/, '');
const socketBase = httpBase.replace(/^http/, 'ws');

function showTopic(topic) {
  const listens = mayPublish(topic) ? 'bus' : 'sub';
  const path = pathOf(topic);
  ui.current.textContent = topic;
  by('client').textContent = [
    `const { connect } = await import('${httpBase}/ringyard.js');`,
    `const bus = connect('${socketBase}/ws');`,
    `const messages = bus.subscribe(${quoted(topic)});`,
    'messages.onmessage = ({ data }) => console.log(data);',
    'messages.ongap = (gap) => console.log(gap);',
    ...(mayPublish(topic) ? [`await bus.publish(${quoted(topic)}, 'hello');`] : []),
  ].join('\n');
  by('curl').textContent = `curl -d 'hello' ${httpBase}/pub/${mayPublish(topic) ? path : 'demo'}`;
  by('wscat').textContent = `wscat -c ${socketBase}/${listens}/${path}`;
  by('console').textContent = [
    `const ws = new WebSocket('${socketBase}/${listens}/${path}');`,
    'ws.onmessage = (m) => console.log(m.data);',
    ...(mayPublish(topic) ? ["ws.onopen = () => ws.send('hello');"] : []),
  ].join('\n');
  by('v1').textContent = [
    `const ws = new WebSocket('${socketBase}/ws', 'ringyard.v1');`,
    'ws.onmessage = (m) => console.log(JSON.parse(m.data));',
    `const command = { type: 'subscribe', id: 1, topics: [${[topic, 'chat/+'].map(quoted).join(', ')}] };`,
    'ws.onopen = () => ws.send(JSON.stringify(command));',
  ].join('\n');
  history.replaceState(null, '', topic === 'demo' ? location.pathname : `#${encodeURIComponent(topic)}`);
  document.title = `${topic} · Ringyard`;
}

// ---- the connection

let topic = '';
let subscription;
let subscribed = false; // the broker has confirmed it
let keyed = false; // the topic remembers the newest message of each key
let away; // from the end of a connection until it is known what was missed
let waiting = 0; // own messages that the broker has not acknowledged

const { Link, waitMs } = linkTo(httpBase, () => (away?.position ? topic : undefined), newestIs);
let bus; // another one for each token that is entered

function show(state, detail = '') {
  ui.state.textContent = state;
  ui.state.dataset.state = state;
  ui.detail.textContent = detail;
}

/** Connects, with the token that was entered, if any. Nothing of the connection before is heard any more. */
function start() {
  const mine = connect(`${socketBase}/ws`, { WebSocket: Link, token: currentToken() });
  bus = mine;
  mine.on('state', (event) => mine === bus && changed(event));
  mine.on('error', ({ code, message }) => {
    if (mine !== bus) return;
    askAccess(code);
    tell(message, 'bad');
  });
}

function changed({ state, code, reason, delay }) {
  if (state === 'open') {
    away?.back();
    return show('open');
  }
  const why = reason || (code === 1006 ? 'no connection' : `code ${code}`);
  if (state === 'closed') {
    askAccess(code);
    return show('closed', why);
  }
  if (subscribed) away ??= new Absence(subscription.position);
  show('reconnecting', `${why}, again in ${(Math.max(delay, waitMs()) / 1000).toFixed(1)} s`);
}

whenEntered(() => {
  const old = bus;
  subscription = undefined;
  start();
  old.close();
  show('connecting');
  join(topic);
});

// ---- the subscription

/** One line about what happened: a heading of the list that screen readers speak. */
function tell(sentence, kind = 'good') {
  ui.outcome.textContent = sentence;
  ui.outcome.dataset.kind = kind;
}

const REMEMBERS = {
  window: 'The topic remembers its newest messages.',
  keyed: 'The topic remembers the newest message of each key.',
};

function join(next) {
  subscription?.close();
  topic = next;
  [away, keyed, subscribed] = [undefined, false, false];
  showTopic(topic);
  clearFeed();
  showValues(isFilter(topic), 'Topic');
  ui.send.disabled = !mayPublish(topic);
  ui.message.placeholder = mayPublish(topic) ? 'Say something' : 'Only listens';
  tell('Subscribing…');
  const mine = bus.subscribe(topic);
  subscription = mine;
  mine.onmessage = received;
  mine.ongap = missed;
  mine.ready.then((answer) => {
    if (mine === subscription) begun(answer);
  }, (error) => {
    if (mine !== subscription) return;
    askAccess(error.code);
    tell(`Not subscribed: ${error.message}`, 'bad');
  });
}

function begun({ position, history }) {
  subscribed = true;
  keyed = history === 'keyed';
  if (keyed) showValues(true, 'Key');
  const next = Number(position?.split(':')[1]) + 1;
  if (isFilter(topic)) tell('Subscribed. First come the present values, then what is published from now on.');
  else tell(`Subscribed. ${REMEMBERS[history] ?? 'The topic remembers nothing.'}${next > 1 ? ` ${next - 1} messages came before.` : ''}`);
}

/** `onmessage` of the subscription. What matches a filter, or has its key's place in a keyed topic, is a value as well. */
function received(message) {
  const { key, state, offset } = message;
  const where = isFilter(topic) ? [message.topic, key].filter(Boolean).join(' · ') : key;
  if (isFilter(topic) || keyed) setValue(`${message.topic}\n${key ?? ''}`, where, message);
  if (!state || !(isFilter(topic) || keyed)) addMessage(message, where);
  if (offset !== undefined && (!state || keyed)) away?.came(offset);
  tellRecovery();
}

/** `ongap` of the subscription: messages will not come. */
function missed(gap) {
  const sentence = gapSentence(gap, away?.position, away?.ms);
  if (gap.reason !== 'overflow' && gap.reason !== 'missing') clearValues();
  addNotice(sentence);
  tell(sentence, gap.reason === 'reconnect' ? 'good' : 'bad');
  away = undefined;
}

/** The answer to the question that `Link` asks when it is back: where the newest message is. */
function newestIs(answer) {
  if (!away) return;
  if (answer.code) {
    tell(`Back after ${(away.ms / 1000).toFixed(1)} s. The topic remembers nothing: if messages are missing, that is said here.`);
    away = undefined;
  } else {
    away.newestIs(answer);
    tellRecovery();
  }
}

function tellRecovery() {
  const sentence = away?.sentence(subscription.position, keyed);
  if (!sentence) return;
  tell(sentence);
  away = undefined;
}

// ---- publishing

async function send(text) {
  const [sentTo, at] = [topic, performance.now()];
  const options = { key: ui.key.value || undefined, retain: ui.retain.checked };
  waiting += 1;
  if (bus.state !== 'open') tell(`${waiting} of your messages ${waiting === 1 ? 'waits' : 'wait'} for the connection.`);
  try {
    const { offset } = await bus.publish(sentTo, text, options);
    if (sentTo === topic) isOwn(offset, at);
  } catch (error) {
    askAccess(error.code);
    tell(`Not sent: ${error.message}`, 'bad');
  } finally {
    waiting -= 1;
  }
}

// ---- controls

/** Joins the topic in the field if it is another one; says whether the field holds a valid one. */
function takeTopic() {
  const wanted = ui.topic.value.trim();
  const problem = topicProblem(wanted);
  ui.problem.textContent = problem;
  ui.topic.setAttribute('aria-invalid', String(problem !== ''));
  if (problem === '' && wanted !== topic) join(wanted);
  return problem === '';
}

ui.topic.addEventListener('change', takeTopic);
ui.topic.addEventListener('keydown', (event) => {
  if (event.key !== 'Enter') return;
  event.preventDefault();
  if (takeTopic()) ui.message.focus();
});
ui.message.addEventListener('keydown', (event) => {
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  ui.compose.requestSubmit();
});
ui.compose.addEventListener('submit', (event) => {
  event.preventDefault();
  if (!takeTopic() || !mayPublish(topic)) return;
  send(ui.message.value);
  ui.message.select();
  ui.message.focus();
});
ui.clear.addEventListener('click', clearFeed);

for (const button of document.querySelectorAll('.copy')) {
  const label = button.firstElementChild;
  button.addEventListener('click', async () => {
    const code = by(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(code.textContent);
      label.textContent = 'Copied';
    } catch {
      // Browsers lend the clipboard to secure pages only.
      getSelection().selectAllChildren(code);
      label.textContent = 'Selected';
    }
    setTimeout(() => { label.textContent = 'Copy'; }, 1500);
  });
}

// ---- start

function topicOfAddress() {
  try {
    return decodeURIComponent(location.hash.slice(1));
  } catch {
    return '';
  }
}

start();
const wanted = topicOfAddress();
ui.topic.value = topicProblem(wanted) === '' ? wanted : 'demo';
takeTopic();
addEventListener('hashchange', () => {
  ui.topic.value = topicOfAddress() || 'demo';
  takeTopic();
});
watchBroker(httpBase);
