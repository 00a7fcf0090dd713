-- Documents: what operators make (exclusions, holds, schedules, the audit) ---------------------------------------------

CREATE TABLE documents (
    tenant     TEXT    NOT NULL,
    collection TEXT    NOT NULL,
    id         TEXT    NOT NULL,
    version    INTEGER NOT NULL,
    body       TEXT    NOT NULL,  -- JSON
    PRIMARY KEY (tenant, collection, id)
) STRICT, WITHOUT ROWID;
