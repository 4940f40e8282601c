-- Which installation this is, in what it writes to VirtFusion's records of
-- credit: two of them may bill through one VirtFusion.
CREATE TABLE IF NOT EXISTS serversync.installation (id text PRIMARY KEY);
--bun:split
INSERT INTO serversync.installation (id)
SELECT substr(md5(random()::text || clock_timestamp()::text || current_database()), 1, 10)
WHERE NOT EXISTS (SELECT FROM serversync.installation);
--bun:split
-- The outbox of first charges (BILLING_INITIAL_CHARGE=deduct): each is written
-- with its billing row, and its credit is taken from VirtFusion afterwards,
-- once. What becomes of it is told in docs/first-charge.md.
CREATE TABLE IF NOT EXISTS serversync.charges (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    transaction_id  integer NOT NULL,          -- public.virtfusion_hourly_transactions
    billing_id      integer NOT NULL,          -- public.virtfusion_hourly_billing
    virtfusion_id   bigint NOT NULL,           -- the server
    user_id         integer NOT NULL,          -- SkyPANEL's users.id, VirtFusion's extRelationId
    owner_id        bigint NOT NULL,           -- VirtFusion's id of the user
    tokens          bigint NOT NULL CHECK (tokens > 0), -- whole ones, each a cent
    reference       text NOT NULL,             -- reference_2 of the credit call; reference_1 is transaction_id
    state           text NOT NULL DEFAULT 'due' CHECK (state IN ('due', 'taking', 'taken', 'failed', 'unclear', 'cancelled')),
    reason          text NOT NULL DEFAULT '',  -- in words; of a due one why the last attempt took nothing
    attempts        bigint NOT NULL DEFAULT 0,
    created_at      timestamptz NOT NULL,
    due_at          timestamptz NOT NULL,      -- not taken before
    taking_at       timestamptz,               -- when the last attempt began
    ended_at        timestamptz,               -- null: it is open
    credit_id       text,                      -- VirtFusion's, where it named one
    ledger_id       integer                    -- public.transactions
);
--bun:split
CREATE INDEX IF NOT EXISTS charges_due ON serversync.charges (due_at, id) WHERE state = 'due';
--bun:split
CREATE INDEX IF NOT EXISTS charges_open ON serversync.charges (state) WHERE state IN ('due', 'taking', 'unclear');
--bun:split
CREATE INDEX IF NOT EXISTS charges_transaction ON serversync.charges (transaction_id);
--bun:split
CREATE INDEX IF NOT EXISTS charges_billing ON serversync.charges (billing_id);
