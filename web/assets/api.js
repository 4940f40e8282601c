// Talks to the HTTP API that this file was loaded from.

/** Where the service is: the folder above this module's. */
export const home = new URL('..', import.meta.url);

/** An answer that is no success, or none at all. Its message is for people. */
export class ApiError extends Error {
	/**
	 * @param {number} status HTTP status; 0: nothing answered
	 * @param {string} code stable, for programs
	 * @param {string} message says what to do
	 * @param {{requestId?: string, retryAfter?: number}} [more]
	 */
	constructor(status, code, message, { requestId = '', retryAfter = 0 } = {}) {
		super(message);
		this.name = 'ApiError';
		Object.assign(this, { status, code, requestId, retryAfter });
	}

	/** Nobody is signed in, or not any more. */
	get signedOut() { return this.status === 401; }

	/** The same may work in a moment. */
	get passing() { return this.status === 0 || this.status === 429 || this.status >= 502; }
}

/**
 * url of a path of the service, with those of the query's values that are there.
 * @param {string} path relative, such as 'api/user/servers'
 * @param {Record<string, unknown>} [query]
 */
export function url(path, query = {}) {
	const u = new URL(path, home);
	for (const [name, value] of Object.entries(query)) {
		if (value !== undefined && value !== null && value !== '') u.searchParams.set(name, String(value));
	}
	return u;
}

/**
 * call sends a request and returns the whole answer: data, message, and headers.
 * Throws [ApiError], or the AbortError of its signal.
 */
export async function call(method, path, { query, body, signal } = {}) {
	let response;
	try {
		response = await fetch(url(path, query), {
			method, signal, credentials: 'include', cache: 'no-store',
			headers: body === undefined ? {} : { 'Content-Type': 'application/json' },
			body: body === undefined ? undefined : JSON.stringify(body),
		});
	} catch (error) {
		if (error.name === 'AbortError') throw error;
		throw new ApiError(0, 'unreachable', 'The service cannot be reached. Check the connection, then try again.');
	}
	const more = {
		requestId: response.headers.get('X-Request-ID') ?? '',
		retryAfter: Number(response.headers.get('Retry-After')) || 0,
	};
	let answer;
	try {
		answer = await response.json();
	} catch (error) {
		if (error.name === 'AbortError') throw error;
		throw new ApiError(response.status, 'unreadable', `Something between this page and the service answered in its place (status ${response.status}). Try again in a minute.`, more);
	}
	if (!response.ok || answer?.success !== true) {
		throw new ApiError(response.status, answer?.error?.code ?? 'unknown', answer?.error?.message ?? `The service answered with status ${response.status}. Try again.`, more);
	}
	return { data: answer.data, message: answer.message ?? '', headers: response.headers, status: response.status };
}

/** get returns the data of a path. */
export async function get(path, query, signal) {
	return (await call('GET', path, { query, signal })).data;
}

/** post sends a body and returns the data of the answer. */
export async function post(path, query, body) {
	return (await call('POST', path, { query, body })).data;
}
