// The customer's page: the list of servers, and what happens to them.
import { get } from './api.js';
import { define } from './element.js';
import { fill, h, later, liveBadge, say, soon } from './dom.js';
import { ago, at, keepTrue, money, plural, resources } from './format.js';
import { pagedList } from './list.js';
import { Live } from './live.js';
import { reasons, stateOf, statuses } from './words.js';

const byId = (id) => document.getElementById(id);
const form = byId('filters');
const sync = byId('sync');

// --- one server ---

/** why says how a server is billed, for its customer. */
function why(server) {
	switch (server.status) {
		case 'settling':
			return ['Not billed yet', `Found a moment ago. Until ${server.settleUntil ? at(server.settleUntil) : 'it is clear'}, it is looked up whether it was ordered in the billing panel.`];
		case 'conflict':
			return ['Being checked', 'The records disagree about this server. Your provider has been told; how it is billed stays as it is until that is settled.'];
		case 'gone':
			return ['Billing ended', server.goneAt ? ['The server was deleted ', ago(server.goneAt), '.'] : 'The server was deleted.'];
		case 'unlinked':
			return ['Not billed', statuses.unlinked.hint];
	}
	if (server.billing === 'on') {
		return ['Billed by the hour', server.status === 'external' ? 'Created directly in VirtFusion, outside the billing panel.' : 'Ordered in the billing panel.'];
	}
	return ['Not billed', reasons[server.billingReason]?.[1] ?? 'Ask support why, if you did not expect that.'];
}

/** unpriced says in the place of a price why there is none. */
const unpriced = { monthly_mode: 'by the month', self_service: 'by VirtFusion' };

function price(server) {
	const soft = (text) => h('span', { class: 'soft' }, text);
	if (server.status === 'gone') return soft('–');
	if (server.status === 'settling' || server.status === 'conflict') return soft('not known yet');
	if (server.billing !== 'on') return soft(unpriced[server.billingReason] ?? 'nothing');
	const [charged, list] = [server.effectiveMonthly ?? server.monthlyPrice, server.monthlyPrice];
	if (list === null || Number(charged) === Number(list)) return h('strong', {}, money(charged));
	return [h('strong', {}, money(charged)), h('div', { class: 'soft small' }, `list price ${money(list)}${Number(charged) === 0 ? '; an hour of it rounds to nothing' : ''}`)];
}

const manyAddresses = 3;

function addresses(server) {
	const all = server.ipAddresses ?? [];
	if (all.length === 0) return h('span', { class: 'soft' }, 'none yet');
	const line = (address) => h('div', { class: 'mono' }, address);
	if (all.length <= manyAddresses) return all.map(line);
	return [all.slice(0, manyAddresses - 1).map(line),
		h('details', {}, h('summary', { class: 'small' }, `${all.length - manyAddresses + 1} more`), all.slice(manyAddresses - 1).map(line))];
}

const fact = (name, kind, ...content) => h('div', { class: `fact ${kind}` }, h('dt', {}, name), h('dd', {}, content));

function row(server) {
	const state = stateOf(server);
	const status = statuses[server.status] ?? { label: server.status, hint: '' };
	const [billing, because] = why(server);
	const sub = [server.hostname && server.hostname !== server.name ? server.hostname : null, `id\u00a0${server.id}`].filter(Boolean).join(' · ');
	return h('li', { class: `server ${server.status}`, 'data-id': server.id },
		h('div', { class: 'server-name' },
			h('h2', {}, server.name || `Server ${server.id}`),
			h('p', { class: 'small soft' }, sub),
			h('span', { class: `badge ${server.status}`, title: status.hint }, status.label)),
		h('dl', {},
			fact('Status', 'state', h('span', { class: `dot ${state.tone}` }, state.label)),
			fact('Addresses', 'addresses', addresses(server)),
			fact('Resources', 'resources', resources(server.resources)),
			fact('Billing', 'billing', h('strong', { class: server.billing === 'on' ? 'dot good' : 'dot' }, billing), h('p', { class: 'small soft' }, because)),
			fact('A month', 'price', price(server))));
}

// --- the list ---

const filters = () => Object.fromEntries([...new FormData(form)].map(([name, value]) => [name, value.trim()]).filter(([, value]) => value !== ''));

const list = pagedList({
	body: byId('list'), more: byId('more'), auto: '600px', query: filters, item: row, trouble,
	text: (server) => JSON.stringify({ ...server, lastSeenAt: null }), // which every look at it changes
	async read({ query, cursor, again, signal }) {
		const page = await get('api/user/servers', { ...query, limit: again ? 200 : cursor ? 100 : 50, cursor }, signal);
		return { items: page.items, next: page.nextCursor };
	},
	some: async ({ query, keys, signal }) => (await get('api/user/servers', { ...query, id: keys.join(','), limit: 200 }, signal)).items,
	busy(yes) {
		if (yes) byId('list').setAttribute('aria-busy', 'true');
		else byId('list').removeAttribute('aria-busy');
	},
	changed({ size: n, more, query }) {
		const filtered = Object.keys(query).some((name) => name !== 'sort');
		say(byId('count'), `${more ? `The first ${n}` : plural(n, 'server')}${filtered ? (n === 1 ? ' matches' : ' match') : ''}`);
		byId('servers').classList.toggle('many', n > 100);
		const empty = byId('empty');
		empty.hidden = n > 0;
		const why = filtered ? 'filtered' : 'none';
		if (n > 0 || empty.dataset.why === why) return; // a button that is being pressed stays where it is
		empty.dataset.why = why;
		fill(empty, filtered
			? [h('p', {}, 'No server matches.'), h('button', { type: 'button', onclick: clearFilters }, 'Show all')]
			: [h('p', {}, h('strong', {}, 'No servers yet.')), h('p', {}, 'If you have one, press “Sync servers” to look for it in VirtFusion now.')]);
	},
});

