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
