// An action on servers: previewed first, and then done to what was previewed.
import { call } from './api.js';
import { fill, h } from './dom.js';
import { plural } from './format.js';
import { button, effects, follow, meter, ordering, pages, previewOf, problemsOf, resultsOf } from './admin-parts.js';
import { billsOf } from './admin-preview.js';
import { resultTable } from './admin-runs.js';

const actions = {
	resync: ['Sync again', 'Asks VirtFusion for each, and brings the books in step.'],
	'billing-on': ['Bill it', 'Bills it, whatever SkyPANEL or VirtFusion say.'],
	'billing-off': ['Do not bill it', 'Keeps the record, switched off.'],
	'set-package': ['Bill as a package', 'Bills it as another package, which SkyPANEL has a price for.'],
	ignore: ['Leave it alone', 'No record of ours, and none that is on.'],
	clear: ['Take wishes back', 'Forgets what operators wished of it; it is decided by the rules again.'],
};

/** order sends a bulk action, as body() says, and waits for its end, however long it takes. */
const order = (body, place, signal) => ordering(() => call('POST', 'api/admin/servers/bulk', { body: body() }), async (answer) => {
	if (answer.status !== 202) return answer.data;
	const m = meter(answer.data);
	fill(place, m.element);
	const run = await follow(answer.data.id, m.update, signal);
	const results = await resultsOf(run.id, signal);
	fill(place);
	return {
		runId: run.id, dryRun: run.dryRun, preview: run.preview, results, errors: run.problems.filter((p) => p.serverId === null),
		new: run.new, updated: run.updated, unchanged: run.unchanged, failed: run.failed,
	};
});

/** resultsTable of an answer: those that failed first, a hundred at a time. */
function resultsTable(results) {
	const t = resultTable('What becomes of each');
	const all = [...results].sort((a, b) => (b.result === 'failed') - (a.result === 'failed') || a.id - b.id);
	const list = pages({
		element: t.element, body: t.body, item: t.result, empty: h('p', {}, 'No server.'),
		read: async ({ cursor: from }) => ({ items: all.slice(from ?? 0, (from ?? 0) + 100), next: (from ?? 0) + 100 < all.length ? (from ?? 0) + 100 : null }),
	});
	list.load();
	return h('details', { open: all.length <= 10 || all.some((r) => r.result === 'failed') }, h('summary', {}, `Each of ${plural(all.length, 'server')}`), list.outside);
}

/**
 * bulk is a form for an action. `choose()` returns what it is for, {ids} or
 * {filter}, or null for nothing; `done()` is called when something was done.
 * What is sent to be done are the servers of the preview, and no others. `signal`
 * ends with the page.
 */
export function bulk({ choose, done = () => {}, preset = 'resync', signal }) {
	const select = h('select', { onchange: () => stale() }, Object.entries(actions).map(([value, [label]]) => h('option', { value, selected: value === preset }, label)));
	const hint = h('p', { class: 'small soft' });
	const packageId = h('input', { type: 'number', min: 1, step: 1, inputMode: 'numeric', oninput: () => stale() });
	const packageField = h('label', {}, h('span', {}, 'Package id'), packageId);
	const reason = h('input', { maxLength: 1000, placeholder: 'Shown wherever it takes effect' });
	const place = h('div');
	const shown = h('div', { class: 'stack', role: 'status' });
	const said = h('div', { class: 'stack' }); // what became of it
	let previewed = null;

	function stale() {
		previewed = null;
		apply.disabled = true;
		apply.textContent = 'Apply';
		hint.textContent = actions[select.value][1];
		packageField.hidden = select.value !== 'set-package';
		fill(shown);
		fill(place);
	}
	async function look() {
		stale();
		fill(said);
		const target = choose();
		if (!target) return fill(shown, h('p', { class: 'notice warn' }, 'No server is chosen.'));
		const wanted = { action: select.value };
		if (wanted.action === 'set-package') {
			if (!packageId.reportValidity() || packageId.value === '') {
				packageId.focus();
				return fill(shown, h('p', { class: 'notice warn' }, 'Say which package: VirtFusion’s id of it.'));
			}
			wanted.packageId = Number(packageId.value);
		}
		const mine = previewed = { wanted };
		const answer = await order(() => ({ ...target, ...wanted, dryRun: true }), shown, signal)();
		if (previewed !== mine) return; // something else is wanted by now
		mine.ids = answer.preview ? answer.results.filter((r) => r.result !== 'failed').map((r) => r.id) : [];
		const n = mine.ids.length;
		apply.textContent = n > 0 ? `Apply to ${plural(n, 'server')}` : 'Apply';
		apply.disabled = n === 0;
		const bills = answer.preview ? billsOf(answer.runId, signal) : null;
		bills?.load();
		fill(shown, h('p', { class: answer.preview ? 'notice' : 'notice bad' }, h('strong', {}, 'Preview: '), `“${actions[wanted.action][0]}” for ${plural(answer.results.length, 'server')} `,
			answer.preview ? `would ${effects(answer.preview)}.` : 'could not be worked out: nothing can be applied. Look at it again in a moment.',
			answer.preview && wanted.action === 'resync' ? ' VirtFusion is asked for each, so that what it says by then counts.' : ''),
		problemsOf(answer.errors), answer.preview ? [previewOf(answer.preview, { many: false }), bills.element] : null, resultsTable(answer.results));
	}
	async function doIt() {
		const { wanted, ids } = previewed;
		previewed.apply ??= order(() => ({ ids, ...wanted, reason: wanted.action === 'resync' ? undefined : reason.value.trim() || undefined }), shown, signal);
		const answer = await previewed.apply();
		stale();
		fill(said, h('p', { class: `notice ${answer.failed > 0 || answer.errors.length > 0 ? 'warn' : 'good'}`, role: 'status' }, h('strong', {}, `Done for ${plural(answer.results.length, 'server')}: `),
			`${answer.new} new, ${answer.updated} changed, ${answer.unchanged} unchanged, ${answer.failed} failed. `, h('a', { href: `#/runs/${answer.runId}` }, 'The run')),
		problemsOf(answer.errors), resultsTable(answer.results));
		done(answer);
	}
	const preview = button('Preview', place, look);
	const apply = button('Apply', place, doIt, 'first', () => previewed?.ids?.length > 0);
	stale();
	const form = h('form', { class: 'row', onsubmit: (event) => { event.preventDefault(); preview.click(); } },
		h('label', {}, h('span', {}, 'Action'), select), packageField, h('label', { class: 'grow' }, h('span', {}, 'Reason'), reason), h('input', { type: 'submit', hidden: true }), preview, apply); // Enter previews
	return { element: h('div', { class: 'stack bulk' }, form, hint, place, shown, said), stale };
}
