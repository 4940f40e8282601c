import { get, home } from './api.js';

const firstWait = 500; // ms
const longestWait = 15_000;
const quietFor = 45_000; // after so long without a message it is looked whether anybody is there
const answerWithin = 10_000;

/**
 * What happens, as it happens: a WebSocket that comes back by itself.
 *
 * Events: `message` (detail: the message, see the interface's description),
 * `state` (detail: 'connecting', 'open', 'waiting', 'refused' or 'closed').
 * Every connection begins with a snapshot, so that nothing is missed in between.
 */
export class Live extends EventTarget {
	#path;
	#socket = null;
	#timer = 0;
	#watchdog = 0;
	#wait = firstWait;
	#run = '';
	state = 'closed';

	/** @param {string} path of the WebSocket, such as 'api/user/servers/sync/live' */
	constructor(path) {
		super();
		this.#path = path;
	}

	/** open connects, and stays connected until close. */
	open() {
		if (this.state !== 'closed' && this.state !== 'refused') return;
		globalThis.addEventListener('online', this.#now);
		globalThis.addEventListener('offline', this.#lost);
		document.addEventListener('visibilitychange', this.#now);
		this.#connect();
	}

	close() {
		globalThis.removeEventListener('online', this.#now);
		globalThis.removeEventListener('offline', this.#lost);
		clearTimeout(this.#watchdog);
		document.removeEventListener('visibilitychange', this.#now);
		clearTimeout(this.#timer);
		this.#set('closed');
		this.#socket?.close(1000);
		this.#socket = null;
	}

	/** follow has a run in the snapshots to come, though it is no longer among the newest. */
	follow(runId) { this.#run = runId; }

	#set(state) {
		if (state === this.state) return;
		this.state = state;
		this.dispatchEvent(new CustomEvent('state', { detail: state }));
	}

	// A page that comes back to the front, or to the network, does not wait.
	#now = () => {
		if (this.state === 'waiting' && document.visibilityState === 'visible' && navigator.onLine) {
			clearTimeout(this.#timer);
			this.#connect();
		}
	};

	// The network went away, or nobody answers: a connection that only seems to be
	// there is given up.
	#lost = () => {
		const socket = this.#socket;
		if (!socket) return;
		this.#socket = null;
		socket.close();
		this.#again();
	};

	#watch() {
		clearTimeout(this.#watchdog);
		this.#watchdog = setTimeout(async () => {
			const socket = this.#socket;
			try {
				await get('api/user/me', {}, AbortSignal.timeout(answerWithin));
			} catch (error) {
				if (this.#socket === socket && error.status !== 401) return this.#lost();
			}
			if (this.#socket === socket && socket) this.#watch();
		}, quietFor);
	}

	#connect() {
		this.#set('connecting');
		const address = new URL(this.#path, home);
		address.protocol = address.protocol === 'https:' ? 'wss:' : 'ws:';
		if (this.#run) address.searchParams.set('run', this.#run);
		const socket = new WebSocket(address);
		this.#socket = socket;
		let opened = false;
		socket.addEventListener('message', (event) => {
			if (socket !== this.#socket) return;
			if (!opened) { // the first message, not the handshake: a proxy may answer that by itself
				opened = true;
				this.#wait = firstWait;
				this.#set('open');
			}
			this.#watch();
			this.dispatchEvent(new CustomEvent('message', { detail: JSON.parse(event.data) }));
		});
		socket.addEventListener('close', () => {
			if (socket !== this.#socket) return;
			this.#socket = null;
			this.#again();
		});
	}

	// A browser does not say why a WebSocket was refused: the API does.
	async #again() {
		this.#set('waiting');
		const jitter = 0.5 + Math.random() / 2;
		this.#timer = setTimeout(() => this.#connect(), this.#wait * jitter);
		this.#wait = Math.min(this.#wait * 2, longestWait);
		try {
			await get('api/user/me');
		} catch (error) {
			if (error.signedOut && this.state === 'waiting') {
				this.close();
				this.#set('refused');
			}
		}
	}
}
