// <server-sync>: a button and a dialog that synchronises the servers of whoever
// is signed in; with mode="status", a tile that says how they stand.
//
// Events, for the page around it: `serversync:ended` (detail: the run).
// Methods: open(), close().
import { call, get, home } from './api.js';
import { fill, h, say } from './dom.js';
import { ago, keepTrue, number, plural, sentence, took } from './format.js';
import { Live } from './live.js';
import { phases, reasonLabel, runStates, statuses } from './words.js';

const look = new CSSStyleSheet();
let styled = null;

/** style loads the stylesheet once for all elements of a page; a failure is tried again with the next element. */
function style() {
	styled ??= fetch(new URL('assets/style.css', home)).then(async (answer) => {
		if (!answer.ok) throw new Error(`status ${answer.status}`);
		return look.replace(await answer.text());
	}).catch((error) => {
		styled = null;
		throw error;
	});
	return styled;
}

const pollEvery = 2000; // ms, while the live connection is away
const tileEvery = 60_000;
const helloWithin = 1000;
const slowAfter = 8000;
const foundAtMost = 100; // servers that are shown one by one
const lives = 'api/user/servers/sync/live';

// An icon is drawn by the page's own means: nothing is fetched for it.
function arrows() {
	const ns = 'http://www.w3.org/2000/svg';
	const svg = document.createElementNS(ns, 'svg');
	for (const [name, value] of Object.entries({ viewBox: '0 0 20 20', 'aria-hidden': 'true', fill: 'none', stroke: 'currentColor', 'stroke-width': '2', 'stroke-linecap': 'round', 'stroke-linejoin': 'round' })) svg.setAttribute(name, value);
	const path = document.createElementNS(ns, 'path');
	path.setAttribute('d', 'M4 8a6.5 6.5 0 0 1 11-2l1.5 1.5M16.5 3v4.5H12M16 12a6.5 6.5 0 0 1-11 2l-1.5-1.5M3.5 17v-4.5H8');
	svg.append(path);
	return svg;
}

class ServerSync extends HTMLElement {
	static observedAttributes = ['mode'];

	#root = this.attachShadow({ mode: 'open' });
	#stay = 0; // how often it came to a page: what began in an earlier stay is over
	#ticks = [];
	#live = null;
	#parts = {};
	#run = null; // the run that the dialog is about, as it was last seen
	#found = new Map(); // what became of servers, by id
	#early = []; // what was heard of servers before the run was known
	#slow = 0;
	#poll = 0;
	#asking = null; // the sync that is about to begin; null: none

