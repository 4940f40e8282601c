// One server's story.
import { get, post } from './api.js';
import { h, soon } from './dom.js';
import { ago, money, number, plural, sentence, when } from './format.js';
import { stateOf, statuses } from './words.js';
import { area, billing, button, figures, link, pages, section, statusBadge, table, to, userLink } from './admin-parts.js';
import { bulk } from './admin-bulk.js';

const wishes = { billing_on: 'Bill it', billing_off: 'Do not bill it', package: 'Bill it as package', ignore: 'Leave it alone', undone: 'Its record was undone; make no new one' };
const happenings = {
	observed: ['Observed', ''], decided: ['Decided', ''], billing_created: ['Billing recorded', 'good'], billing_changed: ['Billing changed', 'busy'], billing_closed: ['Billing ended', 'warn'],
	billing_withdrawn: ['Record taken back', 'warn'], refund_due: ['Refund to look at', 'bad'], charge_voided: ['Charge voided', 'warn'],
};

const fact = (name, ...value) => h('div', {}, h('dt', {}, name), h('dd', {}, value));

function facts(s) {
	const state = stateOf(s);
	return h('dl', { class: 'facts' },
		fact('Billing', billing(s)), fact('Customer', userLink(s.userId)), fact('Owner in VirtFusion', s.owner ? `user ${s.owner}` : 'unknown', s.ownerExtRelationId ? `, linked to SkyPANEL’s ${s.ownerExtRelationId}` : ''),
		fact('State', h('span', { class: `dot ${state.tone}` }, state.label)),
		fact('Package', s.package ? [s.package.name ?? 'not sold by SkyPANEL', ` (id ${s.package.id}): `, s.package.monthlyPrice ? `list price ${money(s.package.monthlyPrice)} a month` : h('strong', { class: 'tone-warn' }, 'no price')] : 'unknown'),
		fact('Addresses', s.ipAddresses.length > 0 ? s.ipAddresses.map((a) => h('div', { class: 'mono' }, a)) : 'none'),
		fact('Hostname', h('span', { class: 'mono' }, s.hostname || '–')), fact('Hypervisor', s.hypervisor || (s.hypervisorId ? `id ${s.hypervisorId}` : 'unknown')),
		fact('Created', when(s.createdAt)), fact('Found', when(s.firstSeenAt)), fact('Last seen', ago(s.lastSeenAt), ` by ${s.observedSource}`), s.goneAt ? fact('Gone', when(s.goneAt)) : null,
		s.settleUntil && s.status === 'settling' ? fact('Decided at the latest', when(s.settleUntil)) : null, s.ask ? fact('VirtFusion is to be asked', s.ask) : null,
		fact('UUID', h('span', { class: 'mono' }, s.uuid || '–')));
}

function chargesOf(row) {
	if (row.charges.length === 0) return h('p', { class: 'small soft' }, 'No charge yet.');
	const t = table(`${plural(row.chargesInAll, 'charge')}${row.chargesInAll > row.charges.length ? `; the newest ${row.charges.length}` : ''}`, ['From', 'Until', ['Hours', 'number'], ['Amount', 'number'], 'State']);
	for (const c of row.charges) {
		t.body.append(t.row([when(c.from), when(c.until), c.hours ?? '–', c.amount === null ? '–' : `$${c.amount}`,
			h('span', { class: `badge ${{ pending: 'busy', completed: 'good', failed: 'bad' }[c.status] ?? ''}` }, c.status)]));
	}
	return t.element;
}

function billingRow(row) {
	return h('article', { class: 'stack' },
		h('h3', {}, `Record ${row.id}, made by ${row.madeBy === 'skypanel' ? 'SkyPANEL' : 'serversync'} `, h('span', { class: `badge ${row.enabled ? 'on' : ''}` }, row.enabled ? 'On' : 'Off')),
		h('p', {}, sentence(row.nextCharge.words)),
		figures(['A month, by the record', money(row.monthlyPrice), `${row.packageName || 'package'} (id ${row.packageId})`], ['A month, as charged', money(row.nextCharge.effectiveMonthly), `${plural(row.nextCharge.hourlyTokens, 'token')} an hour`],
			['Charged until', row.lastBilledAt ? when(row.lastBilledAt) : 'never'], ['Customer', userLink(row.userId), row.userActive ? null : 'switched off']),
		row.closedReason ? h('p', { class: 'small soft' }, `Closed: ${row.closedReason}`) : null,
		h('div', { class: 'scroll' }, chargesOf(row)));
}

// --- history ---

/** flat makes an object's inner values its own: charge.amount is 'charge amount'. */
function flat(object, prefix = '') {
	return Object.entries(object ?? {}).flatMap(([key, value]) => (value !== null && typeof value === 'object' && !Array.isArray(value)
		? flat(value, `${prefix}${key} `) : [[`${prefix}${key}`.replaceAll('_', ' '), value]]));
}

