-- Whatever looks at many servers at once: a sweep of all, one user's sync.
CREATE TABLE IF NOT EXISTS serversync.runs (
    id             text PRIMARY KEY,
    kind           text NOT NULL CHECK (kind IN ('sweep', 'sync', 'replay', 'bulk', 'undo')),
    state          text NOT NULL CHECK (state IN ('running', 'needs_approval', 'succeeded', 'incomplete', 'failed', 'superseded')),
    phase          text NOT NULL DEFAULT 'queued', -- what it is at: see docs/database.md
    dry_run        boolean NOT NULL DEFAULT false,
    user_id        integer,                    -- SkyPANEL users.id; null: all users
    requested_by   text NOT NULL DEFAULT '',
    started_at     timestamptz NOT NULL,
    ended_at       timestamptz,
    beat_at        timestamptz NOT NULL,       -- the last sign of life of whoever works on it
    worker         text NOT NULL DEFAULT '',   -- who that is
    progress       jsonb NOT NULL DEFAULT '{}', -- pages, servers, API calls; where to go on after a crash
    problems       jsonb NOT NULL DEFAULT '[]', -- what it could not see or do: code and message each
    preview        jsonb,                      -- what it would change, and what that costs
    approved_by    text,
    approved_at    timestamptz,
    superseded_by  text,
    note           text NOT NULL DEFAULT ''    -- the state in words
);

--bun:split
-- One sweep at a time; dry runs change nothing and may run beside it.
CREATE UNIQUE INDEX IF NOT EXISTS runs_one_sweep ON serversync.runs (kind) WHERE kind = 'sweep' AND state = 'running' AND NOT dry_run;
--bun:split
-- One sync of a user at a time.
CREATE UNIQUE INDEX IF NOT EXISTS runs_one_sync ON serversync.runs (user_id) WHERE kind = 'sync' AND state = 'running' AND NOT dry_run;
--bun:split
CREATE INDEX IF NOT EXISTS runs_started_at ON serversync.runs (started_at DESC, id DESC);
--bun:split
-- The leader asks every second what is open.
CREATE INDEX IF NOT EXISTS runs_open ON serversync.runs (started_at) WHERE state IN ('running', 'needs_approval');

--bun:split
-- The servers of a run. A run's totals are counted from these, so that an event
-- that is delivered twice cannot count twice.
CREATE TABLE IF NOT EXISTS serversync.run_items (
    run_id         text NOT NULL REFERENCES serversync.runs ON DELETE CASCADE,
    virtfusion_id  bigint NOT NULL,
    found          text NOT NULL,              -- why it is here: 'new', 'changed', 'gone', …
    state          text NOT NULL CHECK (state IN ('staged', 'held', 'sent', 'done')),
    event          text,                       -- the observation, until it is done; null: none, or not asked yet
    effect         text,                       -- what it would do to the books; null: not previewed
    forecast       jsonb,                      -- the same with names and prices
    outcome        text CHECK (outcome IN ('new', 'updated', 'unchanged', 'failed')),
    error          text,
    PRIMARY KEY (run_id, virtfusion_id)
);

--bun:split
CREATE INDEX IF NOT EXISTS run_items_open ON serversync.run_items (run_id, state, virtfusion_id) WHERE state <> 'done';

--bun:split
-- The run whose changes of this server wait for a person's approval: until then
-- nothing decides it. Empty: none.
ALTER TABLE serversync.servers ADD COLUMN IF NOT EXISTS awaiting_run text NOT NULL DEFAULT '';
--bun:split
CREATE INDEX IF NOT EXISTS servers_awaiting_run ON serversync.servers (awaiting_run) WHERE awaiting_run <> '';
--bun:split
-- The run that found it, while it settles: its billing row will belong to that run.
ALTER TABLE serversync.servers ADD COLUMN IF NOT EXISTS run_id text;
--bun:split
CREATE INDEX IF NOT EXISTS billing_rows_run_id ON serversync.billing_rows (run_id) WHERE run_id IS NOT NULL;
--bun:split
-- Sweeps review all servers now.
DELETE FROM serversync.passes WHERE name = 'all';
