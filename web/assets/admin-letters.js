// Dead letters: events that could not be reconciled, and wait for a person.
import { call, get } from './api.js';
import { fill, h } from './dom.js';
import { ago, plural, when } from './format.js';
import { ask, button, pages, serverLink } from './admin-parts.js';

/** server that an event is about, by its subject: virtfusion.users.<owner>.servers.<server>.<kind>. */
const serverOf = (letter) => /\.servers\.(\d+)\./.exec(letter.subject)?.[1];

export function letters(page) {
	const body = h('ul', { class: 'stack' });
	const said = h('div', { role: 'status' });
	const list = pages({
		element: body, body, auto: '400px', item: letter, signal: page.signal,
		read: async ({ cursor, signal }) => {
			const found = await get('api/admin/dead-letters', { cursor }, signal);
			return { items: found.items, next: found.nextCursor };
		},
		empty: [h('p', {}, h('strong', {}, 'No dead letters.')), h('p', {}, 'Every event was reconciled. One that fails again and again is put here, so that it does not hold up the others.')],
	});

	function gone(id, message) {
		if (page.signal.aborted) return;
		list.drop(id);
		fill(said, h('p', { class: 'notice good' }, message));
		page.root.parentElement.querySelector('h1').focus({ preventScroll: true }); // where the focus was is no more
	}
	function discard(l) {
		const server = serverOf(l);
		ask({
			title: 'Give this event up?', yes: 'Discard it', danger: true,
			body: [h('p', {}, 'What it said', server ? ` of server ${server}` : '', ' is not looked at any more, and it cannot be requeued from here.'),
				h('p', {}, 'What the server looks like is learnt from VirtFusion at the next sweep. A change that has passed by then is never known.')],
			run: async () => gone(l.id, (await call('DELETE', `api/admin/dead-letters/${l.id}`)).message || 'It was discarded.'),
		});
	}
	function letter(l) {
		const place = h('div');
		const server = serverOf(l);
		return h('li', { class: 'card stack' },
			h('p', { class: 'notice bad' }, l.reason || 'Nobody said why.'),
			h('p', {}, server ? ['About ', serverLink(server), '. '] : null, `Tried ${plural(l.attempts, 'time')}: first `, ago(l.firstAt), ', last ', ago(l.lastAt), '.'),
			h('p', { class: 'small soft' }, h('code', {}, l.subject), l.sequence ? ` · number ${l.sequence} on the stream` : '', ' · stored ', when(l.storedAt)),
			h('details', {}, h('summary', {}, 'The event'), l.omitted ? h('p', {}, 'It is too large to be shown here. It can be requeued.')
				: h('pre', { class: 'mono', tabIndex: 0 }, l.event === null ? l.text ?? '' : JSON.stringify(l.event, null, 2))),
			h('div', { class: 'row' },
				button('Requeue', place, async () => gone(l.id, (await call('POST', `api/admin/dead-letters/${l.id}/requeue`)).message || 'It is tried again.'), 'first'),
				h('button', { type: 'button', class: 'danger', onclick: () => discard(l) }, 'Discard …')), place);
	}
	page.refresh = list.renew;
	let known = null;
	page.stands = (o) => {
		if (known !== null && o.deadLetters > known) list.renew();
		known = o.deadLetters;
	};
	page.root.append(h('p', { class: 'soft' }, 'Mend what the reason says first. Requeue puts an event back at the end of the stream; what is newer is never overwritten by it.'), said, list.outside);
	list.load();
}
