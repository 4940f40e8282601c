// First charges: credit that is taken for the first hour of a billing record. Those
// of which nobody knows whether it was taken wait for a person.
import { get, post } from './api.js';
import { fill, h } from './dom.js';
import { ago, number, plural, sentence, when } from './format.js';
import { ask, button, pages, serverLink, table, userLink } from './admin-parts.js';

/** states: a label, how it is shown, and what it means. */
const states = {
	unclear: ['Unclear', 'bad', 'nobody knows whether the credit was taken'],
	due: ['Due', 'busy', 'it is taken soon'],
	taking: ['Being taken', 'busy', 'what becomes of it is known within two minutes'],
	taken: ['Taken', 'good', 'the credit was taken'],
	failed: ['Not taken', 'warn', 'VirtFusion refused it, or a person said that nothing was taken'],
	cancelled: ['Cancelled', '', 'it was not owed any more'],
};
const stateBadge = (c) => h('span', { class: `badge ${states[c.state]?.[1] ?? ''}`, title: states[c.state]?.[2] ?? '' }, states[c.state]?.[0] ?? c.state);
const credit = (c) => `${plural(c.tokens, 'token')} ($${(c.tokens / 100).toFixed(2)})`;

const read = (state) => async ({ query, cursor, signal }) => {
	const found = await get('api/admin/charges', { limit: 50, cursor, ...state === null ? query : { state } }, signal);
	return { items: found.items, next: found.nextCursor };
};

/** unclear is what a person has to find out about a charge, and the two answers. */
function unclear(c, settled) {
	const name = `first charge ${c.id}`;
	const resolve = (taken, creditId) => async () => {
		const body = creditId?.value.trim() ? { taken, creditId: creditId.value.trim() } : { taken };
		settled(c, await post(`api/admin/charges/${c.id}/resolve`, {}, body));
	};
	const whose = [h('p', {}, credit(c), ' of ', userLink(c.userId), ' for ', serverLink(c.serverId), '.')];
	const yes = () => {
		const id = h('input', { maxLength: 64, autocomplete: 'off' });
		ask({
			title: 'VirtFusion took the credit?', yes: 'It was taken',
			body: [...whose, h('p', {}, 'The hour counts as paid, and SkyPANEL’s ledger gets its line. This cannot be taken back here.'), h('label', {}, h('span', {}, 'VirtFusion’s id of the credit record, where it shows one'), id)],
			run: () => resolve(true, id)(),
		});
	};
	const no = () => ask({
		title: 'VirtFusion took nothing?', yes: 'Nothing was taken', danger: true,
		body: [...whose, h('p', {}, 'The hour counts as not paid, and nobody tries to take it again. This cannot be taken back here.')],
		run: () => resolve(false)(),
	});
	return h('li', { class: 'card stack question' },
		h('h3', {}, `${credit(c)} for `, serverLink(c.serverId), ' of ', userLink(c.userId)),
		h('p', { class: 'notice warn' }, sentence(c.reason ?? 'nobody said why it is not known')),
		h('p', {}, 'Look in VirtFusion at the credit of this customer, around ', when(c.takingAt ?? c.createdAt), ', for a debit with these references. Then say what you found.'),
		h('dl', { class: 'facts' }, [['Reference 1', h('code', {}, String(c.hourlyTransactionId))], ['Reference 2', h('code', {}, c.reference)], ['Attempts', number(c.attempts)], ['Billing record', String(c.billingId)]]
			.map(([what, value]) => h('div', {}, h('dt', {}, what), h('dd', {}, value)))),
		h('div', { class: 'row' },
			h('button', { type: 'button', 'aria-label': `It was taken: ${name}`, onclick: yes }, 'It was taken …'),
			h('button', { type: 'button', class: 'danger', 'aria-label': `Nothing was taken: ${name}`, onclick: no }, 'Nothing was taken …')));
}

export function charges(page) {
	const said = h('div', { role: 'status' });
	const waiting = h('ul', { class: 'stack' });
	const open = pages({
		element: waiting, body: waiting, auto: '400px', signal: page.signal, read: read('unclear'), item: (c) => unclear(c, settled),
		empty: h('p', {}, h('strong', {}, 'No charge is unclear.'), ' Of each it is known whether the credit was taken.'),
	});
	const form = h('form', { class: 'row filters', role: 'search', onchange: () => again(), onsubmit: (event) => { event.preventDefault(); again(); } },
		h('label', {}, h('span', {}, 'State'), h('select', { name: 'state' }, h('option', { value: '' }, 'All'),
			Object.entries(states).map(([value, [label]]) => h('option', { value, selected: value === page.query.get('state') }, label)))));
	const filter = () => Object.fromEntries([...new FormData(form)].filter(([, v]) => v !== ''));
	const t = table('First charges, newest first', [['Server', 'name'], 'Customer', 'State', ['Credit', 'number'], 'Made', ['What it says', 'note']], { away: true });
	const list = pages({
		element: t.element, body: t.body, label: 'Show older', signal: page.signal, query: filter, read: read(null),
		item: (c) => t.row([serverLink(c.serverId), userLink(c.userId), stateBadge(c), credit(c), ago(c.createdAt),
			h('span', { class: 'small soft' }, sentence(c.reason ?? states[c.state]?.[2]), c.creditId ? [' VirtFusion’s record ', h('code', {}, c.creditId), '.'] : null)]),
		empty: h('p', {}, 'There is none. First charges are made with BILLING_INITIAL_CHARGE=deduct.'),
	});
	function again() {
		page.keep(filter());
		list.load();
	}
	function settled(c, now) {
		if (page.signal.aborted) return;
		open.drop(c.id);
		list.renew();
		fill(said, h('p', { class: 'notice good' }, `First charge ${c.id}: ${states[now.state]?.[0].toLowerCase() ?? now.state}.`));
	}
	page.hear = (m) => { if (m.type === 'server') { open.renew(); list.renew(); } };
	page.refresh = () => { open.renew(); list.renew(); };
	page.root.append(
		h('p', { class: 'soft' }, 'With BILLING_INITIAL_CHARGE=deduct the first hour of a new billing record is taken from the customer’s credit, once. Where VirtFusion’s answer was lost nothing is tried again.'),
		said, h('section', { class: 'stack' }, h('h2', {}, 'Unclear: a person has to look'), open.outside),
		h('section', { class: 'card stack' }, h('h2', {}, 'All of them'), form, list.outside));
	open.load();
	list.load();
}
