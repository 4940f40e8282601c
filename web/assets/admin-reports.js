// What was found and mended, month by month and quarter by quarter; for the screen and for paper.
import { get, url } from './api.js';
import { h } from './dom.js';
import { money, number, plural } from './format.js';
import { area, figures, table } from './admin-parts.js';

const monthNames = new Intl.DateTimeFormat('en', { month: 'long', year: 'numeric', timeZone: 'UTC' });
const moments = new Intl.DateTimeFormat('en-GB', { dateStyle: 'long', timeStyle: 'short', timeZone: 'UTC' });

/** nameOf a period: '2026-03' is March 2026, '2026-Q1' is quarter 1 of 2026. */
function nameOf(period) {
	const [year, part] = period.split('-');
	return part.startsWith('Q') ? `Quarter ${part.slice(1)} of ${year}` : monthNames.format(new Date(`${period}-01T00:00:00Z`));
}

/** words are those that there are. */
const words = (...all) => all.filter(Boolean).join('; ');

/** incidents of a period: what went wrong. Runs of which nothing is kept any more are not counted. */
const incidents = (p) => p.conflicts + p.deadLetters + p.mismatchDays + p.refundsDue + (p.failedRuns ?? 0);

const parts = (p) => [
	[p.conflicts, 'conflict'], [p.deadLetters, 'dead letter'], [p.failedRuns ?? 0, 'failed run'], [p.refundsDue, 'refund due', 'refunds due'], [p.mismatchDays, 'day with another count', 'days with another count'],
].filter(([n]) => n > 0).map(([n, one, many]) => plural(n, one, many)).join(', ');

/** incidentWords say what they were, and what nobody can count any more. */
const incidentWords = (p) => words(parts(p), p.failedRuns === null && 'failed runs are not kept any more');

/** cents of an amount as the API writes it: sums of floating-point numbers would drift. */
const cents = (amount) => Math.round(Number(amount) * 100);
const dollars = (n) => (n / 100).toFixed(2);

/** against the quarter before: what became more or less. */
function trend(now, before, value, show = number) {
	if (!before) return 'no quarter before';
	const d = value(now) - value(before);
	return d === 0 ? 'as in the quarter before' : `${d > 0 ? '+' : '−'}${show(Math.abs(d))} against the quarter before`;
}

function standing(p, before) {
	return figures(
		['External servers found', number(p.found), trend(p, before, (x) => x.found)],
		['Revenue recovered a month', money(p.recorded.effective), words('as charged', `${money(p.recorded.list)} by list price`, trend(p, before, (x) => cents(x.recorded.effective), (n) => money(dollars(n))))],
		['Leaks closed', number(p.leaksClosed), words(p.findingsCleared > 0 && `and ${plural(p.findingsCleared, 'finding')} of the watchdog`, trend(p, before, (x) => x.leaksClosed))],
		['Incidents', number(incidents(p)), words(incidentWords(p), trend(p, before, incidents)), incidents(p) > 0 ? 'warn' : ''],
		p.atEnd ? ['Leaking a month', money(p.atEnd.leaking), `on ${p.atEnd.day}, of ${plural(p.atEnd.servers, 'server')}`] : null);
}

const heads = [['Period', 'name'], ['Servers found', 'number'], ['Recovered a month', 'number'], ['Leaks closed', 'number'], ['Incidents', 'number'], ['Leaking at its end', 'number']];

/** line of a table: a month, or a sum. */
const line = (t, p, name, props) => t.row([
	name, number(p.found), [money(p.recorded.effective), Number(p.recorded.list) !== Number(p.recorded.effective) ? h('div', { class: 'small soft' }, `list ${money(p.recorded.list)}`) : null],
	number(p.leaksClosed), [number(incidents(p)), incidentWords(p) ? h('div', { class: 'small soft' }, incidentWords(p)) : null],
	p.atEnd ? [money(p.atEnd.leaking), h('div', { class: 'small soft' }, p.atEnd.day)] : h('span', { class: 'soft' }, 'not known'),
], props);

