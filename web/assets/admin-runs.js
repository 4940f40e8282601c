// Runs: what was looked at and done, and the question when one has to be asked.
import { call, get, post } from './api.js';
import { fill, h, say } from './dom.js';
import { ago, number, plural, sentence, took, when } from './format.js';
import { kinds, phases, runStates } from './words.js';
import { billsOf, differenceOf } from './admin-preview.js';
import { area, ask, button, counts, effects, failure, figures, link, meter, pages, previewOf, problemsOf, runBadge, runName, section, serverLink, sums, table, to, userLink } from './admin-parts.js';

const options = (all, label, chosen) => [h('option', { value: '' }, 'All'), ...Object.entries(all).map(([value, x]) => h('option', { value, selected: value === chosen }, label(x)))];

/** runs is the list of them. */
export function runs(page) {
	const form = h('form', { class: 'row filters', role: 'search', onchange: () => again(), onsubmit: (event) => { event.preventDefault(); again(); } },
		h('label', {}, h('span', {}, 'Kind'), h('select', { name: 'kind' }, options(kinds, (k) => k, page.query.get('kind')))),
		h('label', {}, h('span', {}, 'State'), h('select', { name: 'state' }, options(runStates, (s) => s.label, page.query.get('state')))),
		h('label', {}, h('span', {}, 'User'), h('input', { name: 'user', inputMode: 'numeric', pattern: '[0-9]*', size: 8, value: page.query.get('user') ?? '', placeholder: 'id' })));
	const filter = () => Object.fromEntries([...new FormData(form)].filter(([, v]) => v !== ''));
	const t = table('Runs, newest first', [['Run', 'name'], 'State', 'Began', ['By', 'keep'], ['Servers', 'list'], ['What it says', 'note']], { away: true });
	const list = pages({
		element: t.element, body: t.body, label: 'Show older', auto: '400px', query: filter, signal: page.signal,
		read: async ({ query, cursor, signal }) => {
			const answer = await call('GET', 'api/admin/runs', { query: { ...query, limit: 30, cursor }, signal });
			return { items: answer.data, next: answer.headers.get('X-Next-Cursor') };
		},
		item: (run) => t.row([
			[link(runName(run), `runs/${run.id}`), run.userId === null ? null : h('div', { class: 'small' }, 'of ', userLink(run.userId))],
			runBadge(run), [ago(run.startedAt), h('div', { class: 'small soft' }, run.endedAt ? `took ${took(run.startedAt, run.endedAt)}` : phases[run.phase] ?? run.phase)],
			run.requestedBy, counts(run), h('span', { class: 'small soft' }, sentence(run.note)),
		]),
		empty: h('p', {}, 'No run is like that. ', link('Show all', 'runs')),
	});
	function again() {
		page.keep(filter());
		list.load();
	}
	const fits = (run) => {
		const f = filter();
		return (!f.kind || f.kind === run.kind) && (!f.state || f.state === run.state) && (!f.user || f.user === String(run.userId));
	};
	page.hear = (m) => {
		if (m.type !== 'run' && m.type !== 'run_ended') return;
		if (fits(m.run)) list.put(m.run);
		else if (list.element(m.runId)) list.drop(m.runId);
	};
	page.refresh = list.renew;
	page.root.append(form, h('div', { class: 'card sheet' }, list.outside));
	list.load();
}

/** about a run: what became of its servers, when and by whom. A dry run has its preview for the first. */
const about = (run) => [
	run.dryRun ? null : figures(['New', number(run.new), 'records made'], ['Changed', number(run.updated)], ['Unchanged', number(run.unchanged), run.settling > 0 ? `${number(run.settling)} still settling` : null],
		['Failed', number(run.failed), null, run.failed > 0 ? 'bad' : ''], run.held > 0 ? ['Held', number(run.held), 'wait for approval', 'warn'] : null,
		['Servers', number(run.expected), run.kind === 'sweep' && run.progress.total > 0 ? `VirtFusion counts ${number(run.progress.total)}` : null]),
	h('p', { class: 'small soft' }, 'Began ', when(run.startedAt), ' (', ago(run.startedAt), ')', run.endedAt ? `, took ${took(run.startedAt, run.endedAt)}` : '', `; asked by ${run.requestedBy}`,
		run.userId === null ? '; of all users' : ['; of ', userLink(run.userId)], run.progress.calls > 0 ? `; ${plural(run.progress.calls, 'request')} to VirtFusion, at most ${number(run.progress.callsPerSecond)} a second` : '',
		run.approvedAt ? [`; approved by ${run.approvedBy} `, ago(run.approvedAt)] : '', '; id ', h('code', {}, run.id)),
	run.undoes ? h('p', {}, 'It takes back ', run.undoes.runId === null ? ['the last change of ', serverLink(run.undoes.serverId), ' (', when(run.undoes.at), ')'] : link(`run ${run.undoes.runId}`, `runs/${run.undoes.runId}`), '.') : null,
	run.replay ? h('p', { class: 'small soft' }, `${plural(run.replay.events, 'event')} published again, `, run.replay.since ? ['stored since ', when(run.replay.since)] : 'of all that the stream holds',
		run.replay.until ? [' until ', when(run.replay.until)] : '', '. ', run.replay.limits ?? '') : null,
];