	async connectedCallback() {
		const stay = ++this.#stay;
		this.#root.adoptedStyleSheets = [look];
		try {
			await style();
		} catch {
			console.warn('<server-sync>: its stylesheet could not be loaded; allow connections to', home.origin);
		}
		if (!this.isConnected || stay !== this.#stay) return;
		this.#draw();
		this.#ticks = [keepTrue(this.#root)];
		if (this.#isTile) {
			this.#tick();
			this.#ticks.push(setInterval(() => document.visibilityState === 'visible' && this.#tick(), tileEvery));
		}
		document.addEventListener('serversync:ended', this.#heard);
	}

	disconnectedCallback() {
		this.#stay++;
		document.removeEventListener('serversync:ended', this.#heard);
		this.#ticks.forEach(clearInterval);
		this.#ticks = [];
		this.#parts.dialog?.close();
		this.#unwatch();
	}

	attributeChangedCallback(_name, before, now) {
		if (this.#parts.dialog && this.isConnected && before !== now) {
			this.disconnectedCallback();
			this.connectedCallback();
		}
	}

	get #isTile() { return this.getAttribute('mode') === 'status'; }

	// Another element of the page has synchronised.
	#heard = (event) => {
		if (event.target !== this && this.#isTile) this.#tick();
	};

	/** open shows the dialog and begins a sync, or joins the one that is running. */
	async open() {
		await style().catch(() => {});
		if (!this.#parts.dialog) this.#draw();
		if (this.#parts.dialog.open) return;
		this.#parts.dialog.showModal();
		this.#begin();
	}

	/** close puts the dialog away; a sync that runs goes on. */
	close() { this.#parts.dialog?.close(); }

	// --- drawing ---

	#draw() {
		const p = this.#parts;
		p.button = h('button', { type: 'button', class: this.#isTile ? null : 'first', onclick: () => this.open() }, arrows(), 'Sync servers');
		p.standing = h('div', { class: 'stack tight' }, h('p', { class: 'soft' }, 'Loading …'));
		p.tile = this.#isTile ? h('section', { class: 'tile', 'aria-label': 'Servers and billing' }, p.standing, h('div', {}, p.button)) : null;
		p.phase = h('p', { role: 'status' });
		p.bar = h('progress', { 'aria-label': 'Progress of the sync' });
		p.result = h('div', { class: 'stack tight', tabIndex: -1 });
		p.status = h('dl', { class: 'figures' });
		p.found = h('ul', { class: 'found', 'aria-label': 'What was found' });
		p.foundPart = h('section', { class: 'stack tight', hidden: true }, h('h3', {}, 'Found'), p.found);
		p.history = h('ol', { class: 'history small' });
		p.past = h('div');
		p.older = h('button', { type: 'button', class: 'plain', hidden: true, onclick: () => this.#readHistory(true) }, 'Show older');
		p.details = h('details', { ontoggle: () => p.details.open && this.#readHistory(false) }, h('summary', {}, 'History'), p.history, p.past, p.older);
		p.again = h('button', { type: 'button', onclick: () => this.#begin() }, 'Sync again');
		p.done = h('button', { type: 'button', class: 'first', onclick: () => p.dialog.close() }, 'Close');
		p.dialog = h('dialog', { 'aria-labelledby': 'title', onclose: () => this.#unwatch() },
			h('header', {}, h('h2', { id: 'title' }, 'Sync servers'),
				h('button', { type: 'button', class: 'close', 'aria-label': 'Close', onclick: () => p.dialog.close() }, '×')),
			h('div', { class: 'body stack' },
				p.phase, p.bar, p.result, p.foundPart,
				h('section', { class: 'stack tight' }, h('h3', {}, 'How your servers stand'), p.status), p.details),
			h('footer', {}, p.again, p.done));
		p.dialog.addEventListener('click', (event) => { // beside it
			if (event.target === p.dialog) p.dialog.close();
		});
		fill(this.#root, p.tile ?? p.button, p.dialog);
	}

	async #tick() {
		const { standing, button } = this.#parts;
		try {
			const s = await get('api/user/servers/sync/status');
			const open = s.totalServers - s.syncedServers;
			button.hidden = false;
			fill(standing,
				h('p', {}, h('strong', { class: `dot ${open > 0 ? 'warn' : 'good'}` }, open > 0 ? `${plural(open, 'server')} not settled yet` : s.totalServers > 0 ? 'All servers in step' : 'No servers yet')),
				h('p', { class: 'small soft' }, `${plural(s.totalServers, 'server')} · ${number(s.externalServers)} external · last sync `, ago(s.lastSync)));
		} catch (error) {
			button.hidden = error.signedOut;
			fill(standing, h('p', {}, h('strong', { class: 'dot bad' }, error.signedOut ? 'Not signed in' : 'Not known')),
				h('p', { class: 'small soft' }, error.signedOut ? 'Sign in to your hosting panel to see your servers.' : error.message));
		}
	}

	async #readStatus() {
		try {
			const s = await get('api/user/servers/sync/status');
			const figure = (label, value, kind) => h('div', { class: kind ?? null }, h('dt', {}, label), h('dd', kind === 'text' ? { class: 'text' } : {}, value));
			fill(this.#parts.status, figure('Servers', number(s.totalServers)), figure('In step', number(s.syncedServers)),
				figure('External', number(s.externalServers), 'external'), figure('Last compared', ago(s.lastSync), 'text'));
		} catch { /* what is wrong is said where the sync is */ }
	}

	// --- a sync ---

	async #begin() {
		const p = this.#parts;
		this.#watch();
		if (this.#asking) return; // one is about to begin: it is shown
		const mine = this.#asking = {};
		this.#run = null;
		this.#found.clear();
		this.#early = [];
		fill(p.found);
		fill(p.result);
		p.foundPart.hidden = true;
		p.again.disabled = true;
		p.bar.hidden = false;
		p.bar.removeAttribute('value');
		say(p.phase, phases.listing + ' …');
		this.#readStatus();
		let id = '';
		try {
			await this.#connected(); // or what is found at once would go by unseen
			const { data } = await call('POST', 'api/user/servers/sync', { query: { wait: 0 } });
			id = data.runId ?? data.id;
			this.#live?.follow(id);
			if (data.state) this.#see(data);
			this.#asking = null;
			this.#see(await get(`api/user/servers/sync/runs/${id}`)); // it may be over by now
		} catch (error) {
			if (id === '' || !error.passing) this.#fail(error, id !== '');
		} finally {
			if (this.#asking === mine) this.#asking = null;
		}
		this.#run ??= id && p.again.disabled ? { id, state: 'running' } : null; // it began, and goes on
		this.#repoll();
	}

	/** connected waits until what happens is heard, for a second at most. */
	#connected() {
		if (!this.#live || this.#live.state === 'open') return null;
		return new Promise((resolve) => {
			this.#live.addEventListener('message', resolve, { once: true });
			setTimeout(resolve, helloWithin);
		});
	}

	#watch() {
		if (this.#live) return;
		this.#live = new Live(lives);
		this.#live.addEventListener('message', ({ detail: m }) => {
			if (m.type === 'snapshot') m.runs.filter((run) => run.id === this.#run?.id).forEach((run) => this.#see(run));
			if (m.type === 'run' || m.type === 'run_ended') this.#see(m.run);
			if (m.type === 'server') this.#find(m.server, m.runId);
		});
		this.#live.addEventListener('state', ({ detail }) => {
			if (detail === 'waiting' && this.#run?.state === 'running') say(this.#parts.phase, 'The service does not answer. Reconnecting … What became of the sync is shown then.');
		});
		this.#live.open();
	}

	#unwatch() {
		clearTimeout(this.#poll);
		clearTimeout(this.#slow);
		this.#live?.close();
		this.#live = null;
	}

	// While nothing comes by itself, the run is asked for.
	#repoll() {
		clearTimeout(this.#poll);
		if (!this.isConnected || !this.#parts.dialog.open || this.#run?.state !== 'running') return;
		this.#poll = setTimeout(async () => {
			if (this.#live?.state !== 'open') {
				try {
					this.#see(await get(`api/user/servers/sync/runs/${this.#run.id}`));
				} catch (error) {
					if (!error.passing) return this.#fail(error, true);
				}
			}
			this.#repoll();
		}, pollEvery);
	}

	/** see takes in how far a run is. What is told late is not believed. */
	#see(run) {
		const p = this.#parts;
		if (run.dryRun || run.kind !== 'sync' || !this.#run && this.#asking && run.state !== 'running') return;
		if (this.#run && (this.#run.id !== run.id || this.#run.state !== 'running')) return;
		this.#run = run;
		for (const [server, runId] of this.#early.splice(0)) this.#find(server, runId);
		if (run.state === 'running') {
			const known = run.expected > 0 && ['reviewing', 'applying', 'finishing', 'asking'].includes(run.phase);
			if (known) {
				p.bar.max = run.expected;
				p.bar.value = run.processed;
			}
			say(p.phase, `${phases[run.phase] ?? 'Working'}${known ? `: ${number(run.processed)} of ${number(run.expected)}` : ''} …`);
			clearTimeout(this.#slow);
			this.#slow = setTimeout(() => {
				if (this.#run === run) say(p.phase, `${phases[run.phase] ?? 'Working'} … this takes longer than usual. VirtFusion may be slow or away; it is tried for about a minute.`);
			}, slowAfter);
			return;
		}
		this.#end(run);
	}

	/**
	 * find shows what a sync made of a server. What others do meanwhile is not the
	 * sync's; what comes before the sync's own id is known waits for that.
	 */
	#find(server, runId) {
		const p = this.#parts;
		if (!runId || this.#run && runId !== this.#run.id) return;
		if (!this.#run) return void this.#early.push([server, runId]);
		if (server.outcome === 'unchanged' && server.status !== 'settling') return;
		const before = this.#found.get(server.id);
		if (!before && this.#found.size >= foundAtMost) return;
		const status = statuses[server.status] ?? { label: server.status };
		const line = h('li', { class: server.status === 'external' ? 'external' : null },
			h('strong', {}, server.name || `Server ${server.id}`), h('span', { class: `badge ${server.status}` }, status.label), h('span', {}, this.#became(server)));
		if (before) before.replaceWith(line);
		else p.found.append(line);
		this.#found.set(server.id, line);
		p.foundPart.hidden = false;
	}

	#became(server) {
		if (server.status === 'settling') return 'new: it is looked up whether it was ordered in the billing panel';
		if (server.status === 'gone') return 'deleted: its billing ended';
		const begins = server.outcome === 'new' ? 'new: ' : '';
		if (server.billing === 'on') return `${begins}billed by the hour`;
		return `${begins}not billed${server.billingReason ? `: ${reasonLabel(server.billingReason)}` : ''}`;
	}

	#end(run) {
		const p = this.#parts;
		clearTimeout(this.#poll);
		clearTimeout(this.#slow);
		p.again.disabled = false;
		p.bar.hidden = true;
		say(p.phase, '');
		const tone = runStates[run.state]?.tone ?? 'warn';
		const figure = (label, n, kind) => h('div', { class: kind ?? null }, h('dt', {}, label), h('dd', {}, number(n)));
		fill(p.result,
			h('div', { class: `notice ${tone}`, role: 'status' }, h('p', {}, h('strong', {}, this.#headline(run)))),
			run.problems.length > 0 ? h('section', { class: 'stack tight' }, h('h3', {}, 'What to do'),
				h('ul', { class: 'stack tight' }, run.problems.map((problem) => h('li', { class: 'notice warn' }, sentence(problem.message))))) : null,
			h('dl', { class: 'figures' }, figure('Synchronised', run.processed - run.failed), figure('New', run.new, run.new > 0 ? 'external' : null),
				figure('Updated', run.updated), figure('Unchanged', run.unchanged), run.failed > 0 ? figure('Failed', run.failed) : null),
			run.settling > 0 ? h('p', { class: 'small soft' }, `${plural(run.settling, 'new server')} ${run.settling === 1 ? 'waits' : 'wait'} a moment for the billing panel’s own record, and will appear by ${run.settling === 1 ? 'itself' : 'themselves'}.`) : null,
			h('p', { class: 'small soft' }, `Took ${took(run.startedAt, run.endedAt)}.`));
		if (p.dialog.open) p.result.focus({ preventScroll: true });
		p.dialog.querySelector('.body').scrollTop = 0;
		this.#readStatus();
		if (p.details.open) this.#readHistory(false);
		if (this.#isTile) this.#tick();
		this.dispatchEvent(new CustomEvent('serversync:ended', { detail: run, bubbles: true, composed: true }));
	}

	#headline(run) {
		if (run.state === 'failed') return 'The sync did not work.';
		if (run.state === 'incomplete') return 'The sync could not see or do everything.';
		if (run.state === 'needs_approval') return 'Your provider has to approve what would change. Nothing was changed yet.';
		if (run.state === 'superseded') return 'A newer sync took over.';
		if (run.expected === 0) return 'VirtFusion has no servers of yours.';
		if (run.new + run.updated === 0) return `All in step: ${plural(run.processed, 'server')} synchronised, nothing had to change.`;
		const parts = [run.new ? `${run.new} new` : '', run.updated ? `${run.updated} updated` : ''].filter(Boolean).join(', ');
		return `Successfully synchronised ${plural(run.processed, 'server')}: ${parts}.`;
	}

	/** fail says why a sync cannot begin, or, when it began, why it cannot be followed. */
	#fail(error, began = false) {
		const p = this.#parts;
		this.#run = null;
		this.#unwatch();
		p.bar.hidden = true;
		say(p.phase, '');
		p.again.disabled = false;
		fill(p.result, h('div', { class: 'notice bad', role: 'alert' },
			h('p', {}, h('strong', {}, error.signedOut ? 'You are not signed in. ' : began ? 'The sync goes on, but cannot be followed here. ' : 'The sync could not begin. '),
				error.signedOut ? 'Sign in to your hosting panel in this browser, then sync again.' : error.message),
			error.requestId && !error.signedOut ? h('p', { class: 'small soft' }, `For support: request ${error.requestId}`) : null));
	}

	// --- history ---

	#cursor = null;

	async #readHistory(older) {
		const p = this.#parts;
		p.older.disabled = true;
		try {
			const page = await get('api/user/servers/sync/history', { limit: 20, cursor: older ? this.#cursor : null });
			if (!older) fill(p.history);
			for (const entry of page.items) p.history.append(h('li', {}, this.#past(entry), ' ', h('span', { class: 'soft' }, ago(entry.at))));
			if (p.history.childElementCount === 0) fill(p.history, h('li', { class: 'soft' }, 'Nothing yet.'));
			fill(p.past);
			this.#cursor = page.nextCursor;
			p.older.hidden = this.#cursor === null;
		} catch (error) {
			fill(p.past, h('p', { class: 'notice bad', role: 'alert' }, error.message));
		}
		p.older.disabled = false;
	}

	#past({ run, change }) {
		if (change) return [h('strong', {}, change.serverName || `Server ${change.serverId}`), ': ', change.message, '.'];
		const state = runStates[run.state] ?? { label: run.state, tone: '' };
		return [h('strong', { class: `dot ${state.tone}` }, 'Sync'), run.state === 'running' ? ': running.'
			: `: ${state.label.toLowerCase()}; ${plural(run.processed, 'server')}, ${run.new} new, ${run.updated} updated${run.failed ? `, ${run.failed} failed` : ''}.`];
	}
}

/** define makes <server-sync> known to the page, once. */
export function define() {
	if (!customElements.get('server-sync')) customElements.define('server-sync', ServerSync);
}

define();
