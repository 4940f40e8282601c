// One user: how their servers stand, what happened to them, and doing it again.
import { call, get, post } from './api.js';
import { fill, h, soon } from './dom.js';
import { ago, number, sentence, when } from './format.js';
import { area, button, counts, figures, follow, link, meter, ordering, pages, previewOf, problemsOf, runBadge, runName, section, serverLink } from './admin-parts.js';
import { billsOf } from './admin-preview.js';
import { historyLine } from './admin-server.js';

const status = (s) => figures(
	['Servers', number(s.totalServers)], ['In step', number(s.syncedServers), s.totalServers > s.syncedServers ? `${number(s.totalServers - s.syncedServers)} are not` : 'all of them'],
	['External', number(s.externalServers)], ['Billing records', number(s.billingRecords)], ['Last in step', ago(s.lastSync)]);

/** entry of a user's history: a run, or a change. */
function entry(e) {
	if (e.type === 'change') return historyLine({ ...e.change, at: e.at }, serverLink(e.change.serverId, e.change.serverName));
	return h('li', {}, h('div', { class: 'row middle' }, runBadge(e.run), link(runName(e.run), `runs/${e.run.id}`), h('span', { class: 'small soft' }, when(e.at), ` by ${e.run.requestedBy}`)), h('p', {}, counts(e.run)));
}

/** watched shows a run until its end, and then what it came to. */
async function watched(id, place, signal) {
	let m = null;
	const end = await follow(id, (run) => {
		if (m === null) {
			m = meter(run);
			fill(place, m.element);
		} else m.update(run);
	}, signal);
	const bills = end.dryRun && end.preview ? billsOf(end.id, signal) : null;
	bills?.load();
	fill(place, h('p', { class: `notice ${end.state === 'succeeded' ? 'good' : 'warn'}` }, h('strong', {}, `${runName(end)}: `), sentence(end.note || counts(end)), ' ', link('The run', `runs/${end.id}`)),
		problemsOf(end.problems), bills ? [previewOf(end.preview), bills.element] : null);
	return end;
}

function syncing(id, signal, done) {
	const place = h('div');
	const shown = h('div', { class: 'stack', role: 'status' });
	const sync = (dryRun) => {
		const order = ordering(() => call('POST', `api/admin/users/${id}/servers/sync`, { query: { dryRun, wait: 0 } }), ({ data }) => watched(data.runId ?? data.id, shown, signal));
		return async () => {
			fill(shown);
			await order();
			if (!dryRun) done();
		};
	};
	return section('Sync', h('p', { class: 'soft' }, 'Asks VirtFusion for this user’s servers, and brings the books in step.'),
		h('div', { class: 'row' }, button('Dry run', place, sync(true)), button('Sync now', place, sync(false), 'first')), place, shown);
}

const spans = { '24h': 'The last 24 hours', '168h': 'The last 7 days', '': 'All that the stream holds', since: 'Since …' };

/** moment of a datetime field, in the reader's time zone, as the API takes it. */
const moment = (input) => (input.value === '' ? null : new Date(input.value).toISOString());

function replaying(id, signal, done) {
	const place = h('div');
	const shown = h('div', { class: 'stack', role: 'status' });
	const since = h('input', { type: 'datetime-local', onchange: () => stale() });
	const until = h('input', { type: 'datetime-local', onchange: () => stale() });
	const sinceField = h('label', {}, h('span', {}, 'Since'), since);
	const span = h('select', { onchange: () => stale() }, Object.entries(spans).map(([value, label]) => h('option', { value, selected: value === '168h' }, label)));
	const wanted = () => ({ since: (span.value === 'since' ? moment(since) : span.value) || null, until: moment(until) });
	let previewed = null; // orders what was previewed
	function stale() {
		previewed = null;
		replay.disabled = true;
		sinceField.hidden = span.value !== 'since';
	}
	const order = (body) => ordering(() => post(`api/admin/users/${id}/servers/replay`, {}, body), (run) => watched(run.id, shown, signal));
	const preview = button('Preview replay', place, async () => {
		stale();
		const mine = wanted();
		const end = await order({ ...mine, dryRun: true })();
		if (JSON.stringify(mine) !== JSON.stringify(wanted()) || end.state === 'failed') return;
		previewed = order({ since: end.replay?.since ?? mine.since, until: mine.until, dryRun: false }); // a span begins when it began then
		replay.disabled = false;
	});
	const replay = button('Replay', place, async () => {
		await previewed();
		stale();
		done();
	}, 'first', () => previewed !== null);
	stale();
	return section('Replay', h('p', { class: 'soft' }, 'Publishes again what was heard of this user’s servers, in order, and ends with a sync: the books are then as VirtFusion is today. Old events overwrite nothing newer.'),
		h('div', { class: 'row' }, h('label', {}, h('span', {}, 'What'), span), sinceField, h('label', {}, h('span', {}, 'Until (empty: now)'), until), preview, replay), place, shown);
}

export function user(page) {
	const [id] = page.args;
	page.title(`User ${id}`);
	const standing = area(async (signal) => {
		try {
			return await get(`api/admin/users/${id}/servers/sync/status`, {}, signal);
		} catch (error) {
			if (error.status === 404) page.root.replaceChildren(standing.element); // nobody to do anything for
			throw error;
		}
	}, status);
	const lines = h('ol', { class: 'timeline' });
	const history = pages({
		element: lines, body: lines, label: 'Show older', key: (e) => e.run?.id ?? e.change.id, item: entry, empty: h('p', {}, 'Nothing has happened yet.'), signal: page.signal,
		read: async ({ cursor, signal }) => {
			const found = await get(`api/admin/users/${id}/servers/sync/history`, { cursor, limit: 30 }, signal);
			return { items: found.items, next: found.nextCursor };
		},
	});
	const again = () => { standing.load(); history.renew(); };
	const soonAgain = soon(1000, again);
	page.hear = (m) => { if (m.type === 'run_ended' && m.run.userId === Number(id)) soonAgain(); };
	page.refresh = again;
	page.aside.append(link('Their servers', 'servers', { user: id }), link('Their runs', 'runs', { user: id }));
	page.root.append(standing.element, syncing(id, page.signal, again), replaying(id, page.signal, again), section('History', history.outside));
	standing.load();
	history.load();
}
