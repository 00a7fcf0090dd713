-- Quarantine: bounds by venue, source and sensor -------------------------------------------------------------------------

-- The sensor of the refused event, where it is known.
ALTER TABLE quarantine ADD COLUMN sensor TEXT;
CREATE INDEX quarantine_by_receipt ON quarantine (tenant, receipt);

-- What waits, by where it came from and why. '' stands for no venue and no sensor.
CREATE TABLE quarantine_room (
    tenant  TEXT    NOT NULL,
    venue   TEXT    NOT NULL,
    source  TEXT    NOT NULL,
    sensor  TEXT    NOT NULL,
    code    TEXT    NOT NULL,
    entries INTEGER NOT NULL,
    bytes   INTEGER NOT NULL,
    PRIMARY KEY (tenant, venue, source, sensor, code)
) STRICT, WITHOUT ROWID;

INSERT INTO quarantine_room
SELECT tenant, coalesce(venue, ''), source, '', code, count(*), sum(length(bytes) + 256)
FROM quarantine WHERE state = 'open' GROUP BY 1, 2, 3, 4, 5;

-- What waits in all, of a tenant. Entries that somebody has settled take no room any more.
ALTER TABLE quarantine_counts ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
DELETE FROM quarantine_counts;
INSERT INTO quarantine_counts (tenant, entries, bytes)
SELECT tenant, sum(entries), sum(bytes) FROM quarantine_room GROUP BY tenant;

-- What was refused and not kept, by the bound that was reached.
CREATE TABLE quarantine_left_out (
    tenant  TEXT    NOT NULL,
    venue   TEXT    NOT NULL,
    source  TEXT    NOT NULL,
    sensor  TEXT    NOT NULL,
    code    TEXT    NOT NULL,
    bound   TEXT    NOT NULL,
    entries INTEGER NOT NULL,
    PRIMARY KEY (tenant, venue, source, sensor, code, bound)
) STRICT, WITHOUT ROWID;