function clearFilters() {
	form.reset();
	for (const element of form.elements) if ('value' in element && element.name) element.value = '';
	restart();
	form.elements.q.focus();
}

function restart() {
	const address = new URL(location.href);
	address.search = new URLSearchParams(filters());
	history.replaceState(null, '', address);
	const { q } = filters();
	if (q && q.length < 2) return say(byId('count'), 'Type one more letter to search.');
	return list.load();
}

// --- what happens ---

async function standing() {
	try {
		const s = await get('api/user/servers/sync/status');
		const off = s.totalServers - s.syncedServers;
		fill(byId('standing'), plural(s.totalServers, 'server'), s.externalServers ? `, ${s.externalServers} of them external` : '',
			off > 0 ? `; ${off} not settled yet` : s.totalServers > 0 ? '; all in step with billing' : '', '. Last compared with VirtFusion: ', ago(s.lastSync), '.');
	} catch { /* the list says what is wrong */ }
}

const standingSoon = soon(1000, standing);

function catchUp() {
	standing();
	list.renew();
}

function watch() {
	const live = new Live('api/user/servers/sync/live');
	liveBadge(live, byId('live'));
	live.addEventListener('state', ({ detail }) => {
		if (detail === 'open') {
			catchUp(); // what happened before it was
			if (me === null) greet();
			else check();
		}
		if (detail === 'refused') list.load(); // which says how to sign in
	});
	live.addEventListener('message', ({ detail }) => {
		if (detail.type === 'server') list.changed(detail.server.id);
		if (detail.type === 'server' || detail.type === 'run_ended') standingSoon();
	});
	live.open();
}

// --- who, and what is wrong ---

/** trouble says what is wrong, and what to do; null: nothing is. */
function trouble(error, again) {
	const place = byId('trouble');
	const signedOut = error?.signedOut ?? false;
	place.hidden = error === null;
	byId('content').hidden = signedOut;
	sync.hidden = signedOut;
	if (error === null) return fill(place);
	if (list.keys().length === 0) byId('empty').hidden = true; // nobody knows
	if (signedOut) return forget(place);
	return fill(place, h('div', { class: 'notice bad', role: 'alert' },
		h('p', {}, h('strong', {}, 'Your servers cannot be shown. '), error.message),
		h('div', { class: 'row middle' }, h('button', { type: 'button', onclick: again }, 'Try again'),
			error.requestId ? h('span', { class: 'small soft' }, `For support: request ${error.requestId}`) : null)));
}

/** forget leaves nothing of whoever was signed in. */
function forget(place) {
	sync.close?.();
	byId('list').replaceChildren();
	for (const id of ['standing', 'who', 'count']) byId(id).textContent = '';
	fill(place, signIn());
	place.querySelector('h2').focus();
}

/** check sees whether somebody else has signed in since, in another tab: what is here is not theirs. */
async function check() {
	if (me === null) return;
	try {
		if ((await get('api/user/me')).id !== me.id) location.reload();
	} catch (error) {
		if (error.signedOut) trouble(error);
	}
}

function signIn() {
	return h('section', { class: 'card signin stack' },
		h('h2', { tabIndex: -1 }, 'Sign in to see your servers'),
		h('p', {}, 'Sign in to your hosting panel in this browser, then come back here: this page knows you by that.'),
		h('p', {}, h('button', { type: 'button', class: 'first', onclick: () => location.reload() }, 'I am signed in now')),
		h('details', {}, h('summary', {}, 'For operators'),
			h('p', { class: 'small soft' }, 'This page takes SkyPANEL’s session cookie. It needs SESSION_SECRET to be SkyPANEL’s own, and both to be reached under one host name. A demo prints links to sign in with.')));
}

let me = null; // who looks, once that is known

async function greet() {
	try {
		me = await get('api/user/me');
		byId('who').textContent = me.name;
		byId('pages').hidden = !me.admin;
	} catch (error) {
		return !error.signedOut; // the list says what is wrong
	}
	return true;
}

// --- start ---

function start() {
	const query = new URLSearchParams(location.search);
	for (const [name, value] of query) {
		if (name !== 'sync' && form.elements[name]) form.elements[name].value = value;
	}
	byId('apply').hidden = true; // from here on, a change is enough
	form.addEventListener('submit', (event) => { event.preventDefault(); restart(); });
	form.addEventListener('change', restart);
	form.elements.q.addEventListener('input', later(250, restart));
	sync.addEventListener('serversync:ended', () => { check(); catchUp(); });
	document.addEventListener('visibilitychange', () => { if (document.visibilityState === 'visible') check(); });
	globalThis.addEventListener('focus', check);
	define();
	keepTrue(document);
	if (filters().q?.length === 1) form.elements.q.value = ''; // too little to search for
	list.load();
	greet().then((may) => { if (may) watch(); }); // which asks again who looks
	if (query.has('sync')) { // pressed before this was loaded
		query.delete('sync');
		history.replaceState(null, '', query.size > 0 ? `?${query}` : location.pathname);
		sync.open();
	}
}

start();
