// All servers: filters that are kept in the address, and what to do with many.
import { get, url } from './api.js';
import { h, later, say } from './dom.js';
import { plural, sentence } from './format.js';
import { reasons, statuses } from './words.js';
import { billing, link, monthly, pages, serverLink, statusBadge, table, to, userLink } from './admin-parts.js';
import { bulk } from './admin-bulk.js';

const sorts = { '': 'Newest found first', first_seen: 'Oldest found first', '-created': 'Newest created first', created: 'Oldest created first', name: 'By name', id: 'By id', status: 'By status', user: 'By user', '-updated': 'Last changed first' };

/** the fields of the filter: [name, label, element]. The unusual ones are folded away. */
const input = (name, props) => h('input', { name, autocomplete: 'off', ...props });
const choice = (name, all) => h('select', { name }, Object.entries(all).map(([value, label]) => h('option', { value }, label)));
const usual = () => [
	['q', 'Search', input('q', { type: 'search', maxLength: 200, placeholder: 'Name, address, id, UUID …' })],
	['status', 'Status', choice('status', { '': 'All but deleted', ...Object.fromEntries(Object.entries(statuses).map(([k, s]) => [k, s.label])), all: 'All, deleted ones too' })],
	['billing', 'Billing', choice('billing', { '': 'All', on: 'Billed', off: 'Not billed' })],
	['reason', 'Why not billed', choice('reason', { '': 'Any reason', ...Object.fromEntries(Object.entries(reasons).map(([k, [label]]) => [k, label])) })],
	['sort', 'Order', choice('sort', sorts)],
];
const unusual = () => [
	['user', 'SkyPANEL user', input('user', { inputMode: 'numeric', placeholder: 'id' })],
	['owner', 'VirtFusion user', input('owner', { inputMode: 'numeric', placeholder: 'id; 0: unknown' })],
	['ip', 'Address or network', input('ip', { placeholder: '192.0.2.0/24' })],
	['hypervisor', 'Hypervisor', input('hypervisor', { placeholder: 'id or name' })],
	['package', 'Package', input('package', { inputMode: 'numeric', placeholder: 'id' })],
	['awaiting', 'Approval', choice('awaiting', { '': 'All', true: 'Awaiting approval', false: 'Not awaiting' })],
	['created_after', 'Created from', input('created_after', { type: 'date' })],
	['created_before', 'Created before', input('created_before', { type: 'date' })],
	['seen_before', 'Not seen since', input('seen_before', { type: 'date' })],
];

const field = ([name, label, element]) => h('label', { class: name === 'q' ? 'grow' : '' }, h('span', {}, label), element);

/** put a value into a field; one that a list does not have is added to it. */
function put(element, value) {
	if (element.tagName === 'SELECT' && ![...element.options].some((o) => o.value === value)) {
		element.append(h('option', { value }, value.split(',').map((v) => statuses[v]?.label ?? reasons[v]?.[0] ?? v).join(' or ')));
	}
	if (element.type === 'date' && !/^\d{4}-\d\d-\d\d$/.test(value)) element.type = 'text'; // a moment, not a day
	element.value = value;
}

function filterForm(query) {
	const folded = unusual();
	const form = h('form', { class: 'filters stack tight', role: 'search' },
		h('div', { class: 'row' }, usual().map(field)),
		h('details', { open: folded.some(([name]) => query.has(name)) }, h('summary', {}, 'More filters'), h('div', { class: 'row' }, folded.map(field))));
	for (const [name, value] of query) if (form.elements[name] instanceof Element) put(form.elements[name], value);
	return form;
}

/** goToUser is a small form. */
export function goToUser() {
	const id = h('input', { inputMode: 'numeric', pattern: '[0-9]+', required: true, size: 6, placeholder: 'id', 'aria-label': 'SkyPANEL id of a user' });
	return h('form', { class: 'row middle', onsubmit: (event) => { event.preventDefault(); location.hash = to(`users/${id.value}`); } }, h('label', { class: 'beside' }, h('span', {}, 'User'), id), h('button', {}, 'Go'));
}

