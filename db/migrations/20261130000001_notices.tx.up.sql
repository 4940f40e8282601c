-- What administrators are told of, each once: whoever finds it again finds its
-- subject taken.
CREATE TABLE IF NOT EXISTS serversync.notices (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subject    text NOT NULL UNIQUE,
    kind       text NOT NULL,                  -- see docs/notifications.md
    severity   text NOT NULL CHECK (severity IN ('critical', 'warning', 'info')),
    title      text NOT NULL,
    message    text NOT NULL,
    server_id  bigint,                         -- VirtFusion's
    run_id     text,
    at         timestamptz NOT NULL            -- when it was found
);
--bun:split
CREATE INDEX IF NOT EXISTS notices_at ON serversync.notices (at);
--bun:split
-- What is sent: some notices in one message, by one channel.
CREATE TABLE IF NOT EXISTS serversync.notice_messages (
    id            text PRIMARY KEY,            -- stays the same however often it is sent
    channel       text NOT NULL,               -- 'skypanel', 'webhook', 'email'
    made_at       timestamptz NOT NULL,
    attempts      integer NOT NULL DEFAULT 0,
    next_at       timestamptz NOT NULL,        -- when it may be sent (again)
    error         text NOT NULL DEFAULT '',    -- of the last attempt
    delivered_at  timestamptz                  -- null: not yet
);
--bun:split
CREATE INDEX IF NOT EXISTS notice_messages_due ON serversync.notice_messages (channel, next_at) WHERE delivered_at IS NULL;
--bun:split
CREATE TABLE IF NOT EXISTS serversync.notice_deliveries (
    notice_id   bigint NOT NULL REFERENCES serversync.notices (id) ON DELETE CASCADE,
    channel     text NOT NULL,
    message_id  text NOT NULL REFERENCES serversync.notice_messages (id) ON DELETE CASCADE,
    PRIMARY KEY (notice_id, channel)           -- a notice goes out once by each
);
--bun:split
CREATE INDEX IF NOT EXISTS notice_deliveries_message ON serversync.notice_deliveries (message_id);
