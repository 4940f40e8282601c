-- Full proofs: every stored server that is not gone beside a full read of
-- VirtFusion's, once a week. What is here is the result, and is kept for good.
CREATE TABLE IF NOT EXISTS serversync.proofs (
    id               text PRIMARY KEY,
    state            text NOT NULL CHECK (state IN ('running', 'complete', 'incomplete')),
    requested_by     text NOT NULL,
    started_at       timestamptz NOT NULL,
    ended_at         timestamptz,               -- null: it runs
    note             text NOT NULL DEFAULT '',  -- the state in words
    problems         jsonb NOT NULL DEFAULT '[]', -- why it is not complete
    sweep_run        text NOT NULL DEFAULT '',  -- the sweep that went before it; empty: none yet
    page             bigint NOT NULL DEFAULT 0, -- VirtFusion's pages that were read, of
    pages            bigint NOT NULL DEFAULT 0,
    calls            bigint NOT NULL DEFAULT 0, -- of VirtFusion's API, without the sweep's
    virtfusion_total bigint NOT NULL DEFAULT 0, -- VirtFusion's own count
    listed           bigint NOT NULL DEFAULT 0, -- different servers that its list showed
    known_least      bigint NOT NULL DEFAULT 0, -- what we know was there all the time that it took,
    known_most       bigint NOT NULL DEFAULT 0, -- and at any time
    agree            bigint NOT NULL DEFAULT 0, -- of total, the servers that neither differ nor wait for approval
    moved            bigint NOT NULL DEFAULT 0, -- differed at the first look and agreed at the next by themselves
    mended           bigint NOT NULL DEFAULT 0, -- still differed, and agreed once the fresh look was applied
    awaiting         bigint NOT NULL DEFAULT 0, -- of total, those whose changes wait for a person's approval
    mismatches       bigint NOT NULL DEFAULT 0, -- servers that stayed different, and 1 for a total that does
    details          jsonb NOT NULL DEFAULT '[]', -- of those, what differs: the first 1,000
    -- How the servers that are not gone stood at its end; total is the sum of the parts after it.
    total            bigint NOT NULL DEFAULT 0,
    external_on      bigint NOT NULL DEFAULT 0,
    external_off     jsonb NOT NULL DEFAULT '{}', -- by reason: {"unpriced": 3}
    native           bigint NOT NULL DEFAULT 0,
    unlinked         bigint NOT NULL DEFAULT 0,
    conflict         bigint NOT NULL DEFAULT 0,
    settling         bigint NOT NULL DEFAULT 0
);
--bun:split
-- One at a time.
CREATE UNIQUE INDEX IF NOT EXISTS proofs_running ON serversync.proofs (state) WHERE state = 'running';
--bun:split
CREATE INDEX IF NOT EXISTS proofs_started ON serversync.proofs (started_at, id);
