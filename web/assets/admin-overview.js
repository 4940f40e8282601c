// How everything stands, at a glance.
import { get, post, url } from './api.js';
import { fill, h, say } from './dom.js';
import { ago, money, number, plural, sentence } from './format.js';
import { reasonLabel, statuses } from './words.js';
import { area, button, counts, failure, figures, link, meter, runBadge, runName, section, table, to } from './admin-parts.js';

/** parts of the coverage: they add up to the total. [name, class, servers, filter of the list] */
function partsOf(c, leaks) {
	const unbilled = leaks.reasons.filter((r) => r.status === 'native').reduce((n, r) => n + r.servers, 0); // of SkyPANEL's own
	const off = Object.entries(c.off).sort(([, a], [, b]) => b - a)
		.map(([why, n]) => [why === 'unknown' ? 'Not billed, nobody said why' : `Not billed: ${reasonLabel(why)}`, `off ${why}`, n, { status: 'external', billing: 'off', reason: why === 'unknown' ? '' : why }]);
	return [
		['External, billed', 'on', c.on, { status: 'external', billing: 'on' }],
		['Ordered in SkyPANEL', 'native', c.native - unbilled, { status: 'native' }],
		['Ordered, switched off by SkyPANEL', 'off disabled_by_skypanel', unbilled, { status: 'native', reason: 'disabled_by_skypanel' }],
		...off,
		...['settling', 'unlinked', 'conflict'].map((s) => [statuses[s].label, s, c[s], { status: s }]),
	].filter(([, , n]) => n > 0);
}

/** coverage shows an overview's servers by how they are billed: the parts add up. */
export function coverage({ coverage: c, awaitingApproval, revenue }) {
	if (c.total === 0) return h('p', { class: 'soft' }, 'No server is known yet. A sweep asks VirtFusion for all of them.');
	const parts = partsOf(c, revenue.leakingMonthly);
	const bar = h('div', { class: 'coverage', 'aria-hidden': 'true' }); // the table says the same, and has the same links
	const t = table('Servers by how they are billed', ['Part', ['Servers', 'number'], ['Share', 'number']], { away: true });
	parts.forEach(([name, kind, n, filter], i) => {
		const segment = h('a', { class: `part ${kind}`, href: to('servers', filter), title: `${name}: ${number(n)}`, tabIndex: -1 });
		segment.style.flexGrow = n;
		bar.append(segment);
		t.body.append(h('tr', {},
			h('th', { scope: 'row' }, h('span', { class: `swatch ${kind}` }), link(name, 'servers', filter)),
			h('td', { class: 'number' }, h('span', { class: 'soft', 'aria-hidden': 'true' }, i > 0 ? '+ ' : ''), number(n)),
			h('td', { class: 'number soft' }, `${(n / c.total * 100).toFixed(n / c.total < 0.1 ? 1 : 0)} %`)));
	});
	const sum = parts.reduce((all, [, , n]) => all + n, 0);
	t.element.className = 'sum';
	t.element.append(h('tfoot', {}, h('tr', {}, h('th', { scope: 'row' }, link('All servers', 'servers')),
		h('td', { class: 'number' }, h('span', { 'aria-hidden': 'true' }, sum === c.total ? '= ' : '≠ '), number(c.total)), h('td', {}))));
	return [bar, h('div', { class: 'halves' }, t.element, h('div', { class: 'stack' }, leaking(revenue.leakingMonthly), awaitingApproval > 0
		? h('p', { class: 'notice warn' }, link(plural(awaitingApproval, 'server'), 'servers', { awaiting: 'true' }), ` of them wait${awaitingApproval === 1 ? 's' : ''} for approval of what would change.`) : null))];
}

/** leaking shows which servers run though nobody pays for them. */
function leaking({ servers, reasons, effective, list }) {
	const some = reasons.filter((r) => r.servers > 0);
	if (some.length === 0) return h('p', { class: 'soft dot good' }, 'No server runs unbilled that should be billed.');
	const t = table('Running, and not billed by mistake', ['Why', ['Servers', 'number'], ['A month', 'number']]);
	const amount = (e, l) => [money(e), Number(e) !== Number(l) ? h('div', { class: 'small soft' }, `list ${money(l)}`) : null];
	for (const r of some) {
		t.body.append(h('tr', {}, h('th', { scope: 'row' }, link(`${statuses[r.status]?.label ?? r.status}, ${reasonLabel(r.reason)}`, 'servers', { status: r.status, reason: r.reason })),
			h('td', { class: 'number' }, number(r.servers)), h('td', { class: 'number' }, r.withoutPrice === r.servers ? 'unknown' : amount(r.effective, r.list))));
	}
	t.element.className = 'sum';
	t.element.append(h('tfoot', {}, h('tr', {}, h('th', { scope: 'row' }, 'Leaking, as far as is known'), h('td', { class: 'number' }, number(servers)), h('td', { class: 'number' }, amount(effective, list)))));
	return t.element;
}

// --- what needs somebody ---

/** seconds as people say them. */
const lasting = (s) => (s < 120 ? plural(Math.round(s), 'second') : s < 7200 ? plural(Math.round(s / 60), 'minute') : plural(Math.round(s / 3600), 'hour'));

