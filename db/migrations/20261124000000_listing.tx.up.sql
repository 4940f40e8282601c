-- The inventory in each order in which it is listed; the id comes last, so that
-- a page can begin where the one before ended. No index names a column that
-- every observation moves (observed_at, last_seen_at, pulled_at): those rows are
-- updated in place. A time that VirtFusion did not say sorts before all others.
CREATE INDEX IF NOT EXISTS servers_by_first_seen ON serversync.servers (first_seen_at, virtfusion_id);
--bun:split
CREATE INDEX IF NOT EXISTS servers_by_name ON serversync.servers ((lower(name) COLLATE "C"), virtfusion_id);
--bun:split
CREATE INDEX IF NOT EXISTS servers_by_created ON serversync.servers ((coalesce(created_at, timestamptz '0001-01-01 00:00:00+00')), virtfusion_id);
--bun:split
CREATE INDEX IF NOT EXISTS servers_by_updated ON serversync.servers ((coalesce(updated_at, timestamptz '0001-01-01 00:00:00+00')), virtfusion_id);
--bun:split
CREATE INDEX IF NOT EXISTS servers_by_status ON serversync.servers (status, virtfusion_id);
--bun:split
CREATE INDEX IF NOT EXISTS servers_by_user ON serversync.servers ((coalesce(user_id, 0)), virtfusion_id);
--bun:split
-- The overview counts and adds up from this one alone.
CREATE INDEX IF NOT EXISTS servers_coverage ON serversync.servers (status, billing, billing_reason) INCLUDE (billing_id);
--bun:split
CREATE INDEX IF NOT EXISTS servers_hypervisor_id ON serversync.servers (hypervisor_id);
--bun:split
CREATE INDEX IF NOT EXISTS servers_hypervisor_name ON serversync.servers (lower(hypervisor_name));
--bun:split
CREATE INDEX IF NOT EXISTS servers_package_id ON serversync.servers (package_id);

--bun:split
-- The pairs of letters in a text, one array element each. A text that contains
-- another has all its pairs, which is what the search's index looks up: pg_trgm
-- would do as well, but a guest may not be allowed to install it.
CREATE OR REPLACE FUNCTION serversync.pairs(t text) RETURNS text[]
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN array_remove(
        string_to_array(regexp_replace(left(t, length(t) / 2 * 2), '(..)', E'\\1\x01', 'g'), E'\x01')
            || string_to_array(regexp_replace(left(substr(t, 2), (length(t) - 1) / 2 * 2), '(..)', E'\\1\x01', 'g'), E'\x01'),
        '');

--bun:split
-- An address or a network; null for a text that PostgreSQL takes for neither
-- (an IPv6 address with a zone, for one).
CREATE OR REPLACE FUNCTION serversync.to_inet(t text) RETURNS inet
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
    RETURN t::inet;
EXCEPTION WHEN invalid_text_representation THEN
    RETURN NULL;
END $$;

--bun:split
-- What a search looks at, in lower case, a line each: id, name, hostname, UUID
-- and addresses. Beside the inventory, so that a change of status or billing
-- costs the search nothing. Kept by the triggers below.
CREATE TABLE IF NOT EXISTS serversync.server_words (
    virtfusion_id  bigint PRIMARY KEY REFERENCES serversync.servers ON DELETE CASCADE,
    words          text NOT NULL
);
--bun:split
CREATE OR REPLACE FUNCTION serversync.words_of(id bigint, name text, hostname text, uuid text, addresses text[]) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN lower(id || E'\n' || name || E'\n' || hostname || E'\n' || uuid || E'\n' || array_to_string(addresses, E'\n'));
--bun:split
INSERT INTO serversync.server_words (virtfusion_id, words)
SELECT virtfusion_id, serversync.words_of(virtfusion_id, name, hostname, uuid, ip_addresses) FROM serversync.servers
ON CONFLICT (virtfusion_id) DO UPDATE SET words = excluded.words;
--bun:split
CREATE INDEX IF NOT EXISTS server_words_pairs ON serversync.server_words USING gin (serversync.pairs(words));
--bun:split
CREATE OR REPLACE FUNCTION serversync.add_words() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO serversync.server_words (virtfusion_id, words)
    SELECT virtfusion_id, serversync.words_of(virtfusion_id, name, hostname, uuid, ip_addresses) FROM added
    ON CONFLICT (virtfusion_id) DO UPDATE SET words = excluded.words;
    RETURN NULL;
END $$;
--bun:split
CREATE OR REPLACE FUNCTION serversync.change_words() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE serversync.server_words SET words = serversync.words_of(NEW.virtfusion_id, NEW.name, NEW.hostname, NEW.uuid, NEW.ip_addresses)
    WHERE virtfusion_id = NEW.virtfusion_id;
    RETURN NULL;
END $$;
--bun:split
CREATE OR REPLACE TRIGGER servers_words_added AFTER INSERT ON serversync.servers
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION serversync.add_words();
--bun:split
-- Not called where a statement names none of these columns, nor for a row in
-- which none of them changes.
CREATE OR REPLACE TRIGGER servers_words_changed AFTER UPDATE OF name, hostname, uuid, ip_addresses ON serversync.servers
    FOR EACH ROW WHEN ((OLD.name, OLD.hostname, OLD.uuid, OLD.ip_addresses) IS DISTINCT FROM (NEW.name, NEW.hostname, NEW.uuid, NEW.ip_addresses))
    EXECUTE FUNCTION serversync.change_words();

--bun:split
-- A user's history, newest first, and what the charts count.
CREATE INDEX IF NOT EXISTS history_user ON serversync.history (user_id, at, id) WHERE user_id IS NOT NULL;
--bun:split
CREATE INDEX IF NOT EXISTS history_observed ON serversync.history (at) WHERE kind = 'observed';
--bun:split
CREATE INDEX IF NOT EXISTS runs_user ON serversync.runs (user_id, started_at, id) WHERE user_id IS NOT NULL;

--bun:split
-- How far the reconciler was behind, looked at once a minute.
CREATE TABLE IF NOT EXISTS serversync.lag_samples (
    at       timestamptz PRIMARY KEY,          -- a full minute
    events   bigint NOT NULL,                  -- not reconciled yet
    seconds  double precision                  -- the age of the oldest of them; null: nobody could say
);
