// Whether every server is accounted for: today's sum, the days that were kept, and
// the full proofs that hold all of it against VirtFusion.
import { call, get, url } from './api.js';
import { fill, h, say } from './dom.js';
import { ago, number, plural, sentence, took, when } from './format.js';
import { reasonLabel } from './words.js';
import { area, button, failure, figures, link, pages, problemsOf, section, serverLink, table, to, userLink } from './admin-parts.js';
import { coverage } from './admin-overview.js';

const states = { running: ['Running', 'busy'], complete: ['Complete', 'good'], incomplete: ['Incomplete', 'warn'] };
const again = 2000; // ms between two looks at a proof that runs

/** badge of a proof: a complete one that found something is no good news. */
function badge(p) {
	const [label, tone] = states[p.state] ?? [p.state, ''];
	return [h('span', { class: `badge ${p.state === 'complete' && p.mismatches > 0 ? 'bad' : tone}` }, label),
		p.mismatches > 0 ? [' ', h('span', { class: 'badge bad' }, plural(p.mismatches, 'mismatch', 'mismatches'))] : null];
}

const agreement = (p) => (p.state === 'running' ? '' : `${number(p.agree)} of ${number(p.coverage.total)} agree`);

/** prove starts a proof, and goes to it. */
const prove = (place) => button('Prove now', place, async () => {
	const { data } = await call('POST', 'api/admin/proofs');
	location.hash = to(`proofs/${data.id}`);
}, 'first');

// --- the days ---

const off = (c) => Object.values(c.off).reduce((n, x) => n + x, 0);
const day = 24 * 3600e3;

/** withGaps are the days, newest first, and between them those on which nobody looked. */
function withGaps(days) {
	const all = [{ day: new Date().toISOString().slice(0, 10) }]; // what is to come today is no gap
	for (const d of days) {
		for (let before = all.at(-1); before && Date.parse(before.day) - Date.parse(d.day) > day; before = all.at(-1)) {
			all.push({ day: new Date(Date.parse(before.day) - day).toISOString().slice(0, 10), gap: true });
		}
		if (all.at(-1).day === d.day) all.pop();
		all.push(d);
	}
	return all.filter((d) => d.gap || d.coverage);
}

function counted({ sweep: s }) {
	if (s === null) return h('span', { class: 'soft' }, 'no complete sweep');
	if (!s.mismatch) return h('span', { class: 'dot good' }, number(s.virtFusionTotal));
	const known = s.knownLeast === s.knownMost ? number(s.knownLeast) : `${number(s.knownLeast)} to ${number(s.knownMost)}`;
	return [h('span', { class: 'badge bad' }, number(s.virtFusionTotal)), h('div', { class: 'small' }, `known: ${known}; `, link('the sweep', `runs/${s.runId}`))];
}

function daysTable(days) {
	const all = withGaps(days);
	const t = table('Servers at the end of each day (UTC), newest first', [['Day', 'keep'], ['All', 'number'], ['Billed', 'number'], ['SkyPANEL’s own', 'number'], ['Not billed', 'number'], ['Others', 'number'], ['VirtFusion counted', 'number']]);
	const row = (d) => {
		if (d.gap) return t.row([d.day, '–', '–', '–', '–', '–', h('span', { class: 'badge warn' }, 'nobody looked')]);
		const c = d.coverage;
		const rest = [['settling', c.settling], ['of nobody', c.unlinked], ['in doubt', c.conflict]].filter(([, n]) => n > 0);
		const reasons = Object.entries(c.off).map(([why, n]) => `${number(n)} ${reasonLabel(why)}`);
		const sum = c.on + c.native + off(c) + c.settling + c.unlinked + c.conflict;
		return t.row([d.day, [h('strong', {}, number(c.total)), sum === c.total ? null : h('div', { class: 'badge bad' }, `adds up to ${number(sum)}`)], number(c.on), number(c.native),
			[number(off(c)), reasons.length > 0 ? h('div', { class: 'small soft' }, reasons.join(', ')) : null],
			[number(c.settling + c.unlinked + c.conflict), rest.length > 0 ? h('div', { class: 'small soft' }, rest.map(([what, n]) => `${number(n)} ${what}`).join(', ')) : null],
			counted(d)]);
	};
	t.body.append(...all.map(row));
	const gaps = all.filter((d) => d.gap).length;
	const odd = days.filter((d) => d.sweep?.mismatch).length;
	return [
		gaps > 0 ? h('p', { class: 'notice warn' }, `On ${plural(gaps, 'day')} nobody looked: no process with the role “api” ran.`) : null,
		odd > 0 ? h('p', { class: 'notice bad' }, `On ${plural(odd, 'day')} VirtFusion counted other servers than were known.`) : null,
		h('div', { class: 'scroll', tabIndex: 0, role: 'region', 'aria-label': 'Servers by day' }, t.element),
	];
}