function quarter(q, months, before, present) {
	const name = nameOf(q.period);
	const t = table(`The months of ${name.toLowerCase()}`, heads, { away: true });
	for (const m of months) t.body.append(line(t, m, nameOf(m.period)));
	t.body.append(line(t, q, h('strong', {}, `${name}${present ? ', so far' : ''}`), { class: 'total' }));
	return h('section', { class: 'card stack quarter' }, h('h2', {}, name, present ? ' (so far)' : ''), standing(q, before), h('div', { class: 'scroll' }, t.element));
}

/** total of all that is shown. */
function total(report) {
	const sum = (value) => report.quarters.reduce((n, q) => n + value(q), 0);
	const t = table('All that is shown', heads.slice(0, 5), { away: true });
	const from = nameOf(report.months[0].period);
	const to = nameOf(report.months.at(-1).period);
	t.body.append(t.row([h('strong', {}, `${from} to ${to}`), number(sum((q) => q.found)), money(dollars(sum((q) => cents(q.recorded.effective)))), number(sum((q) => q.leaksClosed)), number(sum(incidents))], { class: 'total' }));
	return h('section', { class: 'card stack quarter' }, h('h2', {}, 'In all'), h('div', { class: 'scroll' }, t.element));
}

/** sheet is the report: the newest quarter first, or one quarter alone. `before` is the quarter before the first. */
function sheet({ before, ...report }, only) {
	const all = report.quarters.map((q, i) => ({ q, element: quarter(q, report.months.slice(3 * i, 3 * i + 3), report.quarters[i - 1] ?? before, i === report.quarters.length - 1) }));
	const shown = all.filter(({ q }) => only === '' || q.period === only).reverse();
	const what = only === '' ? `${nameOf(report.months[0].period)} to ${nameOf(report.months.at(-1).period)}` : nameOf(only);
	return h('article', { class: 'stack report' },
		h('p', { class: 'made' }, h('strong', {}, `External servers and revenue: ${what}. `), 'Made on ', h('time', { datetime: report.made }, moments.format(new Date(report.made))), ' UTC. Months and quarters are those of UTC.'),
		shown.map(({ element }) => element), only === '' ? total(report) : null,
		h('p', { class: 'small soft' }, 'Revenue recovered: what the billing records of external servers found in a period brought a month when they were made, as SkyPANEL charges it. ',
			'Leaks closed: servers that are billed again, or at last. Incidents: servers whose evidence disagreed, events that could not be reconciled, runs that failed or did not see everything, refunds due, and days on which VirtFusion counted other servers.'));
}

/** reports is the view. */
export function reports(page) {
	const months = h('select', { name: 'months', onchange: () => { only.value = ''; again(); } }, [[4, 'This quarter and the one before'], [12, 'A year'], [24, 'Two years'], [57, 'All that there may be']]
		.map(([n, label]) => h('option', { value: n, selected: String(n) === (page.query.get('months') ?? '12') }, label)));
	const only = h('select', { name: 'quarter', onchange: () => again() }, h('option', { value: '' }, 'All'));
	const file = h('a', { download: '' }, 'Spreadsheet (CSV)');
	let asked = page.query.get('quarter') ?? '';
	const a = area(async (signal) => {
		const report = await get('api/admin/reports/monthly', { months: Number(months.value) + 3 }, signal); // one quarter more, for the trend
		return { months: report.months.slice(3), quarters: report.quarters.slice(1), before: report.quarters[0], made: new Date().toISOString(), only: asked };
	}, (report) => {
		const chosen = report.quarters.some((q) => q.period === report.only) ? report.only : '';
		only.replaceChildren(...[['', 'All'], ...report.quarters.map((q) => [q.period, nameOf(q.period)]).reverse()].map(([value, label]) => h('option', { value, selected: value === chosen }, label)));
		return sheet(report, chosen);
	});
	function again() {
		asked = only.value;
		page.keep({ months: months.value, ...(asked ? { quarter: asked } : {}) });
		return load();
	}
	function load() {
		file.href = url('api/admin/reports/monthly.csv', { months: months.value }).href;
		return a.load();
	}
	page.refresh = () => {}; // a report that somebody reads stays as it was made
	page.root.append(h('form', { class: 'row middle no-print', onsubmit: (event) => event.preventDefault() },
		h('label', {}, h('span', {}, 'How far back'), months), h('label', {}, h('span', {}, 'Quarter'), only),
		h('button', { type: 'button', class: 'first', onclick: () => print() }, 'Print'), file), a.element);
	load();
}
