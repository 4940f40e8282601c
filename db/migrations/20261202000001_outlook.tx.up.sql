-- What a server would do to the books by now, looked at again after an approval:
-- the forecast stays what a person has approved. Null: not looked at again.
ALTER TABLE serversync.run_items ADD COLUMN IF NOT EXISTS outlook jsonb;
