// The customer's page: the list of servers, and what happens to them.
import { get } from './api.js';
import { define } from './element.js';
import { fill, h, later, say } from './dom.js';
import { ago, at, keepTrue, money, plural, resources } from './format.js';
import { Live } from './live.js';
import { reasons, stateOf, statuses } from './words.js';

const pageSize = 50; // of the first page; those after it are larger
const byId = (id) => document.getElementById(id);
const list = byId('list');
const form = byId('filters');
const sync = byId('sync');

/**
 * What is shown: by id, each server as it was read last and its element; where
 * the next page begins; when the newest was found; and the request under way.
 */
const shown = { items: new Map(), next: null, newest: '', request: null };

// --- one server ---

/** why says how a server is billed, for its customer. */
function why(server) {
	switch (server.status) {
		case 'settling':
			return ['Not billed yet', `Found ${server.settleUntil ? `a moment ago; until ${at(server.settleUntil)}` : 'a moment ago;'} it is looked up whether you ordered it in the billing panel. Nothing is charged before that.`];
		case 'conflict':
			return ['Being checked', 'The records disagree about this server. Your provider has been told; how it is billed stays as it is until that is settled.'];
		case 'gone':
			return ['Billing ended', server.goneAt ? ['The server was deleted ', ago(server.goneAt), '.'] : 'The server was deleted.'];
		case 'unlinked':
			return ['Not billed', statuses.unlinked.hint];
	}
	if (server.billing === 'on') {
		return ['Billed by the hour', server.status === 'external' ? 'Created directly in VirtFusion, and billed since it was found.' : 'Ordered in the billing panel.'];
	}
	return ['Not billed', reasons[server.billingReason]?.[1] ?? 'Ask support why, if you did not expect that.'];
}

