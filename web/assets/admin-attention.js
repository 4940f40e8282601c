// What a person has to look at, each with the next step.
import { get } from './api.js';
import { h, soon } from './dom.js';
import { money, number, plural, sentence } from './format.js';
import { area, link, runBadge, runName, serverLink, userLink } from './admin-parts.js';
import { bulk } from './admin-bulk.js';
import { goToUser } from './admin-servers.js';

const most = 2000; // servers of a group that are read; the list has them all
const few = 5; // servers of a step that are named

/** all servers of a filter, up to a limit. */
async function all(filter, signal) {
	const items = [];
	let cursor = null;
	do {
		const page = await get('api/admin/servers', { ...filter, limit: 200, cursor }, signal);
		items.push(...page.items);
		cursor = page.nextCursor;
	} while (cursor !== null && items.length < most);
	return { items, more: cursor !== null };
}

function groupBy(items, key) {
	const groups = new Map();
	for (const x of items) groups.set(key(x), [...groups.get(key(x)) ?? [], x]);
	return [...groups].sort(([, a], [, b]) => b.length - a.length);
}

/** named servers, the first few, and where the rest are; filter null: no filter is of them and of no others. */
const named = (items, filter) => h('p', { class: 'small' }, items.slice(0, few).map((s, i) => [i > 0 ? ', ' : '', serverLink(s.id, s.name)]),
	items.length > few ? [' and ', filter ? link(`${number(items.length - few)} more`, 'servers', filter) : `${number(items.length - few)} more`] : null);

/** tool folds an action on {ids} or {filter} away that belongs to a step; closed is called when it is folded again. */
function tool(label, target, preset, signal, closed) {
	const place = h('div');
	return h('details', { ontoggle: (event) => {
		if (!event.target.open) closed();
		else if (!place.hasChildNodes()) place.append(bulk({ choose: () => target, preset, signal }).element);
	} }, h('summary', {}, label), place);
}

const targetOf = (items, filter) => (filter ? { filter } : { ids: items.map((s) => s.id) });

const groups = [
	{
		title: 'Runs that wait for approval', filter: { awaiting: 'true' }, none: 'No run waits for approval.',
		read: async (signal) => ({ items: (await get('api/admin/overview', {}, signal)).waiting }),
		show: ({ items }) => items.map((r) => h('li', { class: 'step' },
			h('p', {}, runBadge(r), ' ', h('strong', {}, link(runName(r), `runs/${r.id}`)), `: ${r.preview?.asks ?? r.note}.`),
			h('p', { class: 'small' }, link('Look and decide', `runs/${r.id}`), ' · ', link('the servers that wait', 'servers', { awaiting: 'true' })))),
	},
	{
		title: 'Records that disagree', filter: { status: 'conflict' }, none: 'No server is in doubt.',
		show: ({ items }) => items.map((s) => h('li', { class: 'step' }, h('p', {}, h('strong', {}, serverLink(s.id, s.name)), ' of ', userLink(s.userId), ': ', sentence(s.note)),
			h('p', { class: 'small soft' }, 'Mend the record that is wrong in SkyPANEL or VirtFusion, or say here how it is to be billed.'))),
	},
	{
		title: 'Without a price', filter: { status: 'external', reason: 'unpriced' }, none: 'Every package that is in use has a price.',
		show: ({ items }, signal, closed) => groupBy(items, (s) => s.packageId).map(([id, some]) => {
			const own = id === null ? null : { status: 'external', reason: 'unpriced', package: id };
			return h('li', { class: 'step' },
				own ? h('p', {}, h('strong', {}, `Package ${id}`), ` has no price in SkyPANEL (${plural(some.length, 'server')}): give it one under package pricing, and they are billed from then on; or bill them as another package.`)
					: h('p', {}, h('strong', {}, 'No package'), ` is known of ${plural(some.length, 'server')}: say which package to bill ${some.length === 1 ? 'it' : 'them'} as.`),
				named(some, own), tool('Bill as another package', targetOf(some, own), 'set-package', signal, closed));
		}),
	},
	{
		title: 'Switched off by SkyPANEL', filter: { status: 'external,native', reason: 'disabled_by_skypanel' }, none: 'SkyPANEL switched nothing off that runs.',
		show: ({ items }, signal, closed) => groupBy(items, (s) => s.userId).map(([id, some]) => {
			const own = id === null ? null : { status: 'external,native', reason: 'disabled_by_skypanel', user: id };
			const lost = some.reduce((sum, s) => sum + Number(s.monthlyPrice ?? 0), 0);
			return h('li', { class: 'step' }, h('p', {}, h('strong', {}, userLink(id)), `: SkyPANEL switched billing off for ${plural(some.length, 'server')} that go${some.length === 1 ? 'es' : ''} on running, ${money(lost)} a month by list price. Check whether that was meant: if not, switch it on again.`),
				named(some, own), tool('Switch it on again', targetOf(some, own), 'billing-on', signal, closed));
		}),
	},
	{
		title: 'Of nobody in SkyPANEL', filter: { status: 'unlinked' }, none: 'Every server belongs to a customer.',
		show: ({ items }) => groupBy(items, (s) => s.owner).map(([owner, some]) => h('li', { class: 'step' },
			owner ? h('p', {}, h('strong', {}, `VirtFusion user ${owner}`), ` owns ${plural(some.length, 'server')}, and no SkyPANEL user has virtfusion_id = ${owner}: link the customer to whom they belong. It is picked up within a minute.`)
				: h('p', {}, h('strong', {}, 'The owner'), ` of ${plural(some.length, 'server')} is unknown: the next sweep asks VirtFusion.`),
			named(some, { status: 'unlinked', owner }))),
	},
];

export function attention(page) {
	page.aside.append(goToUser());
	const areas = groups.map((group) => {
		const head = h('span', { class: 'count', hidden: true });
		const a = area(async (signal) => (group.read ?? ((s) => all(group.filter, s)))(signal), (found) => {
			const n = found.items.length;
			head.hidden = n === 0;
			head.textContent = found.more ? `${number(n)}+` : number(n);
			if (n === 0) return h('p', { class: 'soft dot good' }, group.none);
			return [h('ul', { class: 'steps' }, group.show(found, page.signal, () => a.load())), n > few ? h('p', { class: 'small' }, link('All of them in the list', 'servers', group.filter)) : null];
		});
		page.root.append(h('section', { class: 'card stack' }, h('h2', {}, group.title, ' ', head), a.element));
		a.load();
		return a;
	});
	const again = () => areas.forEach((a) => { if (!a.element.querySelector('details[open]')) a.load(); }); // what somebody fills in stays
	const sometime = soon(5000, again);
	page.hear = (m) => { if (m.type === 'server' || m.type === 'run_ended') sometime(); };
	page.refresh = again;
}