/** run is one of them. */
export function run(page) {
	const [id] = page.args;
	const place = h('div');
	const status = h('p', { class: 'away', role: 'status' });
	let progress = null;
	const moving = h('div');
	const state = area(null, (r) => [h('p', { class: 'standing' }, runBadge(r), ' ', sentence(r.note)),
		r.supersededBy ? h('p', { class: 'notice' }, 'A newer run took over what this one found. ', link('Go to that one', `runs/${r.supersededBy}`)) : null, about(r)]);
	const decision = area(null, (r) => [question(r, place, read), undoing(r, place)]);
	const preview = area(null, (r) => (r.preview && r.state !== 'running' ? section(r.dryRun || r.state === 'needs_approval' ? 'What it would do' : 'What it set out to do', previewOf(r.preview), bills.element) : null));
	const bills = billsOf(id, page.signal);
	let billed = null; // whose preview they are of
	const wrong = area(null, (r) => (r.problems.length > 0 ? section('Problems', problemsOf(r.problems)) : null));
	const results = resultsList(id, page.signal);
	let known = null;
	let heard = 0; // how often it was told of

	const ended = (r) => r.state !== 'running' && r.state !== 'needs_approval'; // once it has, that is final
	function show(now) {
		if (known && ended(known) && !ended(now)) return; // an answer of before
		page.title(`${runName(now)} ${now.id.slice(0, 6)}`);
		if (now.state === 'running' || progress) {
			progress ??= meter(now);
			if (!progress.element.isConnected) moving.append(progress.element);
			progress.update(now);
		}
		say(status, now.state === 'running' ? '' : known?.state === 'running' ? `The run has ended: ${runStates[now.state]?.label ?? now.state}.` : '');
		if (known?.state === 'running' && now.state !== 'running') results.refresh();
		for (const part of [state, decision, preview, wrong]) part.paint(part === state ? now : { ...now, progress: null });
		if (now.preview && now.state !== 'running' && billed !== now.preview.mark) {
			billed = now.preview.mark;
			bills.load();
		}
		if (!known && now.kind === 'bulk') results.element.open = true;
		known = now;
	}
	const problem = h('div');
	async function read() {
		const before = heard;
		try {
			const now = await get(`api/admin/runs/${id}`, {}, page.signal);
			fill(problem);
			if (heard === before || ended(now)) show(now); // else it was told of since
		} catch (error) {
			if (error.name !== 'AbortError') fill(problem, failure(error, read));
			if (error.status === 404) fill(page.root, problem, h('p', {}, link('All runs', 'runs')));
		}
	}
	page.hear = (m) => {
		const now = m.type === 'snapshot' ? m.runs.find((r) => r.id === id) : m.runId === id ? m.run : null;
		if (!now) return;
		heard++;
		show(now);
	};
	page.refresh = read;
	page.aside.append(link('All runs', 'runs'));
	page.root.append(h('div', {}, problem, moving, status), section('As it stands', state.element), h('div', { class: 'stack' }, place, decision.element), wrong.element, preview.element, results.element);
	read();
}