/** alarms are what needs somebody: [tone, what, next step, link]. */
function alarms(o) {
	const all = [];
	const add = (tone, what, next, ...links) => all.push({ tone, what, next, links });
	for (const r of o.waiting) add('warn', `A ${runName(r).toLowerCase()} waits for approval.`, sentence(r.preview?.asks ?? 'it would change more than it may unasked'), link('Look and decide', `runs/${r.id}`));
	sweepAlarms(o, add);
	if (o.lagSeconds > 60) add('bad', `${plural(o.lag, 'event')} wait, the oldest for ${lasting(o.lagSeconds)}.`, 'Look whether a process with the role “reconcile” is running and reaches the database; check the set-up below.');
	if (o.lag === null || o.deadLetters === null) add('warn', 'Nobody can say how many events wait.', 'The broker does not answer this page; check the set-up below.');
	if (o.deadLetters > 0) add('bad', `${plural(o.deadLetters, 'event')} could not be reconciled.`, 'Mend what the reasons say, then requeue them.', link('Look at them', 'dead-letters'));
	if (o.unclearCharges > 0) add('bad', `Of ${plural(o.unclearCharges, 'first charge')} nobody knows whether the credit was taken.`, 'Look in VirtFusion, and say what became of each. Nothing is taken again meanwhile.', link('Look at them', 'charges'));
	for (const r of o.revenue.leakingMonthly.reasons) {
		if (r.servers === 0) continue;
		if (r.reason === 'unpriced') add('warn', `${plural(r.servers, 'server runs', 'servers run')} without a price.`, 'Give their packages a price in SkyPANEL, or bill them as another package.', link('Package by package', 'attention'));
		else add('bad', `${plural(r.servers, `${r.status} server runs`, `${r.status} servers run`)} which SkyPANEL does not bill.`, `Its billing record is switched off or missing. ${r.withoutPrice === r.servers ? 'What that costs is not known' : `That is ${money(r.effective)} a month which nobody pays`}${r.withoutPrice > 0 && r.withoutPrice < r.servers ? `, not counting ${number(r.withoutPrice)} whose price is not known` : ''}. Check whether it was meant.`, link('Look at them', 'servers', { status: r.status, reason: r.reason }));
	}
	if (o.coverage.conflict > 0) add('bad', `The records disagree about ${plural(o.coverage.conflict, 'server')}.`, 'Nothing is billed anew until a person has decided.', link('Decide', 'attention'));
	if (o.coverage.unlinked > 0) add('warn', `${plural(o.coverage.unlinked, 'server belongs', 'servers belong')} to nobody in SkyPANEL.`, 'Link their owners to customers; it is picked up within a minute.', link('See whose', 'attention'));
	return all;
}

function sweepAlarms({ lastSweep: s, sweeping }, add) {
	if (!sweeping) add('bad', 'No process sweeps.', 'Start one with the role “sweep”: without it nothing finds what the webhooks missed.');
	if (!s) return add('warn', 'There has been no sweep yet.', 'Press “Sweep now” to compare all of VirtFusion with the books.');
	const its = link('What it says', `runs/${s.id}`);
	if (s.state === 'failed' || s.state === 'incomplete') add(s.state === 'failed' ? 'bad' : 'warn', `The last sweep ${s.state === 'failed' ? 'failed' : 'was incomplete'}: ${s.note}.`, sentence(s.problems[0]?.message ?? 'sweep again'), its);
	else if (Date.now() - new Date(s.endedAt ?? s.startedAt) > 3600e3) add('warn', ['The last sweep is of ', ago(s.startedAt), '.'], 'Press “Sweep now”, and look whether SWEEP_INTERVAL is meant to be so long.', its);
}

const notices = (all) => (all.length === 0
	? h('p', { class: 'notice good calm' }, h('strong', {}, 'Nothing needs you.'), ' The books are in step with VirtFusion.')
	: h('ul', { class: 'alarms' }, all.map((a) => h('li', { class: `notice ${a.tone}` }, h('p', {}, h('strong', {}, a.what), ' ', a.next), a.links))));

function numbers({ revenue, lag, lagSeconds, lastSweep: s }) {
	const { recordedMonthly: r, leakingMonthly: l } = revenue;
	const unpriced = l.reasons.reduce((n, x) => n + x.withoutPrice, 0);
	return figures(
		['External, billed a month', money(r.effective), `as charged; ${money(r.list)} by list price`],
		['Leaking a month', l.servers > 0 && unpriced === l.servers ? 'not known' : money(l.effective), l.servers === 0 ? 'no server that runs goes unbilled' : [`${plural(l.servers, 'server')}`, unpriced > 0 ? `, ${number(unpriced)} without a price` : '', ': ', link('needs a look', 'attention')], l.servers > 0 ? 'warn' : ''],
		['Events that wait', number(lag), lagSeconds === null ? 'the broker does not say' : lag > 0 ? `the oldest for ${lasting(lagSeconds)}` : 'all are reconciled'],
		s ? ['Last sweep', h('span', {}, runBadge(s)), [ago(s.startedAt), counts(s) ? `: ${counts(s)}` : '', ' – ', link('details', `runs/${s.id}`)]] : ['Last sweep', 'none yet', null]);
}

