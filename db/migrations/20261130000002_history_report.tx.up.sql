-- The lines that the monthly report counts: few of many. See Monthly in package db.
CREATE INDEX IF NOT EXISTS history_report ON serversync.history (at) WHERE kind = 'refund_due'
    OR kind = 'decided' AND (after->>'status' = 'conflict' OR after->>'billing_on' = 'true' AND (before->>'billing_reason' IN ('unpriced', 'disabled_by_skypanel') OR before->>'status' = 'unlinked'));