function kept(page) {
	const select = h('select', { onchange: () => draw() }, [[7, '7 days'], [30, '30 days'], [90, '90 days'], [365, 'year']].map(([n, label]) => h('option', { value: n, selected: n === 30 }, label)));
	const picture = h('div', { class: 'charts' });
	const csv = h('a', { download: '' }, 'All of it (CSV)');
	const a = area((signal) => get('api/admin/coverage', { days: select.value }, signal), (days) => (days.length === 0
		? h('p', { class: 'soft' }, 'No day was kept yet. The present one is written down within a minute of the start.') : daysTable(days)));
	function draw() {
		const alt = 'Servers that are billed, or SkyPANEL’s own, and all others, by day';
		fill(picture, h('figure', { tabIndex: 0, 'aria-label': alt }, h('img', { onload: (event) => { event.target.parentElement.scrollLeft = 1e4; }, loading: 'lazy', width: 800, height: 320, alt, src: url('api/admin/charts/coverage.svg', { days: Math.min(select.value, 90) }).href })));
		csv.href = url('api/admin/coverage.csv', { days: select.value }).href;
		a.load();
	}
	const element = h('section', { class: 'card stack' },
		h('div', { class: 'row middle spread' }, h('h2', {}, 'Day by day'), h('div', { class: 'row middle' }, csv, h('label', { class: 'beside' }, h('span', {}, 'Of the last'), select))),
		picture, a.element);
	return { element, draw, load: a.load };
}

// --- the proofs ---

/** proofs is the view of all of it. */
export function proofs(page) {
	const place = h('div');
	page.aside.append(prove(place));
	const today = area(null, coverage);
	page.stands = (o) => today.paint({ coverage: o.coverage, awaitingApproval: o.awaitingApproval, revenue: o.revenue });
	page.fails = (error) => fill(place, failure(error, page.stand));
	const t = table('Full proofs, newest first', [['Began', 'name'], 'Result', ['By', 'keep'], ['Servers', 'list'], ['What it says', 'note']], { away: true });
	const list = pages({
		element: t.element, body: t.body, label: 'Show older', signal: page.signal,
		read: async ({ cursor, signal }) => {
			const found = await get('api/admin/proofs', { cursor, limit: 10 }, signal);
			return { items: found.items, next: found.nextCursor };
		},
		item: (p) => t.row([
			h('a', { href: to(`proofs/${p.id}`), 'aria-label': `The proof of ${p.startedAt}` }, when(p.startedAt)), badge(p), p.requestedBy, agreement(p), h('span', { class: 'small soft' }, sentence(p.note)),
		]),
		empty: h('p', {}, 'Nothing was proved yet. That comes once a week by itself, a week after the first sweep; or press “Prove now”.'),
	});
	const days = kept(page);
	page.hear = (m) => { if (m.type === 'run_ended' && m.run.kind === 'sweep') { list.renew(); days.load(); } };
	page.refresh = list.renew;
	page.root.append(
		h('p', { class: 'soft' }, 'Every server is one of these, and they add up. A full proof holds all of them against VirtFusion and SkyPANEL’s billing, and files what it saw. Proving changes nothing but what a sweep would.'),
		place, section('Now', today.element), h('section', { class: 'card stack' }, h('h2', {}, 'Full proofs'), list.outside), days.element);
	list.load();
	days.draw();
}

/** fields in people's words, where the name alone does not say it. */
const fields = { existence: 'Whether it exists', billing: 'Whether it is billed', billed_user: 'Who is billed', total: 'How many servers there are', unsettled: 'A question that VirtFusion has not answered' };

function mismatchesOf(p) {
	if (p.state === 'running') return null;
	if (p.mismatches === 0) {
		return h('p', { class: `notice ${p.state === 'complete' ? 'good' : ''}` }, p.state === 'complete' ? h('strong', {}, 'Nothing stayed different.') : 'Nothing stayed different among what it saw.');
	}
	const t = table('What stayed different after a second look', [['Server', 'name'], 'Customer', 'What', ['We say', 'note'], ['They say', 'note']]);
	t.body.append(...p.details.map((d) => t.row([d.serverId === null ? 'all' : serverLink(d.serverId), d.serverId === null ? '' : userLink(d.userId), fields[d.field] ?? d.field.replaceAll('_', ' '), d.ours, d.theirs])));
	const mends = p.details.filter((d) => d.serverId !== null);
	return [
		h('p', { class: 'notice bad' }, h('strong', {}, `${plural(p.mismatches, 'mismatch', 'mismatches')}.`), ' A sweep and up to three looks did not mend this. See the story of each server, mend the cause, then prove again: a complete proof that finds nothing ends the alarm.'),
		h('div', { class: 'scroll', tabIndex: 0, role: 'region', 'aria-label': 'Mismatches' }, t.element),
		mends.length > 0 && p.details.length >= 1000 ? h('p', { class: 'small soft' }, 'The first 1,000 are listed; the count is of all.') : null,
	];
}

