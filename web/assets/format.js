// Numbers, money and times as people read them.
import { h } from './dom.js';

const numbers = new Intl.NumberFormat('en');
const dollars = new Intl.NumberFormat('en-US', { style: 'currency', currency: 'USD' });
const moments = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'medium' });
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: 'short' });
const distances = new Intl.RelativeTimeFormat('en', { numeric: 'auto' });

/** number: 12,345; a dash where there is none. */
export const number = (n) => (n === null || n === undefined ? '–' : numbers.format(n));

/** plural: '1 server', '2 servers'. */
export const plural = (n, one, many = `${one}s`) => `${numbers.format(n)} ${n === 1 ? one : many}`;

/** money of an amount as the API writes it, a decimal string of dollars. */
export const money = (amount) => (amount === null || amount === undefined ? '–' : dollars.format(amount));

/** at: the time of the day of a moment. */
export const at = (moment) => clock.format(new Date(moment));

const units = [[60, 'second'], [60, 'minute'], [24, 'hour'], [30, 'day'], [12, 'month'], [Infinity, 'year']];

function distance(moment) {
	let amount = (new Date(moment) - Date.now()) / 1000;
	if (Math.abs(amount) < 10) return 'just now';
	for (const [size, unit] of units) {
		if (Math.abs(amount) < size) return distances.format(Math.round(amount), unit);
		amount /= size;
	}
	return '';
}

/** ago makes an element that says how long ago a moment was, and stays true. */
export function ago(moment) {
	if (!moment) return h('span', {}, 'never');
	return h('time', { datetime: moment, title: moments.format(new Date(moment)), 'data-ago': true }, distance(moment));
}

/** when: the moment itself, in the reader's own time zone. */
export function when(moment) {
	if (!moment) return h('span', {}, '–');
	return h('time', { datetime: moment, title: `${moment} (UTC)` }, moments.format(new Date(moment)));
}

/** keepTrue renews what ago says below a root, as time goes by. */
export function keepTrue(root) {
	return setInterval(() => {
		for (const element of root.querySelectorAll('time[data-ago]')) {
			const text = distance(element.dateTime);
			if (element.textContent !== text) element.textContent = text;
		}
	}, 10_000);
}

/** took: how long something lasted. */
export function took(from, to) {
	const seconds = Math.max(0, (new Date(to ?? Date.now()) - new Date(from)) / 1000);
	if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
	if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
	return `${Math.floor(seconds / 3600)} h ${Math.round((seconds % 3600) / 60)} min`;
}

/** resources of a server: '2 cores · 4 GB memory · 80 GB disk'. */
export function resources(r) {
	const parts = [];
	if (r?.cpuCores) parts.push(plural(r.cpuCores, 'core'));
	if (r?.memoryMb) parts.push(r.memoryMb >= 1024 ? `${numbers.format(Math.round(r.memoryMb / 102.4) / 10)} GB memory` : `${numbers.format(r.memoryMb)} MB memory`);
	if (r?.storageGb) parts.push(`${numbers.format(r.storageGb)} GB disk`);
	return parts.join(' · ') || 'not said yet';
}

/** sentence of words that begin small and end without a stop, as the API's do. */
export const sentence = (text) => (text ? `${text[0].toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? '' : '.'}` : '');
