// A list that comes in pages, and stays true while things change.
import { keeping, soon } from './dom.js';

const atOnce = 200; // things that are read by their keys in one request
const calm = 400; // ms in which changes are gathered
const firstPause = 2000; // ms after a failure of what nobody waits for
const longestPause = 60_000;

/**
 * pagedList shows what the API lists in `body`, an element for each thing. It
 * promises:
 *
 * - What is shown is of one query: that of the last load that succeeded. Further
 *   pages and renewals use it, whatever a form says by then, and what a new load
 *   overtakes shows nothing.
 * - There is one request at a time. What a reader asks for (load) ends what nobody
 *   waits for (changed, renew), which is done afterwards.
 * - Things are in the API's order, and each is there once. What is new appears where
 *   it belongs if that is on its first page, or if no page is left to be loaded. What
 *   changes keeps its place until the list is renewed.
 * - An element is drawn anew only if its thing's `text` has changed; what was opened in it
 *   stays open, and the focus stays. A renewal keeps what was scrolled to.
 * - Nothing is repeated without a pause. What a reader asked for waits for them,
 *   or for renew, after a failure: `trouble(error, again)` is told, and `trouble(null)` once
 *   it has succeeded. The rest is tried again after a pause.
 * - Nothing happens once `signal` is aborted.
 *
 * `read({query, cursor, again, signal})` returns {items, next}; cursor null: the first
 * page; again: it is read once more, so that large pages are best. `some({query, keys,
 * signal})` returns those of at most 200 things that match; without it, what changed is found
 * page by page. `item(x)` makes an element, `key(x)` tells things apart, `joins(x)` says
 * whether one that is found by its key may appear; `left(element, drop)` is told of those that
 * match no more. `changed({size, more, query})` is called when something has been read.
 */
