// Chat: rooms whose messages the broker keeps for a while, who is here, and typing hints, which it never keeps.
//
// demos/chat/ROOM carries { name, text, member }; the broker stamps the time. $presence/demos/chat/ROOM says who is here.
// demos/chat/ROOM/typing carries { name, member }.

import { by, complain, element, explain, ignore, join, makeCable, text } from './demo.js';

const NAME_MAX = 30, TEXT_MAX = 1000, ROOM_MAX = 30; // characters
const EARLIER = 50; // messages that a newcomer is shown
const SHOWN_MAX = 300; // messages and notices in the document
const HERE_MAX = 50; // names
const TYPING_MS = 3000, HINT_EVERY_MS = 1500; // how long a hint holds, and how often one is sent
const BACK_MS = 1000; // what comes so soon after the connection is back was missed

const cable = makeCable();
const bus = join('chat', { session: true, WebSocket: cable.WebSocket });
let room = { subscriptions: [] };
const typing = new Map(); // member -> [name, until when]
let hintedAt = 0, waiting = 0;
let lostAt; // when the connection was lost, or undefined
let back; // the notice that counts what was missed: { node, until, seconds, count }

const myName = () => text(by('name').value, NAME_MAX) ?? 'Guest';

function roomOfAddress() {
  const name = new URLSearchParams(`room=${location.hash.slice(1).replaceAll('+', '%2B')}`).get('room'); // takes what is not encoded, too
  return text(name.replace(/[\p{Cc}/+#]/gu, ''), ROOM_MAX) ?? 'lobby';
}

/** Leaves the room, reads the newest messages of the one in the address, and enters it. */
function enterRoom() {
  for (const subscription of room.subscriptions) subscription.close(); // closing the room's own also leaves it
  const name = roomOfAddress();
  const topic = `demos/chat/${name}`;
  by('room').textContent = document.title = name;
  for (const link of document.querySelectorAll('#rooms a')) link.ariaCurrent = link.textContent === name ? 'page' : null;
  by('log').replaceChildren();
  by('here').replaceChildren();
  typing.clear();
  back = undefined;

  const messages = bus.subscribe(topic, { last: EARLIER });
  messages.onmessage = (message) => (isChat(message.data) ? showMessage(message) : ignore());
  messages.ongap = showGap;
  const members = bus.subscribe(`$presence/${topic}`);
  members.onstate = showMembers;
  const hints = bus.subscribe(`${topic}/typing`);
  hints.onmessage = ({ data }) => (text(data?.name, NAME_MAX) && text(data.member, 64) ? showHint(data) : ignore());
  room = { topic, subscriptions: [messages, members, hints] };
  bus.enter(topic, { name: myName() }).catch(() => {}); // the bus reports it as well
}

const isChat = (data) => text(data?.name, NAME_MAX) && text(data?.text, TEXT_MAX);

function append(node) {
  const log = by('log');
  const isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
  log.append(node);
  while (log.childElementCount > SHOWN_MAX) log.firstElementChild.remove();
  if (isAtEnd) log.scrollTop = log.scrollHeight;
  return node;
}

function showMessage({ data, time }) {
  if (data.member !== bus.member) tellBack(() => `: ${back.count += 1} missed, recovered.`);
  typing.delete(data.member);
  const at = Number.isFinite(time) ? new Date(time).toLocaleTimeString() : '';
  append(element('p', { className: data.member === bus.member ? 'own' : '' },
    element('strong', { textContent: text(data.name, NAME_MAX) }),
    element('span', { className: 'text', textContent: text(data.text, TEXT_MAX) }),
    element('time', { textContent: at })));
}

const notice = (sentence) => append(element('p', { className: 'notice', textContent: sentence }));

/** Completes the notice of this moment's return. */
function tellBack(outcome) {
  if (back && performance.now() < back.until) back.node.textContent = `Back after ${back.seconds} s${outcome()}`;
}

function showGap({ from, to, reason }) {
  tellBack(() => '.');
  if (reason === 'epoch') notice('The room began anew: the broker was restarted, and it keeps rooms in memory.');
  else notice(from <= to ? `Messages ${from} to ${to} are missing: ${reason}.` : `Messages may be missing: ${reason}.`);
}

function showMembers(members) {
  const names = [...members].slice(0, HERE_MAX).map(([member, { data }]) => {
    const name = text(data?.info?.name, NAME_MAX) ?? 'somebody';
    return element('li', { textContent: member === bus.member ? `${name} (you)` : name });
  });
  by('here').replaceChildren(...names);
  by('here-count').textContent = members.size;
}

function showHint({ name, member }) {
  if (member !== bus.member && typing.size < HERE_MAX) typing.set(member, [text(name, NAME_MAX), performance.now() + TYPING_MS]);
}

setInterval(() => {
  for (const [member, [, until]] of typing) if (until < performance.now()) typing.delete(member);
  const names = [...typing.values()].map(([name]) => name);
  by('typing').textContent = names.length ? `${names.slice(0, 3).join(', ')} ${names.length > 1 ? 'are' : 'is'} typing…` : '';
}, 200);

bus.on('state', ({ state }) => {
  if (state === 'connecting') lostAt ??= performance.now();
  if (state !== 'open' || lostAt === undefined) return;
  const seconds = Math.round((performance.now() - lostAt) / 1000);
  back = { node: notice(`Back after ${seconds} s: nothing missed.`), until: performance.now() + BACK_MS, seconds, count: 0 };
  lostAt = undefined;
});

by('compose').addEventListener('submit', async (event) => {
  event.preventDefault();
  const said = text(by('message').value, TEXT_MAX);
  if (!said) return;
  by('message').value = '';
  hintedAt = 0;
  const sent = bus.publish(room.topic, { name: myName(), text: said, member: bus.member });
  waiting += 1; // without a connection it is sent when that is back
  by('waiting').textContent = bus.state === 'open' ? '' : `${waiting} of yours will be sent when the network is back.`;
  await sent.catch((error) => complain(`Not sent: ${explain(error)}`));
  waiting -= 1;
  if (!waiting) by('waiting').textContent = '';
});

by('message').addEventListener('input', () => {
  if (bus.state !== 'open' || !by('message').value || performance.now() - hintedAt < HINT_EVERY_MS) return;
  hintedAt = performance.now();
  bus.publish(`${room.topic}/typing`, { name: myName(), member: bus.member }).catch(() => {}); // a lost hint is no loss
});

by('name').value = sessionStorage.getItem('name') ?? `Guest ${Math.floor(1000 * Math.random())}`;
by('name').addEventListener('change', () => {
  sessionStorage.setItem('name', myName());
  bus.update(room.topic, { name: myName() }).catch(() => {});
});

by('cable').addEventListener('click', () => {
  cable.isIn = !cable.isIn;
  by('cable').textContent = cable.isIn ? 'Pull the cable' : 'Plug it in again';
});

by('goto').addEventListener('submit', (event) => {
  event.preventDefault();
  location.hash = encodeURIComponent(by('other').value.trim());
});
addEventListener('hashchange', enterRoom);
enterRoom();
