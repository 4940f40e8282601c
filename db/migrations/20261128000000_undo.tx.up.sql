-- 'keep': what a run changed of the server's rows was taken back, and they stay
-- as they are. Older versions read no such wish, and go on changing them.
ALTER TABLE serversync.overrides DROP CONSTRAINT IF EXISTS overrides_kind_check;
--bun:split
ALTER TABLE serversync.overrides ADD CONSTRAINT overrides_kind_check
    CHECK (kind IN ('billing_on', 'billing_off', 'package', 'ignore', 'undone', 'keep'));
--bun:split
-- The owner (SkyPANEL users.id) for whom 'undone' and 'keep' hold; null: anybody.
-- For another one the server is decided as ever.
ALTER TABLE serversync.overrides ADD COLUMN IF NOT EXISTS user_id integer;
