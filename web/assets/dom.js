// Builds elements. Text is only ever set as text: whatever comes from the API
// may be written by strangers.

/**
 * h makes an element. Properties that begin with 'on' are listeners; `class`,
 * `role`, `aria-*`, `data-*` and what has a dash are attributes; the rest are
 * properties. Children are nodes or text; null, undefined and false are left out.
 */
export function h(tag, props, ...children) {
	const element = document.createElement(tag);
	for (const [name, value] of Object.entries(props ?? {})) {
		if (value === null || value === undefined || value === false) continue;
		if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
		else if (name === 'class' || name === 'role' || name === 'for' || name === 'list' || name === 'datetime' || name.includes('-')) element.setAttribute(name, value === true ? '' : String(value));
		else element[name] = value;
	}
	add(element, children);
	return element;
}

function add(element, children) {
	for (const child of children.flat(Infinity)) {
		if (child === null || child === undefined || child === false) continue;
		element.append(child instanceof Node ? child : String(child));
	}
}

/** fill replaces what is in an element. */
export function fill(element, ...children) {
	element.replaceChildren();
	add(element, children);
	return element;
}

/** say puts a text where it is not already: a live region speaks of changes only. */
export function say(element, text) {
	if (element.textContent !== text) element.textContent = text;
}

/** later runs a function once, a while after the last call. */
export function later(ms, run) {
	let timer = 0;
	return (...args) => {
		clearTimeout(timer);
		timer = setTimeout(() => run(...args), ms);
	};
}

/** soon runs a function a while after the first call: calls that go on do not put it off. */
export function soon(ms, run) {
	let timer = 0;
	return () => { timer ||= setTimeout(() => { timer = 0; run(); }, ms); };
}

const nameOf = (element) => element.id || element.getAttribute('href') || element.getAttribute('aria-label') || element.textContent;

/**
 * keeping draws something anew: what was opened in it stays open, and who is in
 * there keeps the focus. `draw` returns the element that has taken its place. Who
 * was at something that is no more is sent to `otherwise`.
 */
export function keeping(element, draw, otherwise = () => null) {
	const active = element.contains(document.activeElement) ? nameOf(document.activeElement) : null;
	const opened = new Set([...element.querySelectorAll('details[open] > summary')].map(nameOf));
	const now = draw();
	for (const summary of now.querySelectorAll('details > summary')) if (opened.has(nameOf(summary))) summary.parentElement.open = true;
	if (active !== null) ([...now.querySelectorAll('a, button, summary, input, select')].find((e) => nameOf(e) === active) ?? otherwise())?.focus({ preventScroll: true });
}

/** liveBadge says in a place whether a connection is live. */
export function liveBadge(live, place) {
	let before = false; // it was
	live.addEventListener('state', ({ detail }) => {
		before ||= detail === 'open';
		say(place, { open: 'Live', connecting: before ? 'Reconnecting …' : '', waiting: 'Reconnecting …' }[detail] ?? '');
		place.className = detail === 'open' ? 'dot good' : detail === 'waiting' ? 'dot warn' : '';
	});
}
