-- Documents: what operators make (exclusions, holds, schedules, the audit) ---------------------------------------------

CREATE TABLE documents (
    tenant     TEXT    NOT NULL,
    collection TEXT    NOT NULL,
    id         TEXT    NOT NULL,
    version    INTEGER NOT NULL,
    body       TEXT    NOT NULL,  -- JSON
    PRIMARY KEY (tenant, collection, id)
) STRICT, WITHOUT ROWID;

-- Retention --------------------------------------------------------------------------------------------------------------

-- When a slot of raw events was last marked: the age of what it holds counts from there.
CREATE TABLE raw_mark_times (
    venue_ref INTEGER NOT NULL,
    slot      INTEGER NOT NULL,
    marked_at INTEGER NOT NULL,
    PRIMARY KEY (venue_ref, slot)
) STRICT, WITHOUT ROWID;
