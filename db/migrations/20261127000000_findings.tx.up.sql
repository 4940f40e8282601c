-- What the watchdog found wrong with SkyPANEL's billing, since when, and until
-- when: so that each case is told once, and an auditor can be answered.
CREATE TABLE IF NOT EXISTS serversync.findings (
    rule           text NOT NULL,
    server_id      bigint NOT NULL,            -- VirtFusion's; 0: no single server
    user_id        bigint NOT NULL,            -- SkyPANEL's; 0: no single user
    severity       text NOT NULL CHECK (severity IN ('critical', 'warning', 'info')),
    evidence       text NOT NULL,              -- as last seen
    amount         numeric,                    -- dollars; null: nobody can say
    first_seen_at  timestamptz NOT NULL,
    last_seen_at   timestamptz NOT NULL,
    cleared_at     timestamptz,                -- null: it is still so
    PRIMARY KEY (rule, server_id, user_id)
);

--bun:split
CREATE INDEX IF NOT EXISTS findings_open ON serversync.findings (rule) WHERE cleared_at IS NULL;
