// What the views of the control room are made of.
import { get } from './api.js';
import { fill, h, keeping } from './dom.js';
import { money, number, plural, sentence } from './format.js';
import { pagedList } from './list.js';
import { kinds, phases, reasonLabel, runStates, statuses } from './words.js';

// --- links ---

/** to is the address of a view, with those of the query's values that are there. */
export function to(path, query = {}) {
	const q = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== ''));
	return `#/${path}${q.size > 0 ? `?${q}` : ''}`;
}

export const link = (text, path, query) => h('a', { href: to(path, query) }, text);
export const userLink = (id) => (id === null || id === undefined ? h('span', { class: 'soft' }, 'nobody') : link(`user ${id}`, `users/${id}`));
export const serverLink = (id, name) => link(name || `Server ${id}`, `servers/${id}`);


// --- what goes wrong ---

/** refusals tells of 401 and 403: then it is not one view's trouble but the page's. */
export const refusals = new EventTarget();

/** failure says what is wrong, and lets people try again where that may help. */
export function failure(error, again) {
	if (error.status >= 400 && error.status < 500 && !error.passing) again = null; // it would fail again
	if (error.signedOut || error.code === 'forbidden') refusals.dispatchEvent(new CustomEvent('refused', { detail: error }));
	if (error.name !== 'ApiError') console.error(error);
	return h('div', { class: 'notice bad', role: 'alert' },
		h('p', {}, error.name === 'ApiError' ? sentence(error.message) : `This page has a fault: ${error.message}. Reload it.`),
		again || error.requestId ? h('div', { class: 'row middle' },
			again ? h('button', { type: 'button', onclick: again }, 'Try again') : null,
			error.requestId ? h('span', { class: 'small soft' }, 'Request ', h('code', {}, error.requestId)) : null) : null);
}

/**
 * act does what a button is for: the button rests meanwhile, and a failure is
 * said in a place beside it.
 */
async function act(button, place, run) {
	if (button.disabled) return;
	button.disabled = true;
	button.setAttribute('aria-busy', 'true');
	fill(place);
	try {
		await run();
	} catch (error) {
		if (error.name !== 'AbortError') fill(place, failure(error, error.passing ? () => act(button, place, run) : null));
	} finally {
		button.disabled = !(button.may?.() ?? true);
		button.removeAttribute('aria-busy');
		if (document.activeElement === document.body && button.isConnected) { // whoever pressed it stays near
			const stay = button.disabled ? button.closest('section, form, .card') ?? place : button;
			if (stay !== button) stay.tabIndex = -1;
			stay.focus({ preventScroll: true });
		}
	}
}

/** button that does something; its failures are said in place. It rests while `may` says no. */
export function button(text, place, run, kind = '', may = () => true) {
	return h('button', { type: 'button', class: kind, disabled: !may(), may, onclick: (event) => act(event.currentTarget, place, run) }, text);
}

/** ask puts a question: nothing happens unless somebody says yes. */
export function ask({ title, body, yes, danger = false, run }) {
	const place = h('div');
	const close = () => dialog.close();
	const confirm = button(yes, place, async () => { await run(); close(); }, danger ? 'danger' : 'first');
	const dialog = h('dialog', { 'aria-labelledby': 'ask-title', onclose: () => {
		dialog.remove();
		if (document.activeElement === document.body) document.querySelector('#view h1').focus({ preventScroll: true }); // what asked is no more
	} },
		h('header', {}, h('h2', { id: 'ask-title' }, title)),
		h('div', { class: 'body stack' }, body, place),
		h('footer', {}, h('button', { type: 'button', autofocus: true, onclick: close }, 'Not now'), confirm));
	document.body.append(dialog);
	dialog.showModal();
}

// --- what is shown and renewed ---

/** renew replaces what is in a place; who is in there keeps the focus, and what was opened stays open. */
const renew = (place, ...children) => keeping(place, () => fill(place, ...children), () => document.querySelector('#view h1'));

/**
 * area is a part of a view that is read and shown, and read again: what was
 * shown stays until there is something new. paint shows what came by another way;
 * without `read` all does.
 */