/** sumOf the servers as they stood at its end. */
function sumOf(c) {
	const parts = [['External, billed', c.on], ['SkyPANEL’s own', c.native], ...Object.entries(c.off).map(([why, n]) => [`Not billed: ${reasonLabel(why)}`, n]), ['New', c.settling], ['Unlinked', c.unlinked], ['In doubt', c.conflict]].filter(([, n]) => n > 0);
	const sum = parts.reduce((all, [, n]) => all + n, 0);
	const t = table('How the servers stood at its end', ['Part', ['Servers', 'number']], { away: true });
	t.element.className = 'sum';
	t.body.append(...parts.map(([name, n], i) => h('tr', {}, h('th', { scope: 'row' }, name), h('td', { class: 'number' }, h('span', { class: 'soft', 'aria-hidden': 'true' }, i > 0 ? '+ ' : ''), number(n)))));
	t.element.append(h('tfoot', {}, h('tr', {}, h('th', { scope: 'row' }, 'All servers'), h('td', { class: 'number' }, h('span', { 'aria-hidden': 'true' }, sum === c.total ? '= ' : '≠ '), number(c.total)))));
	return t.element;
}

function stands(p) {
	const known = p.knownLeast === p.knownMost ? number(p.knownLeast) : `${number(p.knownLeast)} to ${number(p.knownMost)}`;
	return [
		h('p', { class: 'standing' }, badge(p), ' ', sentence(p.note)),
		p.state === 'running' ? null : figures(
			['Agree', number(p.agree), `of ${number(p.coverage.total)}`], ['Mismatches', number(p.mismatches), null, p.mismatches > 0 ? 'bad' : ''],
			p.awaitingApproval > 0 ? ['Wait for approval', number(p.awaitingApproval), null, 'warn'] : null,
			['VirtFusion counts', number(p.virtFusionTotal), p.totalAgrees === null ? 'not compared' : `${known} known then`, p.totalAgrees === false ? 'bad' : ''],
			['Moved meanwhile', number(p.moved), 'agreed at the next look'], ['Mended', number(p.mended), 'by the fresh look']),
		h('p', { class: 'small soft' }, 'Began ', when(p.startedAt), ' (', ago(p.startedAt), ')', p.endedAt ? `, took ${took(p.startedAt, p.endedAt)}` : '', `; asked by ${p.requestedBy}; ${plural(p.calls, 'request')} to VirtFusion`,
			p.sweepRunId ? ['; ', link('the sweep before it', `runs/${p.sweepRunId}`)] : '', '; id ', h('code', {}, p.id)),
	];
}

/** proof is one of them. */
export function proof(page) {
	const [id] = page.args;
	const place = h('div');
	const bar = h('progress', { 'aria-label': 'How far the proof is', hidden: true });
	const status = h('p', { class: 'away', role: 'status' });
	let timer = 0;
	let before = null;
	const standing = area(null, stands);
	const found = area(null, (p) => [p.problems.length > 0 ? section('What it could not see', problemsOf(p.problems)) : null,
		p.state === 'running' ? null : section('What stayed different', mismatchesOf(p)), p.state === 'running' ? null : section('How the servers stood at its end', sumOf(p.coverage))]);
	async function read() {
		clearTimeout(timer);
		let p;
		try {
			p = await get(`api/admin/proofs/${id}`, {}, page.signal);
		} catch (error) {
			if (error.name !== 'AbortError') fill(place, failure(error, read));
			if (error.status === 404) fill(page.root, place, h('p', {}, link('All proofs', 'proofs')));
			return;
		}
		fill(place);
		page.title(`Proof ${id.slice(0, 6)}`);
		bar.hidden = p.state !== 'running';
		if (p.pages > 0) Object.assign(bar, { max: p.pages, value: p.page });
		else bar.removeAttribute('value');
		standing.paint(p);
		found.paint({ ...p, page: 0, calls: 0, note: '' });
		say(status, before === 'running' && p.state !== 'running' ? `The proof has ended: ${p.note}.` : '');
		before = p.state;
		if (p.state === 'running') timer = setTimeout(read, again);
	}
	page.signal.addEventListener('abort', () => clearTimeout(timer));
	page.refresh = read;
	page.aside.append(link('All proofs', 'proofs'));
	page.root.append(place, status, section('As it stands', bar, standing.element), found.element);
	read();
}
