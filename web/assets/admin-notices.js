// Notices: what administrators were told of, by which channel, and what did not arrive.
import { get } from './api.js';
import { h } from './dom.js';
import { ago, plural, sentence } from './format.js';
import { link, pages, serverLink } from './admin-parts.js';

const tones = { critical: 'bad', warning: 'warn', info: '' };
const kinds = { conflict: 'In doubt', finding: 'Watchdog', approval: 'Approval', sweep: 'Sweep', dead_letter: 'Dead letter' };
const channels = { skypanel: 'SkyPANEL’s administrators', webhook: 'Webhook', email: 'E-mail' };

/** delivery says what became of a notice by one channel. */
function delivery(d) {
	const to = channels[d.channel] ?? d.channel;
	const failed = d.error ? h('div', { class: 'small' }, d.error) : null;
	switch (d.state) {
		case 'delivered': return h('li', {}, h('span', { class: 'dot good' }, h('strong', {}, to), ': delivered '), ago(d.deliveredAt), d.attempts > 1 ? `, after ${plural(d.attempts, 'attempt')}` : null);
		case 'given_up': return h('li', {}, h('span', { class: 'dot bad' }, h('strong', {}, to), `: given up after ${plural(d.attempts, 'attempt')}`), failed);
		case 'failing': return h('li', {}, h('span', { class: 'dot warn' }, h('strong', {}, to), `: did not arrive, ${plural(d.attempts, 'attempt')}; tried again `), ago(d.nextAt), failed);
	}
	return h('li', {}, h('span', { class: 'dot busy' }, h('strong', {}, to), ': on its way'));
}

const notice = (n) => h('li', { class: 'card stack tight' },
	h('h2', {}, n.title),
	h('p', {}, h('span', { class: `badge ${tones[n.severity] ?? ''}` }, kinds[n.kind] ?? n.kind.replaceAll('_', ' ')), ' ', ago(n.at),
		n.serverId === null ? null : [' · ', serverLink(n.serverId)], n.runId === null ? null : [' · ', link('the run', `runs/${n.runId}`)]),
	h('p', {}, sentence(n.message)),
	n.deliveries.length === 0 ? h('p', { class: 'small soft' }, 'Nobody was told: no channel was on, or it is told with the next message.') : h('ul', { class: 'checks' }, n.deliveries.map(delivery)));

export function notices(page) {
	const only = h('input', { type: 'checkbox', name: 'undelivered', checked: page.query.get('undelivered') === 'true' });
	const form = h('form', { class: 'row filters', role: 'search', onchange: () => again(), onsubmit: (event) => { event.preventDefault(); again(); } },
		h('label', { class: 'beside' }, only, h('span', {}, 'Only what did not arrive')));
	const filter = () => (only.checked ? { undelivered: true } : {});
	const body = h('ul', { class: 'stack' });
	const list = pages({
		element: body, body, auto: '400px', item: notice, signal: page.signal, query: filter,
		read: async ({ query, cursor, signal }) => {
			const found = await get('api/admin/notices', { ...query, cursor }, signal);
			return { items: found.items, next: found.nextCursor };
		},
		empty: [h('p', {}, h('strong', {}, 'There is nothing to tell.')), h('p', {}, 'What somebody should look at is written down here, whether or not a channel is on that tells of it.')],
	});
	function again() {
		page.keep(filter());
		list.load();
	}
	page.hear = (m) => { if (m.type === 'run_ended') list.renew(); };
	page.refresh = list.renew;
	page.root.append(h('p', { class: 'soft' }, 'What administrators are told of, once each: in SkyPANEL, by webhook, by e-mail, as NOTIFY_ADMINS, NOTIFY_WEBHOOK_URL and NOTIFY_EMAIL_TO say.'), form, list.outside);
	list.load();
}