export function area(read, show) {
	const problem = h('div');
	const content = h('div', { class: 'stack' }, read ? h('p', { class: 'soft' }, 'Loading …') : null);
	const element = h('div', { class: 'stack' }, problem, content);
	let request = null;
	let known;
	function paint(data) {
		const now = JSON.stringify(data);
		if (now !== known) renew(content, show(data));
		known = now;
	}
	async function load() {
		request?.abort();
		const mine = request = new AbortController();
		element.setAttribute('aria-busy', 'true');
		try {
			const data = await read(mine.signal);
			if (request !== mine) return;
			fill(problem);
			paint(data);
		} catch (error) {
			if (error.name === 'AbortError') return;
			fill(problem, failure(error, load));
			if (known === undefined) fill(content);
		} finally {
			if (request === mine) element.removeAttribute('aria-busy');
		}
	}
	return { element, load, paint };
}

/**
 * pages shows a list that comes in pages, with what goes wrong above it, and a button for
 * the next page below: see pagedList, which takes the rest.
 */
export function pages({ element, body, empty, label = 'Show more', changed = () => {}, ...rest }) {
	const problem = h('div');
	const none = h('div', { class: 'empty', hidden: true }, empty);
	const more = h('button', { type: 'button', hidden: true }, label);
	element.hidden = true;
	const list = pagedList({
		...rest, body, more,
		trouble: (error, again) => fill(problem, error === null ? null : failure(error, again)),
		busy(yes) {
			if (yes) element.setAttribute('aria-busy', 'true');
			else element.removeAttribute('aria-busy');
		},
		changed(now) {
			element.hidden = now.size === 0;
			none.hidden = now.size > 0;
			changed(now);
		},
	});
	return { ...list, outside: h('div', { class: 'stack' }, problem, element, none, h('p', { class: 'more' }, more)) };
}

/**
 * table with a caption. A head is a text, or [text, class]; row makes a row of
 * cells, each of which knows its head, for screens that have no room for columns.
 */
export function table(caption, heads, { away = false } = {}) {
	const all = heads.map((head) => (Array.isArray(head) ? head : [head, '']));
	const body = h('tbody');
	const element = h('table', { class: 'cards' }, h('caption', { class: away ? 'away' : '' }, caption),
		h('thead', {}, h('tr', {}, all.map(([text, kind]) => h('th', { scope: 'col', class: kind }, text)))), body);
	const row = (cells, props) => h('tr', props, cells.map((cell, i) => h('td', { class: all[i][1], 'data-label': all[i][0] },
		h('div', {}, cell))));
	return { element, body, row };
}

/** figures are numbers with names: [name, value, more, class]. */
export function figures(...all) {
	return h('dl', { class: 'figures' }, all.filter(Boolean).map(([name, value, more, kind]) =>
		h('div', { class: kind ?? '' }, h('dt', {}, name), h('dd', { class: typeof value === 'string' && value.length < 16 ? '' : 'text' }, value), more ? h('dd', { class: 'more-of' }, more) : null)));
}

export const section = (title, ...children) => h('section', { class: 'card stack' }, h('h2', {}, title), children);

// --- servers ---

export function statusBadge(status) {
	const { label, hint } = statuses[status] ?? { label: status, hint: '' };
	return h('span', { class: `badge ${status}`, title: hint }, label);
}

/** billing of a server: whether, and why not. */
export function billing(server) {
	if (server.billing === 'on') return h('span', { class: 'badge on' }, 'Billed');
	const why = server.billingReason;
	const tone = why === 'unpriced' || why === 'disabled_by_skypanel' ? 'warn' : '';
	return [h('span', { class: `badge ${tone}` }, 'Not billed'), why ? h('div', { class: 'small soft' }, reasonLabel(why)) : null];
}

/** monthly price of a server: what is charged, and the list price where that is another. */
export function monthly(server) {
	if (server.billing !== 'on' || server.effectiveMonthly === null) return h('span', { class: 'soft' }, '–');
	return [h('strong', {}, money(server.effectiveMonthly)),
		Number(server.effectiveMonthly) !== Number(server.monthlyPrice) ? h('div', { class: 'small soft' }, `list ${money(server.monthlyPrice)}`) : null];
}