// --- charts and files ---

const charts = [
	['external', 'External servers found, by day'],
	['revenue', 'Revenue recorded, by day'],
	['events', 'Events that told something new, by hour'],
	['lag', 'Events that waited, the most in each hour'],
];

function chartsOf() {
	const grid = h('div', { class: 'charts' });
	const select = h('select', { onchange: () => draw() }, [7, 30, 90].map((n) => h('option', { value: n, selected: n === 30 }, `${n} days`)));
	const draw = () => fill(grid, charts.map(([name, alt]) =>
		h('figure', { tabIndex: 0, 'aria-label': alt }, h('img', { onload: (event) => { event.target.parentElement.scrollLeft = 1e4; }, loading: 'lazy', width: 800, height: 320, alt: `${alt}, the last ${select.value} days`, src: url(`api/admin/charts/${name}.svg`, { days: select.value }).href }))));
	draw();
	return h('section', { class: 'card stack' },
		h('div', { class: 'row middle spread' }, h('h2', {}, 'As time goes by'), h('label', { class: 'beside' }, h('span', {}, 'Of the last'), select)), grid);
}

function files() {
	const file = (path, text, what) => h('li', {}, h('a', { href: url(path).href, download: '' }, text), h('span', { class: 'soft' }, ` – ${what}`));
	return section('For spreadsheets', h('ul', { class: 'points' },
		file('api/admin/servers.csv', 'All servers (CSV)', 'as they are known now'),
		file('api/admin/reports/external.csv', 'External servers with prices (CSV)', 'list price, what is charged, since when, and by which run')));
}

function doctor() {
	const place = h('div');
	const found = h('div', { class: 'stack', role: 'status' });
	const check = button('Check the set-up', place, async () => {
		const { ok, checks } = await get('api/admin/doctor');
		fill(found, h('p', { class: `notice ${ok ? 'good' : 'warn'}` }, ok ? 'Every check passed.' : `${plural(checks.filter((c) => !c.ok).length, 'check')} of ${checks.length} did not pass.`),
			h('ul', { class: 'checks' }, [...checks].sort((a, b) => a.ok - b.ok).map((c) => h('li', {},
				h('span', { class: `dot ${c.ok ? 'good' : 'bad'}` }, h('strong', {}, c.check), h('span', { class: 'away' }, c.ok ? ' passed' : ' failed')), `: ${c.detail}`,
				c.remedy ? h('div', {}, '→ ', c.remedy) : null))));
	});
	return section('The set-up', h('p', { class: 'soft' }, 'Looks at the database, VirtFusion’s API, the webhook’s tokens and the passes over the books. Changes nothing.'), h('p', {}, check), place, found);
}

// --- the view ---

export function overview(page) {
	const place = h('div');
	const start = (dryRun) => async () => {
		const run = await post('api/admin/servers/sync', { dryRun });
		location.hash = to(`runs/${run.id}`);
	};
	page.aside.append(button('Dry run', place, start(true)), button('Sweep now', place, start(false), 'first'));

	const needs = h('p', { class: 'away', role: 'status' });
	const running = h('div', { class: 'stack', hidden: true });
	const meters = new Map();
	function runs(all) {
		for (const run of all) {
			if (run.state !== 'running') {
				meters.get(run.id)?.element.remove();
				meters.delete(run.id);
			} else if (meters.has(run.id)) meters.get(run.id).update(run);
			else {
				const m = meter(run);
				const element = h('div', { class: 'card stack tight' }, h('div', { class: 'row middle spread' }, h('strong', {}, link(runName(run), `runs/${run.id}`)), h('span', { class: 'small soft' }, 'asked by ', run.requestedBy)), m.element);
				meters.set(run.id, { element, update: m.update });
				running.append(element);
			}
		}
		running.hidden = meters.size === 0;
	}
	// 'stands' brings each of these its part, every few seconds.
	const parts = [(o) => notices(alarms(o)), numbers].map((show) => area(null, show));
	const covered = area(null, coverage);
	let failed = false; // the last time that it was read
	page.stands = (o) => {
		if (failed) fill(place);
		failed = false;
		parts[0].paint({ ...o, minute: Math.floor(Date.now() / 60e3) }); // what is too old depends on when one looks
		parts[1].paint(o);
		covered.paint(o);
		const n = alarms(o).length;
		say(needs, n === 0 ? 'Nothing needs you.' : `${plural(n, 'thing needs', 'things need')} you.`);
		if (o.lastSweep) runs([o.lastSweep]);
	};
	page.fails = (error) => { failed = true; fill(place, failure(error, page.stand)); };
	page.hear = (m) => {
		if (m.type === 'snapshot') runs(m.runs);
		if (m.type === 'run' || m.type === 'run_ended') runs([m.run]);
	};
	page.root.append(place, needs, parts[0].element, h('div', { class: 'stack' }, running, parts[1].element), section('Coverage', covered.element), chartsOf(), files(), doctor());
}
