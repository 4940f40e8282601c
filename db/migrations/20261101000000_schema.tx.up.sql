-- What serversync knows of every VirtFusion server: one row each.
CREATE TABLE IF NOT EXISTS serversync.servers (
    virtfusion_id          bigint PRIMARY KEY,
    uuid                   text NOT NULL DEFAULT '',
    owner_id               bigint NOT NULL DEFAULT 0,  -- VirtFusion user id, 0 = unknown
    owner_ext_relation_id  bigint,                     -- what VirtFusion says the owner's users.id is
    user_id                integer,                    -- SkyPANEL users.id, null = nobody
    name                   text NOT NULL DEFAULT '',
    hostname               text NOT NULL DEFAULT '',
    state                  text NOT NULL DEFAULT '',
    commission_status      bigint,                     -- 3 = commissioned, 0 = not yet built
    suspended              boolean NOT NULL DEFAULT false,
    protected              boolean NOT NULL DEFAULT false,
    build_failed           boolean NOT NULL DEFAULT false,
    self_service           bigint NOT NULL DEFAULT 0, -- not 0: VirtFusion bills it itself
    package_id             bigint,
    memory_mb              bigint,
    storage_gb             bigint,
    traffic_gb             bigint,
    cpu_cores              bigint,
    ip_addresses           text[] NOT NULL DEFAULT '{}', -- primary first
    hypervisor_id          bigint,
    hypervisor_name        text NOT NULL DEFAULT '',
    hypervisor_group_id    bigint,
    created_at             timestamptz,                -- VirtFusion's own times
    updated_at             timestamptz,
    built_at               timestamptz,
    -- What we made of it.
    status                 text NOT NULL CHECK (status IN ('settling', 'external', 'native', 'unlinked', 'conflict', 'gone')),
    billing                text NOT NULL DEFAULT 'off' CHECK (billing IN ('on', 'off')),
    billing_reason         text CHECK (billing_reason IN ('unpriced', 'monthly_mode', 'self_service', 'owner_inactive', 'destroyed', 'operator', 'disabled_by_skypanel')),
    billing_id             integer,                    -- the SkyPANEL billing row that counts
    note                   text NOT NULL DEFAULT '',   -- the status in words
    confirmed              boolean NOT NULL DEFAULT true, -- seen other than through a failed operation
    settle_until           timestamptz,
    gone_at                timestamptz,
    -- The newest observation.
    observed_at            timestamptz NOT NULL,       -- on VirtFusion's clock
    observed_source        text NOT NULL,
    observed_event_id      text NOT NULL,
    first_seen_at          timestamptz NOT NULL,       -- on our clock
    last_seen_at           timestamptz NOT NULL
) WITH (fillfactor = 85); -- room for updates in place: every event moves observed_at

--bun:split
-- The settler asks every second for what is due.
CREATE INDEX IF NOT EXISTS servers_settle_until ON serversync.servers (settle_until) WHERE status = 'settling';
--bun:split
CREATE INDEX IF NOT EXISTS servers_uuid ON serversync.servers (uuid);
--bun:split
CREATE INDEX IF NOT EXISTS servers_user_id ON serversync.servers (user_id);
--bun:split
CREATE INDEX IF NOT EXISTS servers_owner_id ON serversync.servers (owner_id);

--bun:split
-- Our record of billing rows that we made, and of SkyPANEL's own rows that we
-- switched off. Marks kept in SkyPANEL's tables alone could be dropped by its
-- schema tool. The values are those that we last wrote: a difference is
-- somebody else's work.
CREATE TABLE IF NOT EXISTS serversync.billing_rows (
    billing_id      integer PRIMARY KEY,       -- virtfusion_hourly_billing.id
    virtfusion_id   bigint NOT NULL,
    made_by         text NOT NULL CHECK (made_by IN ('serversync', 'skypanel')),
    user_id         integer NOT NULL,
    enabled         boolean NOT NULL,
    package_id      integer NOT NULL,
    monthly_price   numeric(10,4) NOT NULL,
    last_billed_at  timestamp,                 -- as SkyPANEL keeps it: UTC without zone
    charge_id       integer,                   -- the pending first charge that we recorded
    closed_reason   text,                      -- 'destroyed', 'moved', 'withdrawn', 'operator'
    run_id          text,
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL
);

--bun:split
CREATE INDEX IF NOT EXISTS billing_rows_virtfusion_id ON serversync.billing_rows (virtfusion_id);

--bun:split
-- Every change leaves a line, written in the change's own transaction.
CREATE TABLE IF NOT EXISTS serversync.history (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at             timestamptz NOT NULL,
    virtfusion_id  bigint NOT NULL,
    user_id        integer,
    billing_id     integer,
    kind           text NOT NULL,              -- what happened: see docs/database.md
    reason         text NOT NULL,              -- why, in words
    before         jsonb,
    after          jsonb,
    source         text NOT NULL DEFAULT '',
    event_id       text NOT NULL DEFAULT '',
    run_id         text
);

--bun:split
CREATE INDEX IF NOT EXISTS history_server ON serversync.history (virtfusion_id, id);