/** signed amount of money: what becomes more has a plus. */
export const signed = (amount) => (Number(amount) > 0 ? `+${money(amount)}` : money(amount).replace('-', '−'));

// --- runs ---

export const runBadge = (run) => h('span', { class: `badge ${runStates[run.state]?.tone ?? ''}` }, runStates[run.state]?.label ?? run.state);
export const runName = (run) => `${run.dryRun ? 'Dry run: ' : ''}${(kinds[run.kind] ?? run.kind)[run.dryRun ? 'toLowerCase' : 'toString']()}`;

/** counts of a run in a line. */
export function counts(run) {
	if (run.dryRun && run.preview && run.state !== 'running') return `would ${effects(run.preview)}`;
	const parts = [['new', run.new], ['changed', run.updated], ['unchanged', run.unchanged], ['failed', run.failed], ['held', run.held]]
		.filter(([, n]) => n > 0).map(([word, n]) => `${number(n)} ${word}`);
	return parts.join(' · ') || (run.state === 'running' ? '' : 'nothing to do');
}

function fraction(run) {
	const p = run.progress;
	switch (run.phase) {
		case 'listing': return [p.page, p.pages];
		case 'reviewing': return [p.reviewed, p.total || p.listed];
		case 'preview': case 'applying': case 'finishing': return [run.processed, run.expected];
	}
	return [0, 0];
}

/** meter shows how far a run is; its element stays, so that it moves. */
export function meter(run) {
	const bar = h('progress', { 'aria-label': `How far ${runName(run).toLowerCase()} ${run.id} is` });
	const text = h('p', { class: 'small soft' });
	const element = h('div', { class: 'stack tight' }, bar, text);
	function update(now) {
		const [done, all] = fraction(now);
		if (all > 0) {
			bar.max = all;
			bar.value = Math.min(done, all);
		} else bar.removeAttribute('value');
		text.textContent = `${phases[now.phase] ?? now.phase}${all > 0 ? `: ${number(done)} of ${number(all)}${now.phase === 'listing' ? ' pages' : ''}` : ' …'}`;
		element.hidden = now.state !== 'running';
	}
	update(run);
	return { element, update };
}

const rest = (ms, signal) => new Promise((resolve, reject) => {
	const timer = setTimeout(resolve, ms);
	signal?.addEventListener('abort', () => { clearTimeout(timer); reject(signal.reason); }, { once: true });
});

/** patiently reads a path, however long it takes: what passes is waited for until the signal says to leave. */
async function patiently(path, query, signal) {
	for (let pause = 1000; ; pause = Math.min(2 * pause, 15_000)) {
		try {
			return await get(path, query, signal);
		} catch (error) {
			if (!error.passing) throw error;
			await rest(Math.max(pause, 1000 * error.retryAfter), signal);
		}
	}
}

/** follow waits for a run's end, and tells how far it is meanwhile, until the signal says to leave. */
export async function follow(id, tell, signal) {
	for (;;) {
		const run = await patiently(`api/admin/runs/${id}`, {}, signal);
		tell(run);
		if (run.state !== 'running') return run;
		await rest(1000, signal);
	}
}

/**
 * ordering makes an order that is sent once: `send` orders something, and `wait` is
 * for what that has begun. Whatever went wrong while it was waited for, the next
 * try waits for the same, and orders nothing again.
 */
export function ordering(send, wait) {
	let begun = null;
	return async () => {
		begun ??= await send();
		try {
			const end = await wait(begun);
			begun = null;
			return end;
		} catch (error) {
			if (error.status === 404) begun = null; // it is no more
			throw error;
		}
	};
}

/** resultsOf a run: what became of each of its servers. */
export async function resultsOf(id, signal) {
	const all = [];
	let cursor = null;
	do {
		const page = await patiently(`api/admin/runs/${id}/servers`, { limit: 1000, cursor }, signal);
		all.push(...page.items);
		cursor = page.nextCursor;
	} while (cursor !== null);
	return all;
}

