-- Venues by number, for all tables below.
CREATE TABLE venue_refs (
    id     INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    venue  TEXT NOT NULL,
    UNIQUE (tenant, venue)
) STRICT;

-- Raw events ---------------------------------------------------------------------------------------------------------

-- Names that sensors sent, by number, apart for each venue so that they can be erased with it.
CREATE TABLE names (
    id        INTEGER PRIMARY KEY,
    venue_ref INTEGER NOT NULL,
    name      TEXT    NOT NULL,
    UNIQUE (venue_ref, name)
) STRICT;

-- Deliveries by number. Events of one request share one.
CREATE TABLE deliveries (
    id          INTEGER PRIMARY KEY,
    received_at INTEGER NOT NULL,
    receipt     BLOB    NOT NULL,  -- 16 bytes, big-endian
    UNIQUE (received_at, receipt)
) STRICT;

-- A table per kind. A row is a payload of an identity: `sensor_ref` and `key_ref` are numbers of `names`, `deliveries`
-- is the set of numbers of `deliveries`, ascending, as LEB128 varints: the first one, then differences.
CREATE TABLE raw_position (
    venue_ref    INTEGER NOT NULL,
    ts           INTEGER NOT NULL,
    sensor_ref   INTEGER NOT NULL,
    key_ref      INTEGER NOT NULL,
    payload_hash INTEGER NOT NULL,
    revision     INTEGER NOT NULL,
    "x"          REAL,
    "y"          REAL,
    "floor"      TEXT,
    deliveries   BLOB    NOT NULL,
    PRIMARY KEY (venue_ref, ts, sensor_ref, key_ref, payload_hash)
) STRICT, WITHOUT ROWID;

CREATE TABLE raw_crossing (
    venue_ref    INTEGER NOT NULL,
    ts           INTEGER NOT NULL,
    sensor_ref   INTEGER NOT NULL,
    key_ref      INTEGER NOT NULL,
    payload_hash INTEGER NOT NULL,
    revision     INTEGER NOT NULL,
    "line"       TEXT,
    "direction"  TEXT,
    "count"      INTEGER,
    "track"      TEXT,
    "seq"        INTEGER,
    "weak"       INTEGER,
    deliveries   BLOB    NOT NULL,
    PRIMARY KEY (venue_ref, ts, sensor_ref, key_ref, payload_hash)
) STRICT, WITHOUT ROWID;

CREATE TABLE raw_count (
    venue_ref    INTEGER NOT NULL,
    ts           INTEGER NOT NULL,
    sensor_ref   INTEGER NOT NULL,
    key_ref      INTEGER NOT NULL,
    payload_hash INTEGER NOT NULL,
    revision     INTEGER NOT NULL,
    "value"      INTEGER,
    "mode"       TEXT,
    deliveries   BLOB    NOT NULL,
    PRIMARY KEY (venue_ref, ts, sensor_ref, key_ref, payload_hash)
) STRICT, WITHOUT ROWID;

CREATE TABLE raw_presence (
    venue_ref    INTEGER NOT NULL,
    ts           INTEGER NOT NULL,
    sensor_ref   INTEGER NOT NULL,
    key_ref      INTEGER NOT NULL,
    payload_hash INTEGER NOT NULL,
    revision     INTEGER NOT NULL,
    "rssi"       INTEGER,
    "x"          REAL,
    "y"          REAL,
    deliveries   BLOB    NOT NULL,
    PRIMARY KEY (venue_ref, ts, sensor_ref, key_ref, payload_hash)
) STRICT, WITHOUT ROWID;

CREATE TABLE raw_transaction (
    venue_ref    INTEGER NOT NULL,
    ts           INTEGER NOT NULL,
    sensor_ref   INTEGER NOT NULL,
    key_ref      INTEGER NOT NULL,
    payload_hash INTEGER NOT NULL,
    revision     INTEGER NOT NULL,
    "amount"     INTEGER,
    "currency"   TEXT,
    "void"       INTEGER,
    "items"      TEXT,
    deliveries   BLOB    NOT NULL,
    PRIMARY KEY (venue_ref, ts, sensor_ref, key_ref, payload_hash)
) STRICT, WITHOUT ROWID;

CREATE TABLE raw_reading (
    venue_ref    INTEGER NOT NULL,
    ts           INTEGER NOT NULL,
    sensor_ref   INTEGER NOT NULL,
    key_ref      INTEGER NOT NULL,
    payload_hash INTEGER NOT NULL,
    revision     INTEGER NOT NULL,
    "value"      REAL,
    "unit"       TEXT,
    deliveries   BLOB    NOT NULL,
    PRIMARY KEY (venue_ref, ts, sensor_ref, key_ref, payload_hash)
) STRICT, WITHOUT ROWID;

CREATE TABLE raw_status (
    venue_ref         INTEGER NOT NULL,
    ts                INTEGER NOT NULL,
    sensor_ref        INTEGER NOT NULL,
    key_ref           INTEGER NOT NULL,
    payload_hash      INTEGER NOT NULL,
    revision          INTEGER NOT NULL,
    "state"           TEXT,
    "sent"            INTEGER,
    "dropped"         INTEGER,
    "sequence"        INTEGER,
    "clock_offset_ms" INTEGER,
    deliveries        BLOB    NOT NULL,
    PRIMARY KEY (venue_ref, ts, sensor_ref, key_ref, payload_hash)
) STRICT, WITHOUT ROWID;

