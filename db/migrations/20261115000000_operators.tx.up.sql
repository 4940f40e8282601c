-- An observation that cannot be placed in time, or evidence that only
-- VirtFusion can settle: what to ask it, and when it was last asked.
ALTER TABLE serversync.servers ADD COLUMN IF NOT EXISTS ask text NOT NULL DEFAULT '';
--bun:split
ALTER TABLE serversync.servers ADD COLUMN IF NOT EXISTS asked_at timestamptz;
--bun:split
-- When VirtFusion, asked, last showed the server, on its clock.
ALTER TABLE serversync.servers ADD COLUMN IF NOT EXISTS pulled_at timestamptz;
--bun:split
CREATE INDEX IF NOT EXISTS servers_ask ON serversync.servers (asked_at NULLS FIRST) WHERE ask <> '';

--bun:split
-- What operators wish of a server. The decision reads it, so that no later
-- event reverts it.
CREATE TABLE IF NOT EXISTS serversync.overrides (
    virtfusion_id  bigint NOT NULL,
    kind           text NOT NULL CHECK (kind IN ('billing_on', 'billing_off', 'package', 'ignore', 'undone')),
    package_id     bigint,                     -- for 'package': bill it as this VirtFusion package
    reason         text NOT NULL DEFAULT '',   -- in the operator's words
    set_by         text NOT NULL DEFAULT '',
    set_at         timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (virtfusion_id, kind)
);

--bun:split
-- When the books pass last ran, and what it found; one row per kind of pass.
CREATE TABLE IF NOT EXISTS serversync.passes (
    name         text PRIMARY KEY,             -- 'young', 'all'
    started_at   timestamptz NOT NULL,
    finished_at  timestamptz,
    servers      bigint NOT NULL DEFAULT 0,    -- how many were decided again
    changed      bigint NOT NULL DEFAULT 0     -- in how many something changed
);

--bun:split
-- Attempts at events that PostgreSQL refused while they stood alone. Deliveries
-- made while the database was away count for nothing.
CREATE TABLE IF NOT EXISTS serversync.faults (
    event_id     text PRIMARY KEY,
    attempts     integer NOT NULL,
    reason       text NOT NULL,
    first_at     timestamptz NOT NULL,
    last_at      timestamptz NOT NULL
);

--bun:split
CREATE INDEX IF NOT EXISTS billing_rows_created_at ON serversync.billing_rows (created_at);
