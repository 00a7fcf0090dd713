-- The life of this log, and what positions go on from once records have been trimmed.
CREATE TABLE life (
    only_row            INTEGER PRIMARY KEY CHECK (only_row = 1),
    epoch               INTEGER NOT NULL,
    trimmed_position    INTEGER NOT NULL,  -- all records before it are gone
    trimmed_events      INTEGER NOT NULL,  -- events in those records
    trimmed_appended_at INTEGER NOT NULL   -- appended_at of the last of them
) STRICT;

CREATE TABLE records (
    position      INTEGER PRIMARY KEY,
    received_at   INTEGER NOT NULL,
    appended_at   INTEGER NOT NULL,  -- max(time of appending, that of the record before)
    kind          INTEGER NOT NULL,
    tenant        TEXT    NOT NULL,
    venue         TEXT    NOT NULL,
    receipt       BLOB    NOT NULL,  -- 16 bytes, big-endian
    events        INTEGER NOT NULL,
    events_before INTEGER NOT NULL,  -- events of all records ever appended before this one
    batch         BLOB    NOT NULL   -- version byte, then the columns
) STRICT;