export function pagedList({
	body, more, read, item, trouble, some = null, key = (x) => x.id, text = JSON.stringify, query = () => ({}), joins = () => true,
	left = (element, drop) => drop(), auto = '', signal = null, busy = () => {}, changed = () => {},
}) {
	const shown = new Map(); // by key: {text, element}; text null: it has left
	const keys = new WeakMap(); // of the elements
	const stale = new Set(); // keys of what changed since it was read
	let allStale = false;
	let asked = null; // the query of what is shown
	let next = null; // cursor of the next page
	let request = null; // the one under way
	let failed = null; // does again what a reader asked for
	let pause = 0;
	let timer = 0; // of a pause

	// --- elements ---

	/** draw makes the element of a thing, or renews the one that there is. A new one is in no place yet. */
	function draw(x, mark) {
		const k = key(x);
		const now = text(x);
		const old = shown.get(k);
		if (old?.text === now) return old.element;
		const element = item(x);
		if (mark) element.classList.add('changed');
		if (old) keeping(old.element, () => { old.element.replaceWith(element); return element; });
		keys.set(element, k);
		shown.set(k, { text: now, element });
		return element;
	}

	function remove(k) {
		shown.get(k)?.element.remove();
		shown.delete(k);
	}

	function leave(k) {
		const it = shown.get(k);
		if (!it) return;
		it.text = null;
		left(it.element, () => remove(k));
	}

	/** merge shows things in their order, from the top; the others stay behind those that they follow. */
	function merge(things) {
		let above = null;
		const below = () => (above ? above.nextElementSibling : body.firstElementChild);
		for (const [k, x] of things) {
			let at = below();
			while (at && !things.has(keys.get(at))) at = at.nextElementSibling;
			const here = at !== null && keys.get(at) === k;
			const element = draw(x, true);
			if (!here) keeping(element, () => { body.insertBefore(element, below()); return element; });
			above = element;
		}
	}

	function settle() {
		more.hidden = next === null;
		changed({ size: shown.size, more: next !== null, query: asked });
	}

	// --- requests ---

	function begin(waited) {
		request?.abort();
		request = new AbortController();
		request.waited = waited; // for by a reader
		more.disabled = waited;
		busy(waited);
		return request;
	}

	function end(mine) {
		if (request !== mine) return;
		request = null;
		more.disabled = false;
		busy(false);
		if (stale.size > 0 || allStale) refreshSoon();
		if (failed === null) watchEnd();
	}

	/** load reads the first page of the query as it is now, or the next one of what is shown. */
	async function load(first = true) {
		if (signal?.aborted || !first && request?.waited) return;
		const mine = begin(true);
		const its = first ? query() : asked;
		const known = first ? [...stale] : [];
		if (first) allStale = false;
		try {
			const page = await read({ query: its, cursor: first ? null : next, again: false, signal: mine.signal });
			if (request !== mine) return;
			if (first) {
				shown.clear();
				body.replaceChildren();
				asked = its;
				for (const k of known) stale.delete(k);
			}
			for (const x of page.items) {
				const old = shown.has(key(x));
				const element = draw(x, false);
				if (!old) body.append(element);
			}
			next = page.next ?? null;
			failed = null;
			trouble(null);
			settle();
		} catch (error) {
			if (request !== mine || error.name === 'AbortError') return;
			failed = () => load(first);
			trouble(error, failed);
		} finally {
			end(mine);
		}
	}

	/**
	 * reread reads from the top: until what is wanted is found, or all that is shown
	 * (wanted null). It returns the keys of what is shown and was not found.
	 */
	async function reread(mine, wanted) {
		const things = new Map();
		const last = keys.get(body.lastElementChild ?? body);
		const empty = shown.size === 0;
		let cursor = null;
		let met = false; // what is shown
		for (let enough = false; !enough;) {
			const page = await read({ query: asked, cursor, again: true, signal: mine.signal });
			if (request !== mine) throw new DOMException('overtaken', 'AbortError');
			for (const x of page.items) {
				things.set(key(x), x);
				wanted?.delete(key(x));
			}
			cursor = page.next ?? null;
			const here = page.items.some((x) => shown.has(key(x)));
			const passed = things.has(last) || met && !here; // the end of what is shown
			met ||= here;
			enough = cursor === null || empty || (next === null ? met && wanted?.size === 0 : passed || met && wanted !== null);
		}
		const complete = cursor === null || wanted === null;
		if (cursor === null || empty) next = cursor;
		if (next !== null && !empty) { // what follows the last that is shown is on a page to come
			const order = [...things.keys()];
			order.slice(order.findLastIndex((k) => shown.has(k)) + 1).forEach((k) => things.delete(k));
		}
		merge(things);
		return complete ? [...shown.keys()].filter((k) => !things.has(k)) : [];
	}

	/** look reads things by their keys, and returns those that match and are not shown. */
	async function look(mine, all) {
		const found = new Set();
		for (let i = 0; i < all.length; i += atOnce) {
			const batch = all.slice(i, i + atOnce);
			const items = new Map((await some({ query: asked, keys: batch, signal: mine.signal })).map((x) => [key(x), x]));
			if (request !== mine) throw new DOMException('overtaken', 'AbortError');
			for (const k of batch) {
				const x = items.get(k);
				if (!x) leave(k);
				else if (shown.has(k)) draw(x, true);
				else if (joins(x)) found.add(k);
			}
			settle();
		}
		return found;
	}

	/** refresh brings in step what is stale, unless something else is under way: the end of that comes back to it. */
	async function refresh() {
		if (asked === null || request !== null || timer !== 0 || signal?.aborted || stale.size === 0 && !allStale) return;
		const mine = begin(false);
		const all = allStale;
		const taken = [...stale];
		stale.clear();
		allStale = false;
		try {
			const lost = all ? await reread(mine, null) : taken;
			let wanted;
			if (some) wanted = await look(mine, lost);
			else {
				wanted = new Set(taken.filter((k) => !all && !shown.has(k)));
				if (all) lost.forEach(leave);
			}
			if (wanted.size > 0) await reread(mine, wanted);
			pause = 0;
			settle();
		} catch (error) {
			for (const k of taken) stale.add(k);
			allStale ||= all;
			if (request !== mine || error.name === 'AbortError') return refreshSoon(); // after what overtook it
			if (error.name !== 'ApiError' || error.status >= 400 && error.status < 500 && !error.passing) { // it would fail again
				stale.clear();
				allStale = false;
				if (error.name !== 'ApiError') throw error;
				return;
			}
			pause = Math.min(Math.max(2 * pause, firstPause), longestPause);
			timer = setTimeout(() => { timer = 0; refresh(); }, Math.max(pause, 1000 * error.retryAfter));
		} finally {
			end(mine);
		}
	}

	const refreshSoon = soon(calm, refresh);

	// --- the end of what is shown ---

	// The next page is there before its reader is.
	const atEnd = auto === '' ? null : new IntersectionObserver((seen) => {
		if (seen.some((s) => s.isIntersecting) && next !== null && failed === null) load(false);
	}, { rootMargin: auto });

	function watchEnd() { // anew: it may still be in sight
		atEnd?.unobserve(more);
		if (!signal?.aborted) atEnd?.observe(more);
	}

	more.addEventListener('click', () => load(false));
	signal?.addEventListener('abort', () => {
		request?.abort();
		clearTimeout(timer);
		atEnd?.disconnect();
	});

	return {
		load,
		/** element of a thing that is shown. */
		element: (k) => shown.get(k)?.element,
		/** keys of what is shown. */
		keys: () => [...shown.keys()],
		/** put shows a thing as it is now; one that is not shown yet is looked for. */
		put(x) {
			if (!shown.has(key(x))) return this.changed(key(x));
			draw(x, false);
			settle();
		},
		drop(k) {
			stale.delete(k);
			remove(k);
			settle();
		},
		/** changed says that a thing is not as it was, or is new: it is read in a moment. */
		changed(k) {
			stale.add(k);
			refreshSoon();
		},
		/** renew reads all that is shown again, and does again what failed: nobody knows what has happened. */
		renew() {
			clearTimeout(timer);
			timer = 0;
			pause = 0;
			allStale = true;
			if (failed) failed();
			else refresh();
		},
	};
}
