-- The servers whose words are to be written anew. What a search looks at costs
-- more to index than everything else about a server, and whoever brings events
-- into the books must not wait for it: see KeepWords. Until it is done a search
-- reads the words of these servers from the inventory. Appended to by every
-- transaction at once, hence without a key; the same server may be here twice.
CREATE TABLE IF NOT EXISTS serversync.words_due (
    virtfusion_id  bigint NOT NULL
);
--bun:split
CREATE OR REPLACE FUNCTION serversync.add_words() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO serversync.words_due (virtfusion_id) SELECT virtfusion_id FROM added;
    RETURN NULL;
END $$;
--bun:split
CREATE OR REPLACE FUNCTION serversync.change_words() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO serversync.words_due (virtfusion_id) VALUES (NEW.virtfusion_id);
    RETURN NULL;
END $$;
--bun:split
-- Every look at a server writes down when it was seen, in columns that no index
-- has: with room beside it the row is renewed in its page, and no index is
-- touched. A page that a sweep reads has all its rows renewed at once.
ALTER TABLE serversync.servers SET (fillfactor = 50);