function price(server) {
	if (server.billing !== 'on' || server.status === 'settling') return [h('span', { class: 'soft' }, server.status === 'gone' ? '–' : 'nothing')];
	const parts = [h('strong', {}, money(server.effectiveMonthly ?? server.monthlyPrice))];
	if (server.effectiveMonthly && Number(server.effectiveMonthly) !== Number(server.monthlyPrice)) {
		parts.push(h('div', { class: 'soft small' }, `list ${money(server.monthlyPrice)}`));
	}
	return parts;
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

/** show puts a server where it is already, or at an end of the list. */
function show(server, { first = false } = {}) {
	const old = shown.items.get(server.id);
	const text = JSON.stringify(server);
	if (old?.text === text) return;
	const element = row(server);
	if (old || first) element.classList.add('changed');
	if (old) old.element.replaceWith(element);
	else if (first) list.prepend(element);
	else list.append(element);
	shown.items.set(server.id, { text, element });
	if (server.firstSeenAt > shown.newest) shown.newest = server.firstSeenAt;
}

function drop(id) {
	shown.items.get(id)?.element.remove();
	shown.items.delete(id);
}

function recount() {
	const filtered = Object.keys(filters()).some((name) => name !== 'sort');
	const n = shown.items.size;
	say(byId('count'), `${shown.next ? `The first ${n}` : plural(n, 'server')}${filtered ? (n === 1 ? ' matches' : ' match') : ''}`);
	byId('more').hidden = shown.next === null;
	const empty = byId('empty');
	empty.hidden = n > 0;
	if (n === 0) {
		fill(empty, filtered
			? [h('p', {}, 'No server matches.'), h('button', { type: 'button', onclick: clearFilters }, 'Show all')]
			: [h('p', {}, h('strong', {}, 'No servers yet.')), h('p', {}, 'If you have one, press “Sync servers” to look for it in VirtFusion now.')]);
	}
}

function clearFilters() {
	form.reset();
	for (const element of form.elements) if ('value' in element && element.name) element.value = '';
	restart();
	form.elements.q.focus();
}

/** load reads a page: the first one, or the one after those that are shown. */
async function load(first) {
	shown.request?.abort();
	const request = new AbortController();
	shown.request = request;
	list.setAttribute('aria-busy', 'true');
	byId('more').disabled = true;
	try {
		const page = await get('api/user/servers', { ...filters(), limit: first ? pageSize : 2 * pageSize, cursor: first ? null : shown.next }, request.signal);
		if (first) {
			shown.items.clear();
			shown.newest = '';
			list.replaceChildren();
		}
		for (const server of page.items) show(server);
		shown.next = page.nextCursor;
		trouble(null);
		recount();
	} catch (error) {
		if (error.name !== 'AbortError') trouble(error, () => load(first));
	} finally {
		if (shown.request === request) {
			shown.request = null;
			list.removeAttribute('aria-busy');
			byId('more').disabled = false;
			atEnd.unobserve(byId('more')); // looks anew: the end may still be in sight
			atEnd.observe(byId('more'));
		}
	}
}

// The next page is there before its reader is.
const atEnd = new IntersectionObserver((seen) => {
	if (seen.some((s) => s.isIntersecting) && shown.next !== null && shown.request === null) load(false);
}, { rootMargin: '600px' });

function restart() {
	const address = new URL(location.href);
	address.search = new URLSearchParams(filters());
	history.replaceState(null, '', address);
	const { q } = filters();
	if (q && q.length < 2) return say(byId('count'), 'Type one more letter to search.');
	return load(true);
}

// --- what happens ---

const changed = new Set();

// However many change at once, they are read in one request a moment later.
const refresh = later(400, async () => {
	const ids = [...changed].slice(0, 200);
	for (const id of ids) changed.delete(id);
	if (ids.length === 0) return;
	try {
		const page = await get('api/user/servers', { ...filters(), id: ids.join(','), limit: 200 });
		const found = new Map(page.items.map((server) => [server.id, server]));
		for (const id of ids) {
			const server = found.get(id);
			if (!server) drop(id);
			else if (shown.items.has(id) || shown.next === null || server.firstSeenAt > shown.newest) show(server, { first: true });
			// else it is on a page that was not asked for yet
		}
		recount();
		standing();
	} catch (error) {
		if (error.passing) ids.forEach((id) => changed.add(id)); // the next connection reads them
	}
	if (changed.size > 0) refresh();
});

/** catchUp reads everything that is shown again, and what is new. */
async function catchUp() {
	standing();
	if (shown.items.size === 0) return load(true);
	try {
		const page = await get('api/user/servers', { ...filters(), limit: pageSize });
		for (const id of [...shown.items.keys(), ...page.items.map((server) => server.id)]) changed.add(id);
		refresh();
	} catch { /* it is tried again with the next connection */ }
}

async function standing() {
	try {
		const s = await get('api/user/servers/sync/status');
		const off = s.totalServers - s.syncedServers;
		fill(byId('standing'), plural(s.totalServers, 'server'), s.externalServers ? `, ${s.externalServers} of them external` : '',
			off > 0 ? `; ${off} not settled yet` : s.totalServers > 0 ? '; all in step with billing' : '', '. Last compared with VirtFusion: ', ago(s.lastSync), '.');
	} catch { /* the list says what is wrong */ }
}

function watch() {
	const live = new Live('api/user/servers/sync/live');
	let before = false;
	live.addEventListener('state', ({ detail }) => {
		say(byId('live'), { open: 'Live', connecting: before ? 'Reconnecting …' : '', waiting: 'Reconnecting …' }[detail] ?? '');
		byId('live').className = detail === 'open' ? 'dot good' : detail === 'waiting' ? 'dot warn' : '';
		if (detail === 'open') {
			catchUp(); // what happened before it was
			before = true;
		}
		if (detail === 'refused') load(true); // which says how to sign in
	});
	live.addEventListener('message', ({ detail }) => {
		if (detail.type === 'server') {
			changed.add(detail.server.id);
			refresh();
		}
		if (detail.type === 'run_ended') standing();
	});
	live.open();
}

// --- who, and what is wrong ---

/** trouble says what is wrong, and what to do; null: nothing is. */
function trouble(error, again) {
	const place = byId('trouble');
	place.hidden = error === null;
	byId('content').hidden = error?.signedOut ?? false;
	sync.hidden = error?.signedOut ?? false;
	if (error === null) return fill(place);
	if (error.signedOut) return fill(place, signIn());
	return fill(place, h('div', { class: 'notice bad', role: 'alert' },
		h('p', {}, h('strong', {}, 'Your servers cannot be shown. '), error.message),
		h('div', { class: 'row middle' }, h('button', { type: 'button', onclick: again }, 'Try again'),
			error.requestId ? h('span', { class: 'small soft' }, `For support: request ${error.requestId}`) : null)));
}

function signIn() {
	return h('section', { class: 'card signin stack' },
		h('h2', {}, 'Sign in to see your servers'),
		h('p', {}, 'Sign in to your hosting panel in this browser, then come back here: this page knows you by that.'),
		h('p', {}, h('button', { type: 'button', class: 'first', onclick: () => location.reload() }, 'I am signed in now')),
		h('details', {}, h('summary', {}, 'For operators'),
			h('p', { class: 'small soft' }, 'This page takes SkyPANEL’s session cookie. It needs SESSION_SECRET to be SkyPANEL’s own, and both to be reached under one host name. A demo prints links to sign in with.')));
}

async function greet() {
	try {
		const me = await get('api/user/me');
		byId('who').textContent = me.name;
		byId('pages').hidden = !me.admin;
		watch();
	} catch (error) { // the list says what is wrong
		if (error.passing) watch(); // which tries again
	}
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
	byId('more').addEventListener('click', () => load(false));
	sync.addEventListener('serversync:ended', catchUp);
	define();
	keepTrue(document);
	load(true);
	greet();
	if (query.has('sync')) { // pressed before this was loaded
		query.delete('sync');
		history.replaceState(null, '', query.size > 0 ? `?${query}` : location.pathname);
		sync.open();
	}
}

start();
