-- How tables that change a lot are kept tidy. PostgreSQL's default vacuums a
-- table when a fifth of it is dead, and so late on a large one that every scan
-- of its indexes and every sweep has had to step over the dead rows for hours.

-- A queue: as many rows die as come, and it should be empty. By share it would be
-- vacuumed at random sizes.
ALTER TABLE serversync.words_due SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_insert_threshold = 10000);
--bun:split
-- Renewed in place by each sweep (fillfactor 50): pages mend themselves as they
-- are written, vacuum has the index entries of what changed its status or name.
ALTER TABLE serversync.servers SET (autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
--bun:split
-- Each item is written two or three times within seconds, and leaves the index of
-- open ones as it is done; and a sweep's items come at once, after which the
-- planner must know of them.
ALTER TABLE serversync.run_items SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000, autovacuum_analyze_scale_factor = 0.02);
--bun:split
-- A run shows life every ten seconds, in a column without an index: with room
-- beside it that is written in its page.
ALTER TABLE serversync.runs SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);
--bun:split
-- Only appended to, and pruned from its oldest end.
ALTER TABLE serversync.history SET (autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
