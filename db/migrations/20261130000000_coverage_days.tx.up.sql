-- How every server stood at the end of each day (UTC), and what VirtFusion itself
-- counted: so that a month later it can be shown that none was left out. The row
-- of the present day is renewed every hour, and after each complete sweep.
CREATE TABLE IF NOT EXISTS serversync.coverage_days (
    day                date PRIMARY KEY,
    written_at         timestamptz NOT NULL,
    -- The servers that were not gone; total is the sum of the parts after it.
    total              bigint NOT NULL,
    external_on        bigint NOT NULL,
    external_off       jsonb NOT NULL,         -- by reason: {"unpriced": 3}
    native             bigint NOT NULL,
    unlinked           bigint NOT NULL,
    conflict           bigint NOT NULL,
    settling           bigint NOT NULL,
    -- Dollars a month: by the rows' prices, and as SkyPANEL charges them.
    recorded_list      numeric(16,2) NOT NULL,
    recorded_effective numeric(16,2) NOT NULL,
    leaking_servers    bigint NOT NULL,
    leaking_list       numeric(16,2) NOT NULL,
    leaking_effective  numeric(16,2) NOT NULL,
    leaks              jsonb NOT NULL,         -- its causes, the dearest first
    -- The last complete sweep that ended on that day; null: there was none.
    sweep_run          text,
    sweep_at           timestamptz,
    virtfusion_total   bigint,                 -- VirtFusion's own count in that sweep
    known_least        bigint,                 -- what we know was there all the time that it took,
    known_most         bigint                  -- and at any time
);