function said(value) {
	if (value === null || value === undefined || value === '') return 'nothing';
	if (typeof value === 'boolean') return value ? 'yes' : 'no';
	if (Array.isArray(value)) return value.length === 0 ? 'none' : value.join(', ');
	if (/^\d{4}-\d\d-\d\dT[\d:.]+Z$/.test(value)) return when(value);
	return String(value);
}

/** diff of what was and what is, of the keys that changed. */
function diff(before, after) {
	const was = new Map(flat(before));
	const is = new Map(flat(after));
	const keys = [...new Set([...was.keys(), ...is.keys()])].filter((key) => JSON.stringify(was.get(key)) !== JSON.stringify(is.get(key)));
	if (keys.length === 0) return null;
	const lines = h('dl', { class: 'diff' }, keys.map((key) => h('div', {}, h('dt', {}, key), h('dd', {},
		was.has(key) ? [h('del', {}, said(was.get(key))), h('span', { 'aria-hidden': 'true' }, ' → ')] : null, is.has(key) ? h('ins', {}, said(is.get(key))) : null))));
	return keys.length > 4 && was.size === 0 ? h('details', {}, h('summary', { class: 'small' }, plural(keys.length, 'fact')), lines) : lines;
}

/** historyLine of a server, as a story tells it; `server` says whose where that is not clear. */
export function historyLine(l, server = null) {
	const [label, tone] = happenings[l.kind] ?? [l.kind.replaceAll('_', ' '), ''];
	return h('li', {},
		h('div', { class: 'row middle' }, h('span', { class: `badge ${tone}` }, label), server, h('span', { class: 'small soft' }, when(l.at), ` by ${l.source}`)),
		h('p', {}, sentence(l.reason || l.message)), diff(l.before, l.after),
		h('div', { class: 'row middle small' }, l.runId ? link('Run', `runs/${l.runId}`) : null, l.userId ? userLink(l.userId) : null, l.billingId ? h('span', { class: 'soft' }, `record ${l.billingId}`) : null,
			h('details', {}, h('summary', { class: 'soft' }, 'Raw'), h('pre', { class: 'mono', tabIndex: 0 }, JSON.stringify({ before: l.before, after: l.after, eventId: l.eventId }, null, 2)))));
}

// --- the view ---

export function server(page) {
	const [id] = page.args;
	const header = area(null, (s) => [
		h('p', { class: 'standing' }, statusBadge(s.status), ' ', ' ', h('strong', {}, sentence(s.note) || statuses[s.status]?.hint)), facts(s)]);
	const wished = area(null, (all) => (all.length === 0 ? null : section('What operators wish', h('ul', { class: 'points' }, all.map((o) =>
		h('li', {}, h('strong', {}, wishes[o.kind] ?? o.kind, o.packageId ? ` ${o.packageId}` : ''), o.reason ? `: ${o.reason}` : '', h('span', { class: 'small soft' }, ` – ${o.setBy}, `, ago(o.setAt))))))));
	const rows = area(null, (all) => section('Billing', all.length === 0 ? h('p', { class: 'soft' }, 'SkyPANEL has no billing record of it.') : all.map(billingRow)));
	const lines = h('ol', { class: 'timeline' });
	const history = pages({
		element: lines, body: lines, label: 'Show older', empty: h('p', {}, 'Nothing has happened yet.'), item: (l) => historyLine(l), signal: page.signal,
		read: async ({ cursor, signal }) => {
			const story = await get(`api/admin/servers/${id}/timeline`, { cursor, limit: 30 }, signal);
			if (cursor === null) show(story);
			return { items: story.history.items, next: story.history.nextCursor };
		},
	});
	let virtfusionId = /^\d+$/.test(id) ? Number(id) : null; // a UUID's is known when it has been read
	const action = bulk({ choose: () => (virtfusionId === null ? null : { ids: [virtfusionId] }), done: () => history.renew(), signal: page.signal });
	const place = h('div');
	const undo = h('div', {}, place, h('p', {}, button('Preview undo of its last change', place, async () => {
		const shown = await post(`api/admin/servers/${virtfusionId}/undo`, { dryRun: true });
		location.hash = to(`runs/${shown.id}`);
	}, '', () => virtfusionId !== null), ' ', h('span', { class: 'small soft' }, 'Shows what taking back the last change of its billing would do. Changes nothing.')));
	function show({ server: s, overrides, billingRows }) {
		virtfusionId = s.id;
		page.title(s.name || `Server ${s.id}`);
		header.paint(s);
		wished.paint(overrides);
		rows.paint(billingRows);
	}
	const soonAgain = soon(700, history.renew);
	page.hear = (m) => { if (m.type === 'server' && m.server.id === virtfusionId) soonAgain(); };
	page.refresh = history.renew;
	page.aside.append(h('span', { class: 'soft' }, `Server ${id}`), link('All servers', 'servers'));
	page.root.append(section('As it stands', header.element), wished.element, rows.element, section('Do something', action.element, undo), section('History', history.outside));
	history.load();
}
