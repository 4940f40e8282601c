// What a run would do to each customer's bill.
import { get, url } from './api.js';
import { fill, h, say } from './dom.js';
import { money, number, plural } from './format.js';
import { pages, serverLink, signed, table, userLink } from './admin-parts.js';

/** rowWords are what happens to billing rows, but for what happens to none. */
export const rowWords = (r) => [
	[r.created, 'made'], [r.changed, 'changed'], [r.enabled, 'switched on again'], [r.disabled, 'switched off for now'],
	[r.ended, 'ended'], [r.withdrawn, 'withdrawn'], [r.moved, 'closed, as the server moved'],
].filter(([n]) => n > 0).map(([n, word]) => `${number(n)} ${word}`).join(', ');

const first = (c) => (c.firstCharges === 0 ? '–' : [money(c.firstChargeAmount), h('div', { class: 'small soft' }, c.firstChargesCollected ? 'taken from their credit' : 'recorded; nobody collects it')]);
const amount = (effective, list) => [money(effective), Number(effective) !== Number(list) ? h('div', { class: 'small soft' }, `list ${money(list)}`) : null];

/**
 * billsOf a run: a table of the customers whom its preview concerns, the largest
 * change first, with files for spreadsheets. `signal` ends with the page.
 */
export function billsOf(id, signal) {
	const field = h('input', { type: 'number', min: 0, step: '0.01', inputMode: 'decimal', size: 8, placeholder: '0.00' });
	const found = h('p', { class: 'small soft', role: 'status' });
	const files = h('p', { class: 'small' });
	const t = table('What changes a month for each customer', [['Customer', 'name'], ['Change', 'number'], ['Before', 'number'], ['After', 'number'], 'Records', ['First charge', 'number']], { away: true });
	const over = () => (field.validity.valid ? field.value : '');
	const path = `api/admin/runs/${id}/preview`;
	const list = pages({
		element: t.element, body: t.body, signal, key: (c) => c.userId, query: () => ({ changesOver: over() }),
		read: async ({ query, cursor, signal }) => {
			const page = await get(path, { ...query, cursor, limit: 30 }, signal);
			say(found, page.total === 0 ? '' : query.changesOver ? `${plural(page.total, 'customer')}: the month changes by more than ${money(query.changesOver)}.` : `${plural(page.total, 'customer')}, the largest change first.`);
			return { items: page.items, next: page.nextCursor };
		},
		item: (c) => t.row([userLink(c.userId), [signed(c.effectiveChange), Number(c.effectiveChange) !== Number(c.listChange) ? h('div', { class: 'small soft' }, `list ${signed(c.listChange)}`) : null],
			amount(c.effectiveBefore, c.listBefore), amount(c.effectiveAfter, c.listAfter), h('span', { class: 'small' }, rowWords(c.rows) || plural(c.servers, 'server')), first(c)]),
		empty: h('p', {}, 'No customer’s month changes by that much.'),
	});
	const file = (query, text) => h('a', { href: url(`${path}.csv`, query).href, download: '' }, text);
	function load() {
		fill(files, 'For spreadsheets: ', file({ changesOver: over() }, 'by customer (CSV)'), ', ', file({ by: 'server', changesOver: over() }, 'by server (CSV)'));
		return list.load();
	}
	const form = h('form', { class: 'row', onsubmit: (event) => { event.preventDefault(); if (field.reportValidity()) load(); }, onchange: () => { if (field.reportValidity()) load(); } },
		h('label', {}, h('span', {}, 'Only changes over, in dollars a month'), field));
	const element = h('section', { class: 'stack bills' }, h('h3', {}, 'By customer, as it is charged'),
		h('p', { class: 'small soft' }, 'Before and after are of the servers that change, not of all that a customer has.'), form, found, h('div', { class: 'scroll' }, list.outside), files);
	return { element, load };
}

/** differenceOf what a run would do by now from what somebody approved; null: it does not ask again. */
export function differenceOf(d) {
	if (!d) return null;
	const more = d.backBilledNow !== d.backBilledApproved;
	const t = table('Who would pay other amounts', [['Customer', 'name'], ['Approved', 'number'], ['Now', 'number'], ...more ? [['At once, approved', 'number'], ['At once, now', 'number']] : []]);
	for (const c of d.byCustomer) t.body.append(t.row([userLink(c.userId), signed(c.approved), signed(c.now), ...more ? [money(c.backBilledApproved), money(c.backBilledNow)] : []]));
	return h('div', { class: 'notice warn stack' },
		h('p', {}, h('strong', {}, 'It was approved, and would by now do something else. '), `${d.approvedBy} approved ${signed(d.approved)} a month as charged; now it is ${signed(d.now)}.`),
		more ? h('p', {}, `For the time before the discovery SkyPANEL would charge ${money(d.backBilledNow)} at once; ${money(d.backBilledApproved)} were approved.`) : null,
		d.servers > 0 ? h('p', {}, `Something else would be done with ${plural(d.servers, 'server')}: `, d.serverIds.map((id, i) => [i > 0 ? ', ' : '', serverLink(id)]), d.servers > d.serverIds.length ? ', …' : '.') : null,
		d.byCustomer.length > 0 ? [h('div', { class: 'scroll' }, t.element), d.customers > d.byCustomer.length ? h('p', { class: 'small soft' }, `The largest differences of ${plural(d.customers, 'customer')}.`) : null] : null);
}