-- For each slot of a venue and each source the highest position that touched it.
CREATE TABLE raw_marks (
    venue_ref INTEGER NOT NULL,
    slot      INTEGER NOT NULL,
    source    TEXT    NOT NULL,
    position  INTEGER NOT NULL,
    PRIMARY KEY (venue_ref, slot, source)
) STRICT, WITHOUT ROWID;

CREATE TABLE consumer_positions (
    consumer  TEXT    NOT NULL,
    epoch     INTEGER NOT NULL,
    partition INTEGER NOT NULL,
    position  INTEGER NOT NULL,
    PRIMARY KEY (consumer, epoch, partition)
) STRICT, WITHOUT ROWID;

-- Results ------------------------------------------------------------------------------------------------------------

CREATE TABLE sessions (
    venue_ref  INTEGER NOT NULL,
    day        INTEGER NOT NULL,  -- days since 1970-01-01
    generation INTEGER NOT NULL,
    start      INTEGER NOT NULL,
    id         TEXT    NOT NULL,
    session    BLOB    NOT NULL,  -- version byte, then the session
    PRIMARY KEY (venue_ref, day, generation, start, id)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX sessions_by_id ON sessions (venue_ref, day, generation, id);

-- Rows of hours and of days apart: a year of days reads from one stretch of the table. (On Cassandra the partitions are
-- a venue's day and a venue's year; days sort by year here anyway.)
CREATE TABLE hour_rows (
    venue_ref  INTEGER NOT NULL,
    day        INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    start      INTEGER NOT NULL,
    family     INTEGER NOT NULL,
    subject    TEXT    NOT NULL,
    slice      INTEGER NOT NULL,
    length_ms  INTEGER NOT NULL,
    value      BLOB    NOT NULL,
    PRIMARY KEY (venue_ref, day, generation, start, family, subject, slice)
) STRICT, WITHOUT ROWID;

CREATE TABLE day_rows (
    venue_ref  INTEGER NOT NULL,
    day        INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    start      INTEGER NOT NULL,
    family     INTEGER NOT NULL,
    subject    TEXT    NOT NULL,
    slice      INTEGER NOT NULL,
    length_ms  INTEGER NOT NULL,
    value      BLOB    NOT NULL,
    PRIMARY KEY (venue_ref, day, generation, start, family, subject, slice)
) STRICT, WITHOUT ROWID;

CREATE TABLE venue_days (
    venue_ref  INTEGER NOT NULL,
    day        INTEGER NOT NULL,
    fence      INTEGER NOT NULL,  -- highest given out
    holder     TEXT,
    expires_at INTEGER,
    published  INTEGER,           -- a generation
    PRIMARY KEY (venue_ref, day)
) STRICT, WITHOUT ROWID;

-- Every generation that was published and is kept, the published one included.
CREATE TABLE generations (
    venue_ref  INTEGER NOT NULL,
    day        INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    info       TEXT    NOT NULL,  -- JSON
    PRIMARY KEY (venue_ref, day, generation)
) STRICT, WITHOUT ROWID;

-- Operation ----------------------------------------------------------------------------------------------------------

CREATE TABLE checkpoints (
    name         TEXT    PRIMARY KEY,
    fence        INTEGER NOT NULL,  -- highest given out
    stored_fence INTEGER,           -- of the owner that stored the state
    state        BLOB
) STRICT, WITHOUT ROWID;

-- What claiming and listing ask for stands in columns, all else in the JSON.
CREATE TABLE jobs (
    id           TEXT    PRIMARY KEY,
    tenant       TEXT    NOT NULL,
    state        TEXT    NOT NULL,
    leased_until INTEGER,
    fence        INTEGER NOT NULL,
    job          TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX jobs_by_tenant ON jobs (tenant, id);
CREATE INDEX jobs_unfinished ON jobs (id) WHERE state IN ('queued', 'running');

CREATE TABLE quarantine (
    tenant      TEXT    NOT NULL,
    id          TEXT    NOT NULL,
    venue       TEXT,
    received_at INTEGER NOT NULL,
    receipt     BLOB    NOT NULL,
    source      TEXT    NOT NULL,
    line        INTEGER NOT NULL,
    code        TEXT    NOT NULL,
    message     TEXT    NOT NULL,
    format      TEXT    NOT NULL,
    encoding    TEXT    NOT NULL,
    bytes       BLOB    NOT NULL,
    state       TEXT    NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT;

CREATE TABLE quarantine_counts (
    tenant  TEXT    PRIMARY KEY,
    entries INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE imports (
    tenant      TEXT    NOT NULL,
    receipt     BLOB    NOT NULL,
    name        TEXT    NOT NULL,
    road        TEXT    NOT NULL,
    received_at INTEGER NOT NULL,
    finished_at INTEGER,
    accepted    INTEGER NOT NULL,
    refused     INTEGER NOT NULL,
    PRIMARY KEY (tenant, receipt)
) STRICT, WITHOUT ROWID;

-- Registry -----------------------------------------------------------------------------------------------------------

CREATE TABLE tenants (
    id TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;

CREATE TABLE venues (
    tenant  TEXT    NOT NULL,
    id      TEXT    NOT NULL,
    version INTEGER NOT NULL,
    venue   TEXT    NOT NULL,  -- JSON
    PRIMARY KEY (tenant, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE access_keys (
    id         TEXT PRIMARY KEY,
    tenant     TEXT NOT NULL,
    access_key TEXT NOT NULL  -- JSON; holds the hash of the secret only
) STRICT, WITHOUT ROWID;
CREATE INDEX access_keys_by_tenant ON access_keys (tenant, id);

CREATE TABLE registry_version (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    version  INTEGER NOT NULL
) STRICT;
INSERT INTO registry_version VALUES (1, 0);
