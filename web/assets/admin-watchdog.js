// What is wrong with SkyPANEL's own billing, by the watchdog's rules.
import { get } from './api.js';
import { h } from './dom.js';
import { money, number, plural, sentence } from './format.js';
import { area, link, serverLink, userLink } from './admin-parts.js';
import { bulk } from './admin-bulk.js';

/** rules in people's words: what was found. */
const rules = {
	coverage_gap: 'VirtFusion counts other servers', proof_mismatch: 'A full proof found what stays different', two_rows_enabled: 'Billed twice', period_charged_twice: 'Charged twice', gone_server_billed: 'Billed though gone', wrong_owner_billed: 'Billed to somebody else',
	back_bill_ahead: 'Many hours are charged next', proof_overdue: 'No full proof was complete for long', owner_disputed: 'Billed to somebody else, and evidence disagrees', unknown_server: 'Billed though VirtFusion does not list it', switched_off: 'Switched off by SkyPANEL', sold_without_row: 'Sold, and no billing row',
	no_start: 'Never billed: no start', no_price: 'Never billed: no price', inactive_owner: 'Never billed: the customer is not active', charges_failing: 'Charges fail',
	billing_job_off: 'The billing job is off', odd_values: 'Values that cannot be right', rounds_to_nothing: 'Costs nothing by rounding', price_drift: 'Another price than the package has', hours_drift: 'Other hours a month than the settings say',
};
const tones = { critical: 'bad', warning: 'warn', info: '' };
const severities = { critical: 'Customers pay too much', warning: 'Revenue is lost', info: 'Good to know' };
const few = 10; // findings of a rule that are shown at once

/** mend lets those be billed again, from now on, of which that is the remedy. */
function mend(rule, found, signal, closed) {
	if (rule !== 'switched_off' && rule !== 'sold_without_row') return null;
	const place = h('div');
	return h('details', { ontoggle: (event) => {
		if (!event.target.open) closed();
		else if (!place.hasChildNodes()) place.append(bulk({ choose: () => ({ ids: found.map((f) => f.serverId) }), preset: 'billing-on', signal }).element);
	} }, h('summary', {}, `Bill ${found.length === 1 ? 'it' : `these ${number(found.length)}`} again, from now on`), place);
}

const finding = (f) => h('li', { class: 'step' },
	h('p', {}, f.serverId === null ? null : [serverLink(f.serverId), f.userId === null ? ': ' : [' of ', userLink(f.userId), ': ']], sentence(f.evidence)),
	h('p', { class: 'small soft' }, sentence(f.remedy)));

function group(rule, found, signal, closed) {
	const stake = found.reduce((sum, f) => sum + Number(f.amount ?? 0), 0);
	const rest = found.slice(few);
	return h('section', { class: 'card stack' },
		h('h2', {}, rules[rule.rule] ?? rule.rule, ' ', h('span', { class: 'count' }, number(rule.findings))),
		h('p', {}, h('span', { class: `badge ${tones[rule.severity]}` }, severities[rule.severity]), stake > 0 ? ` ${money(stake)} at stake` : null, ' ', h('code', { class: 'small soft' }, rule.rule)),
		mend(rule.rule, found, signal, closed),
		h('ul', { class: 'steps' }, found.slice(0, few).map(finding)),
		rest.length > 0 ? h('details', {}, h('summary', {}, `${number(rest.length)} more`), h('ul', { class: 'steps' }, rest.map(finding))) : null);
}

export function watchdog(page) {
	const a = area((signal) => get('api/admin/audit', {}, signal), (audit) => {
		const broken = audit.rules.filter((r) => r.findings > 0);
		const failed = audit.failed.length === 0 ? null : h('div', { class: 'notice bad' },
			h('p', {}, h('strong', {}, `By ${plural(audit.failed.length, 'rule')} nothing could be looked at.`), ' The others were.'),
			h('ul', {}, audit.failed.map((f) => h('li', {}, rules[f.rule] ?? f.rule, ': ', h('span', { class: 'small' }, f.error)))));
		if (failed && broken.length === 0) return failed;
		if (broken.length === 0) return h('p', { class: 'notice good calm' }, h('strong', {}, 'Nothing is wrong with SkyPANEL’s billing.'), ` ${plural(audit.rules.length, 'rule')} were held against its tables.`);
		return [
			failed,
			audit.truncated ? h('p', { class: 'notice' }, 'Not all findings are listed; the counts are of all.') : null,
			broken.map((r) => group(r, audit.findings.filter((f) => f.rule === r.rule), page.signal, () => a.load())),
		];
	});
	const again = () => { if (!a.element.querySelector('details[open]')) a.load(); }; // what somebody fills in stays
	page.hear = (m) => { if (m.type === 'run_ended') again(); };
	page.refresh = again;
	page.aside.append(link('Attention', 'attention'));
	page.root.append(h('p', { class: 'soft' }, 'SkyPANEL’s billing tables as they are now, held against rules. Looking changes nothing.'), a.element);
	a.load();
}
