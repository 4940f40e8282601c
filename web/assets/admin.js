// The control room: which view is shown, what comes in live, and who looks.
import { get } from './api.js';
import { fill, h, liveBadge, say, soon } from './dom.js';
import { keepTrue } from './format.js';
import { Live } from './live.js';
import { failure, refusals } from './admin-parts.js';
import { overview } from './admin-overview.js';

const byId = (id) => document.getElementById(id);

/**
 * lazily is a view whose module is read when somebody goes there: most never do,
 * and whoever opens the overview does not wait for the rest.
 */
const lazily = (read, name) => async (page) => {
	let module;
	try {
		module = await read();
	} catch (error) {
		console.error(error);
		if (!page.signal.aborted) page.root.append(h('p', { class: 'notice bad', role: 'alert' }, 'This part of the page could not be loaded. Reload the page.'));
		return;
	}
	if (page.signal.aborted) return;
	module[name](page);
	told(page);
};
const proving = () => import('./admin-proofs.js');
const running = () => import('./admin-runs.js');

/** The views: a path, its title, and what shows it. Groups of the path are its parameters. */
const views = [
	[/^$/, 'Overview', overview],
	[/^attention$/, 'Attention', lazily(() => import('./admin-attention.js'), 'attention')],
	[/^watchdog$/, 'Watchdog', lazily(() => import('./admin-watchdog.js'), 'watchdog')],
	[/^servers$/, 'Servers', lazily(() => import('./admin-servers.js'), 'servers')],
	[/^servers\/([\w-]+)$/, 'Server', lazily(() => import('./admin-server.js'), 'server')],
	[/^runs$/, 'Runs', lazily(running, 'runs')],
	[/^runs\/([\w-]+)$/, 'Run', lazily(running, 'run')],
	[/^reports$/, 'Reports', lazily(() => import('./admin-reports.js'), 'reports')],
	[/^dead-letters$/, 'Dead letters', lazily(() => import('./admin-letters.js'), 'letters')],
	[/^proofs$/, 'Proofs and coverage', lazily(proving, 'proofs')],
	[/^proofs\/([\w-]+)$/, 'Proof', lazily(proving, 'proof')],
	[/^charges$/, 'First charges', lazily(() => import('./admin-charges.js'), 'charges')],
	[/^notices$/, 'Notices', lazily(() => import('./admin-notices.js'), 'notices')],
	[/^users\/(\d+)$/, 'User', lazily(() => import('./admin-users.js'), 'user')],
];

/**
 * The page that is shown. A view sets what it wants to hear: `hear(message)`
 * live, `stands(overview)` how everything stands, `refresh()` whenever the
 * connection opens: what happened before it was heard by nobody. `signal` ends with the page.
 */
let page = null;
let standing = null; // the newest overview
let failed = null; // why there is none

