// What the service's terms are called for people.

/** What a server's status means, for its customer and in general. */
export const statuses = {
	external: { label: 'External', hint: 'Created directly in VirtFusion, outside the billing panel.' },
	native: { label: 'Ordered', hint: 'Ordered in the billing panel.' },
	settling: { label: 'New', hint: 'Found a moment ago; it is being looked up whether it was ordered in the billing panel.' },
	unlinked: { label: 'Unlinked', hint: 'Its owner in VirtFusion is no customer of the billing panel.' },
	conflict: { label: 'In doubt', hint: 'The records disagree about it; a person has to look.' },
	gone: { label: 'Deleted', hint: 'It no longer exists in VirtFusion.' },
};

/** Why a server is not billed: in short, and for its customer with what to do. */
export const reasons = {
	unpriced: ['no price', 'Its plan has no price yet. Nothing is charged until your provider sets one; ask support if you want to know when.'],
	monthly_mode: ['billed by the month', 'Your provider bills by the month, so no hours are charged here.'],
	self_service: ['billed by VirtFusion', 'VirtFusion bills this server itself (self service).'],
	owner_inactive: ['customer inactive', 'Your account is not active. Ask support to activate it.'],
	destroyed: ['deleted', 'The server was deleted, and its billing ended.'],
	operator: ['switched off by an operator', 'Your provider switched billing off for this server.'],
	disabled_by_skypanel: ['switched off by SkyPANEL', 'The billing panel does not bill it at the moment. Ask support if you did not expect that.'],
};

/** reason in short: 'no price'. */
export const reasonLabel = (reason) => reasons[reason]?.[0] ?? String(reason ?? 'unknown').replaceAll('_', ' ');

/** What VirtFusion says a server does. The set is open. */
const states = { running: 'Running', complete: 'Ready', stopped: 'Stopped', shutdown: 'Stopped', queued: 'Being built', failed: 'Failed', paused: 'Paused' };

/** state of a server: a label, and how it is shown. */
export function stateOf(server) {
	if (server.status === 'gone') return { label: 'Deleted', tone: 'off' };
	if (server.suspended) return { label: 'Suspended', tone: 'warn' };
	const label = states[server.state] ?? (server.state ? server.state[0].toUpperCase() + server.state.slice(1) : 'Not known yet');
	const tone = { Running: 'good', Ready: 'good', Failed: 'bad', 'Being built': 'busy', Paused: 'warn' }[label] ?? 'off';
	return { label, tone };
}

/** What a run is doing. */
export const phases = {
	queued: 'Waiting to begin',
	listing: 'Asking VirtFusion for the servers',
	asking: 'Asking VirtFusion about servers that need a closer look',
	reviewing: 'Comparing with the billing records',
	preview: 'Working out what would change',
	waiting: 'Waiting for approval',
	approved: 'Approved, about to begin',
	applying: 'Bringing the billing records in step',
	finishing: 'Finishing',
	ended: 'Done',
};

/** What kinds of runs are called. */
export const kinds = { sweep: 'Sweep', sync: 'Sync', replay: 'Replay', bulk: 'Bulk action', undo: 'Undo' };

/** How a run stands: a label, and how it is shown. */
export const runStates = {
	running: { label: 'Running', tone: 'busy' },
	needs_approval: { label: 'Needs approval', tone: 'warn' },
	succeeded: { label: 'Succeeded', tone: 'good' },
	incomplete: { label: 'Incomplete', tone: 'warn' },
	failed: { label: 'Failed', tone: 'bad' },
	superseded: { label: 'Superseded', tone: 'off' },
};
