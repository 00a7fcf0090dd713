-- A key stands in a table that only grows at its end, and is destroyed by overwriting it in place with bytes of the
-- same length: so its bytes are never copied to another page, where the overwriting would not reach them.
CREATE TABLE keys (
    id         INTEGER PRIMARY KEY,
    tenant     TEXT    NOT NULL,
    venue      TEXT    NOT NULL,
    day        INTEGER NOT NULL,  -- days since 1970-01-01
    key        BLOB    NOT NULL,  -- 32 bytes; all zero once destroyed
    destroyed  INTEGER NOT NULL,  -- 0 or 1
    keep_until INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX keys_by_day ON keys (tenant, venue, day);
CREATE INDEX keys_to_destroy ON keys (keep_until) WHERE destroyed = 0;