export function servers(page) {
	const form = filterForm(page.query);
	const count = h('p', { role: 'status' });
	const file = h('a', { download: '' }, 'As CSV');
	const chosen = new Set(); // ids
	const allShown = h('input', { type: 'checkbox', onchange: () => { for (const id of list.keys()) choose(id, allShown.checked); chose(); } });
	const allMatching = h('input', { type: 'checkbox', onchange: () => chose() });
	const heads = ['Choose', ['Server', 'name'], 'Status', 'Billing', ['A month', 'number'], ['Customer', 'keep'], ['Addresses', 'addresses'], ['Note', 'note']];
	const t = table('Servers', heads, { away: true });

	const filter = () => Object.fromEntries([...new FormData(form)].map(([name, value]) => [name, value.trim()]).filter(([, value]) => value !== ''));
	const box = (id) => h('input', { type: 'checkbox', checked: chosen.has(id), 'aria-label': `Choose server ${id}`, onchange: (event) => { choose(id, event.target.checked); chose(); } });
	const item = (s) => t.row([box(s.id),
		[h('strong', {}, serverLink(s.id, s.name)), h('div', { class: 'small soft' }, `id ${s.id}`, s.packageId ? ` · package ${s.packageId}` : '')], statusBadge(s.status), billing(s), monthly(s),
		[userLink(s.userId), h('div', { class: 'small soft' }, s.owner ? `VirtFusion ${s.owner}` : 'owner unknown')], addresses(s),
		h('span', { class: 'small' }, s.awaitingRun ? ['What would change waits for approval: ', link('look and decide', `runs/${s.awaitingRun}`), '.'] : sentence(s.note))], { 'data-id': s.id });
	const list = pages({
		element: t.element, body: t.body, item, auto: '400px', query: filter, signal: page.signal,
		text: (s) => JSON.stringify({ ...s, lastSeenAt: null }), // which every look at it changes
		read: async ({ query, cursor, again, signal }) => {
			const found = await get('api/admin/servers', { ...query, limit: again ? 200 : 50, cursor }, signal);
			return { items: found.items, next: found.nextCursor };
		},
		some: async ({ query, keys, signal }) => (await get('api/admin/servers', { status: 'all', ...query, id: keys.join(','), limit: 200 }, signal)).items,
		joins: (s) => s.status !== 'gone',
		left: (element) => element.classList.add('left'), // it stays until the list is loaded anew
		empty: h('p', {}, 'No server is like that. ', link('Show all', 'servers')),
		changed: ({ size, more }) => {
			say(count, more ? `The first ${size}` : plural(size, 'server'));
			chose();
		},
	});

	function choose(id, yes) {
		if (yes) chosen.add(id);
		else chosen.delete(id);
		const own = list.element(id)?.querySelector('input');
		if (own) own.checked = yes;
	}
	const summary = h('p', { role: 'status' });
	const action = bulk({
		choose: () => {
			if (!allMatching.checked) return chosen.size > 0 ? { ids: [...chosen] } : null;
			const { sort, ...f } = filter();
			return { filter: Object.keys(f).length > 0 ? f : { status: 'settling,external,native,unlinked,conflict' } }; // an empty one is refused, for safety
		},
		done: () => list.load(),
		signal: page.signal,
	});
	const bar = h('section', { class: 'card stack bulk-bar', 'aria-label': 'Do something with the chosen servers', hidden: true }, summary, action.element);
	let before = '';
	function chose() {
		const n = list.keys().length;
		const here = list.keys().filter((id) => chosen.has(id)).length;
		allShown.checked = n > 0 && here === n;
		allShown.indeterminate = here > 0 && here < n;
		const text = allMatching.checked ? 'All servers that match the filter are chosen.' : `${plural(chosen.size, 'server is', 'servers are')} chosen.`;
		say(summary, text);
		const now = allMatching.checked ? JSON.stringify(filter()) : [...chosen].sort().join();
		if (now !== before) action.stale(); // a preview is of what was chosen then
		before = now;
		bar.hidden = !allMatching.checked && chosen.size === 0;
	}
	function again() {
		if (page.signal.aborted) return;
		const f = filter();
		page.keep(f);
		file.href = url('api/admin/servers.csv', f).href;
		if (f.q?.length < 2) return say(count, 'Type one more letter to search.');
		if (allMatching.checked) chose();
		return list.load();
	}
	form.addEventListener('submit', (event) => { event.preventDefault(); again(); });
	form.addEventListener('change', again);
	form.elements.q.addEventListener('input', later(250, again));

	page.hear = (m) => { if (m.type === 'server') list.changed(m.server.id); };
	page.refresh = list.renew;
	page.aside.append(goToUser());
	page.root.append(form, h('div', { class: 'list-head tools' }, count, h('label', { class: 'beside' }, allShown, h('span', {}, 'Choose all that are shown')), h('label', { class: 'beside' }, allMatching, h('span', {}, 'Choose all that match the filter')), file), bar, h('div', { class: 'card sheet scroll' }, list.outside));
	again();
}

function addresses({ ipAddresses: all = [] }) {
	const some = all.slice(0, 2).map((a) => h('div', { class: 'mono' }, a));
	return all.length > 2 ? [some, h('div', { class: 'small soft', title: all.slice(2).join(', ') }, `and ${all.length - 2} more`)] : some;
}