/** question is what a person has to decide about a run, if anything. */
function question(r, place, read) {
	if (r.state === 'needs_approval' && !r.dryRun) {
		return h('section', { class: 'card stack question' }, h('h2', {}, 'May it?'),
			r.preview?.asks && r.preview.asks !== r.note ? h('p', {}, sentence(r.preview.asks)) : null, r.preview ? h('p', {}, h('strong', {}, `It would ${effects(r.preview)}: `), sums(r.preview)[0]) : null,
			differenceOf(r.preview?.differs),
			h('div', { class: 'row middle' }, h('button', { type: 'button', class: 'first', onclick: () => approve(r, place, read) }, 'Approve …'),
				h('p', { class: 'small soft' }, 'Not approved, it changes nothing. A later sweep looks again, and asks again.')));
	}
	const p = r.preview;
	if (!r.dryRun || r.state === 'running' || r.state === 'failed' || !p) return null;
	if (p.create + p.change + p.move + p.end === 0) return h('p', { class: 'notice good' }, 'It would change nothing: the books are in step.');
	const found = `It would ${effects(p)}.`;
	const asks = p.asks ? ` Somebody will be asked first: ${p.asks}.` : '';
	if (r.kind === 'sweep' || r.kind === 'sync') {
		const [what, path] = r.kind === 'sweep' ? ['sweep now', 'api/admin/servers/sync'] : ['sync now', `api/admin/users/${r.userId}/servers/sync`];
		return h('section', { class: 'card stack question' }, h('p', {}, h('strong', {}, found), asks), h('p', {}, button(`Do it: ${what}`, place, async () => {
			const started = await post(path, r.kind === 'sync' ? { wait: 0 } : {});
			location.hash = to(`runs/${started.id ?? started.runId}`);
		}, 'first')));
	}
	if (r.kind === 'replay') {
		return h('section', { class: 'card stack question' }, h('p', {}, h('strong', {}, found), asks), h('p', {}, button('Do it: replay', place, async () => {
			const started = await post(`api/admin/users/${r.userId}/servers/replay`, {}, { since: r.replay?.since ?? null, until: r.replay?.until ?? null });
			location.hash = to(`runs/${started.id}`);
		}, 'first')));
	}
	if (r.kind === 'undo') {
		return h('section', { class: 'card stack question' }, h('p', {}, h('strong', {}, found), ' What it could not take back is among the problems below.'), h('p', {}, button('Do it: take it back', place, async () => {
			const u = r.undoes;
			const done = await post(u.runId === null ? `api/admin/servers/${u.serverId}/undo` : `api/admin/runs/${u.runId}/undo`);
			location.hash = to(`runs/${done.id}`);
		}, 'danger')));
	}
	return h('p', { class: 'notice' }, found);
}

/** undoing offers to take back what a run did; it is shown first what that would do. */
function undoing(r, place) {
	if (r.dryRun || r.state === 'running' || r.new + r.updated === 0) return null;
	return h('p', {}, button('Preview undo', place, async () => {
		const shown = await post(`api/admin/runs/${r.id}/undo`, { dryRun: true });
		location.hash = to(`runs/${shown.id}`);
	}), ' ', h('span', { class: 'small soft' }, 'Shows what taking back this run would do. Changes nothing.'));
}

function approve(r, place, read) {
	const p = r.preview;
	ask({
		title: 'Approve this run?', yes: 'Approve',
		body: [p ? [h('p', {}, h('strong', {}, `It will ${effects(p)}.`)), h('ul', { class: 'points' }, sums(p).map((line) => h('li', {}, line)))] : h('p', {}, sentence(r.note)),
			h('p', { class: 'soft' }, 'It looks at each server once more and does what is right by then.')],
		run: async () => {
			try {
				await post(`api/admin/runs/${r.id}/approve`, { preview: p?.mark });
			} catch (error) {
				if (error.code !== 'run_not_waiting' && error.code !== 'preview_changed') throw error;
				const newer = /\brun ([\w-]+), which is newer/.exec(error.message)?.[1];
				fill(place, h('div', { class: 'notice warn', role: 'alert' }, h('p', {}, h('strong', {}, 'It was not approved: '), error.message, '.'),
					newer ? h('p', {}, link('Go to the newer run', `runs/${newer}`)) : h('p', {}, link('Runs that wait for approval', 'runs', { state: 'needs_approval' }))));
			}
			read();
		},
	});
}

const outcomes = {
	new: ['New', 'good'], updated: ['Changed', 'good'], unchanged: ['Unchanged', ''], failed: ['Failed', 'bad'], pending: ['Not yet', 'busy'],
	create: ['Would be made', 'busy'], change: ['Would change', 'busy'], move: ['Would move', 'busy'], end: ['Would end', 'warn'], none: ['Would stay', ''],
};

/** resultTable shows what became, or would become, of servers. */
export function resultTable(caption) {
	const t = table(caption, [['Server', 'name'], ['Result', 'note']], { away: true });
	return { ...t, result: (r) => t.row([serverLink(r.id), [h('span', { class: `badge ${outcomes[r.result]?.[1] ?? ''}` }, outcomes[r.result]?.[0] ?? r.result), r.error || r.note ? h('div', {}, sentence(r.error?.message ?? r.note)) : null]]) };
}

/** resultsList is read once somebody opens it: a sweep's may be long. */
function resultsList(id, signal) {
	const t = resultTable('Each server of the run');
	const list = pages({
		element: t.element, body: t.body, signal, empty: h('p', {}, 'The run has to do with no server.'),
		read: async ({ cursor, again, signal }) => {
			const page = await get(`api/admin/runs/${id}/servers`, { cursor, limit: again ? 1000 : null }, signal);
			return { items: page.items, next: page.nextCursor };
		},
		item: t.result,
	});
	let read = false;
	const element = h('details', { class: 'card', ontoggle: () => { if (element.open && !read) { read = true; list.load(); } } },
		h('summary', {}, h('h2', {}, 'Each server')), list.outside);
	return { element, refresh: () => { if (read) list.renew(); } };
}