function navigate() {
	const [path, query] = location.hash.replace(/^#\/?/, '').split('?', 2);
	const found = views.find(([pattern]) => pattern.test(path));
	page?.ending.abort();
	for (const dialog of document.querySelectorAll('dialog')) dialog.close();
	const ending = new AbortController();
	const heading = h('h1', { tabIndex: -1 });
	const root = h('div', { class: 'stack' });
	page = {
		ending, signal: ending.signal, root, query: new URLSearchParams(query ?? ''), args: found ? found[0].exec(path).slice(1) : [],
		aside: h('div', { class: 'row middle' }), // beside the title
		stand,
		title(text) {
			say(heading, text);
			document.title = `${text} – Control room`;
		},
		/** keep puts a query into the address, without another entry in the browser's history. */
		keep(values) {
			if (ending.signal.aborted) return; // the address is another's
			const q = new URLSearchParams(values);
			history.replaceState(null, '', `#/${path}${q.size > 0 ? `?${q}` : ''}`);
		},
	};
	page.title(found?.[1] ?? 'No such page');
	fill(byId('view'), h('div', { class: 'title' }, heading, page.aside), root);
	for (const a of byId('nav').children) {
		const own = a.getAttribute('href').slice(2);
		if (own === path.split('/')[0]) a.setAttribute('aria-current', own === path ? 'page' : 'true');
		else a.removeAttribute('aria-current');
	}
	if (found) found[2](page);
	else root.append(h('p', {}, 'There is nothing at this address. ', h('a', { href: '#/' }, 'Go to the overview'), '.'));
	told(page);
	return heading;
}

/** told: a view hears how everything stands, if that is known. */
function told(view) {
	if (standing) view.stands?.(standing);
	else if (failed) view.fails?.(failed);
}

// --- how everything stands ---

const count = (name, n, what) => {
	const badge = byId('nav').querySelector(`[data-count="${name}"]`);
	badge.hidden = !(n > 0);
	fill(badge, n > 999 ? '999+' : n, h('span', { class: 'away' }, ` ${what}`));
};

async function stand() {
	try {
		standing = await get('api/admin/overview');
	} catch (error) {
		if (error.signedOut || error.code === 'forbidden') refused(error);
		else {
			failed = error;
			page?.fails?.(error);
		}
		return;
	}
	const { coverage: c, revenue } = standing;
	const off = revenue.leakingMonthly.reasons.reduce((n, r) => n + r.servers, 0);
	count('attention', c.conflict + c.unlinked + off, 'servers');
	count('runs', standing.waiting.length, 'wait for approval');
	count('letters', standing.deadLetters, 'events');
	count('charges', standing.unclearCharges, 'unclear');
	page?.stands?.(standing);
}

const standSoon = soon(1500, stand);

// --- live ---

function watch() {
	const live = new Live('api/admin/live');
	let before = false;
	liveBadge(live, byId('live'));
	live.addEventListener('state', ({ detail }) => {
		if (detail === 'open') {
			page?.refresh?.();
			if (before) stand();
			if (who === null) greet();
			before = true;
		}
		if (detail === 'refused') stand(); // which says how to sign in
	});
	live.addEventListener('message', ({ detail }) => {
		page?.hear?.(detail);
		if (detail.type === 'server' || detail.type === 'run_ended') standSoon();
	});
	return live;
}

// --- who looks ---

let who = null;
let live = null;

async function refused(error) {
	if (!byId('refused').hidden) return;
	byId('refused').hidden = false;
	byId('view').hidden = true; // what was typed there stays
	byId('nav').hidden = true;
	live.close();
	await greet();
	fill(byId('refused'), error.signedOut ? signedOut() : noAdmin());
	byId('refused').querySelector('h1').focus();
}

async function again() {
	const place = byId('refused').querySelector('.answer');
	try {
		standing = await get('api/admin/overview');
	} catch (error) {
		if (error.signedOut) fill(place, h('p', { class: 'notice warn', role: 'alert' }, 'Nobody is signed in here yet.'));
		else if (error.code === 'forbidden') fill(place, h('p', { class: 'notice warn', role: 'alert' }, 'Who is signed in is still no administrator.'));
		else fill(place, failure(error));
		return;
	}
	byId('refused').hidden = true;
	byId('view').hidden = false;
	byId('nav').hidden = false;
	greet();
	if (!page) return begin();
	live.open();
	stand();
	page.refresh?.();
}

function begin() {
	navigate();
	live.open();
}

const retry = () => [h('div', { class: 'answer' }), h('p', {}, h('button', { type: 'button', class: 'first', onclick: again }, 'I am signed in now'))];

function signedOut() {
	return h('section', { class: 'card signin stack' },
		h('h1', { tabIndex: -1 }, 'Sign in to the control room'),
		h('p', {}, 'Sign in to SkyPANEL as an administrator in this browser, then come back here: this page knows you by that.'),
		retry(),
		h('details', {}, h('summary', {}, 'For operators'), h('ul', { class: 'points small soft' },
			h('li', {}, 'The page takes SkyPANEL’s session cookie, so SESSION_SECRET must be SkyPANEL’s own.'),
			h('li', {}, 'Both must be reached under one host name. Pages of other origins that call the API are listed in PUBLIC_ORIGINS.'),
			h('li', {}, 'Scripts use ADMIN_TOKEN (“Authorization: Bearer …”) in place of a cookie; the command line does so by itself.'),
			h('li', {}, 'A demo prints links to sign in with.'))));
}

function noAdmin() {
	return h('section', { class: 'card signin stack' },
		h('h1', { tabIndex: -1 }, 'This is for administrators'),
		h('p', {}, who ? ['You are signed in as ', h('strong', {}, who.name), ', who is no administrator.'] : 'Who is signed in here is no administrator.',
			' Sign in to SkyPANEL as one, or have your role there changed to admin.'),
		retry(),
		h('p', {}, h('a', { href: './' }, 'Your own servers')));
}

async function greet() {
	try {
		who = await get('api/user/me');
		byId('who').textContent = who.name;
	} catch {
		who = null;
		byId('who').textContent = '';
	}
}

// --- start ---

refusals.addEventListener('refused', ({ detail }) => refused(detail));
addEventListener('hashchange', () => {
	if (!page) return;
	navigate().focus({ preventScroll: true });
	scrollTo(0, 0);
});
byId('skip').addEventListener('click', (event) => { // the hash is the view's
	event.preventDefault();
	byId('view').querySelector('h1')?.focus();
});
keepTrue(document);
greet();
live = watch();
// Nothing else is asked for until it is known who looks.
stand().then(() => { if (byId('refused').hidden) begin(); });
setInterval(() => { if (document.visibilityState === 'visible' && byId('refused').hidden) stand(); }, 15_000);