/** effects of a preview, as a sentence's parts. */
export function effects(p) {
	const parts = [['make', p.create, 'billing record'], ['change', p.change, 'billing record'], ['move', p.move, 'record'], ['end', p.end, 'record']]
		.filter(([, n]) => n > 0).map(([verb, n, what]) => `${verb} ${plural(n, what)}${verb === 'move' ? ' to another owner' : ''}`);
	return parts.length > 0 ? parts.join(', ') : 'change nothing';
}

/** sums are what a preview comes to in money, as a sentence. */
export function sums(p) {
	const parts = [];
	if (Number(p.effectiveMonthly) !== 0 || Number(p.listMonthly) !== 0) {
		parts.push(`${signed(p.effectiveMonthly)} a month as charged (${signed(p.listMonthly)} by list price), from ${plural(p.customers, 'customer')}.`);
	} else parts.push('No monthly amount changes.');
	if (p.firstCharges > 0) parts.push(`${plural(p.firstCharges, 'first charge')}, ${money(p.firstChargeAmount)} in all, ${p.firstCharges === 1 ? 'is' : 'are'} ${p.firstChargesCollected ? 'taken from the customers’ credit at once' : 'recorded and collected by nobody'}.`);
	if (Number(p.backBilled) > 0) parts.push(`SkyPANEL charges ${money(p.backBilled)} at once for the time before.`);
	if (p.createOff > 0) parts.push(`${number(p.createOff)} of the new records ${p.createOff === 1 ? 'is' : 'are'} not billed: ${Object.entries(p.off).map(([why, n]) => `${number(n)} ${reasonLabel(why)}`).join(', ')}.`);
	if (p.rows && Object.values(p.rows).some((n) => n > 0)) parts.push(`What changes costs ${money(p.effectiveAfter)} a month as charged, now ${money(p.effectiveBefore)} (by list price ${money(p.listAfter)}, now ${money(p.listBefore)}).`);
	return parts;
}

/** previewOf shows what a run would do to the books. */
export function previewOf(p, { many = true } = {}) {
	const parts = [
		figures(
			['Records to make', number(p.create), p.createOff > 0 ? `${number(p.createOff)} of them not billed` : null],
			['To change', number(p.change)], p.move > 0 ? ['To move', number(p.move), 'to another owner'] : null, ['To end', number(p.end)], ['Stay as they are', number(p.none)],
			['A month, as charged', signed(p.effectiveMonthly), `${signed(p.listMonthly)} by list price`]),
		h('ul', { class: 'points' }, sums(p).map((line) => h('li', {}, line)),
			p.missing > 0 ? h('li', {}, `${plural(p.missing, 'server')} not in the listing, and VirtFusion was not asked for ${p.missing === 1 ? 'it' : 'them'} yet.`) : null,
			many ? h('li', { class: 'soft' }, `${plural(p.changes, 'change')} for a fleet of ${number(p.fleet)}; more than ${number(p.limit)} need approval.`) : null),
	];
	if (p.largest.length > 0) parts.push(largest(p.largest));
	return parts;
}

function largest(all) {
	const t = table(all.length < 10 ? 'By what they change a month' : 'The ten largest changes a month', [['Server', 'name'], 'Customer', 'What', ['Before', 'number'], ['After', 'number'], ['Why', 'note']]);
	const amount = (effective, list) => [money(effective), Number(effective) !== Number(list) ? h('div', { class: 'small soft' }, `list ${money(list)}`) : null];
	const names = { create: 'make', change: 'change', move: 'move', end: 'end', none: 'stays' };
	for (const l of all) {
		t.body.append(t.row([serverLink(l.serverId, l.name), userLink(l.userId), names[l.effect] ?? l.effect,
			amount(l.effectiveBefore, l.listBefore), amount(l.effectiveAfter, l.listAfter), h('span', { class: 'small' }, sentence(l.why))]));
	}
	return h('div', { class: 'scroll' }, t.element);
}

/** problemsOf a run or an action, each with what to do. */
export function problemsOf(problems) {
	return problems.length === 0 ? null : h('ul', { class: 'stack tight' }, problems.map((p) =>
		h('li', { class: 'notice bad' }, p.serverId ? [serverLink(p.serverId), ': '] : null, sentence(p.message))));
}
