//! The tables, and how an older store becomes a newer one.
//!
//! `PRAGMA user_version` counts the migrations a store has had. A released migration is never edited: the
//! next change is a new entry.

/// One script per format version, oldest first.
pub(crate) const MIGRATIONS: &[&str] = &[FORMAT_1, FORMAT_2, FORMAT_3];

/// The format this binary writes.
pub const SCHEMA_VERSION: i64 = MIGRATIONS.len() as i64;

const FORMAT_1: &str = "
CREATE TABLE images (
    id         TEXT PRIMARY KEY NOT NULL, -- digest of the config
    target     TEXT,                      -- descriptor of the manifest or index, JSON
    created    INTEGER NOT NULL,          -- unix seconds
    size_bytes INTEGER NOT NULL,          -- of the unpacked layers
    diff_ids   TEXT NOT NULL,             -- JSON array, lowest layer first
    snapshots  TEXT NOT NULL,             -- JSON array
    blobs      TEXT NOT NULL,             -- JSON array
    labels     TEXT NOT NULL              -- JSON object
) WITHOUT ROWID;

CREATE TABLE image_names (
    reference TEXT PRIMARY KEY NOT NULL,  -- docker.io/library/alpine:latest
    image     TEXT NOT NULL,
    manifest  TEXT,
    tagged_at INTEGER NOT NULL            -- unix seconds
) WITHOUT ROWID;
CREATE INDEX image_names_by_image ON image_names (image);

CREATE TABLE repo_digests (
    repository TEXT NOT NULL,             -- docker.io/library/alpine
    digest     TEXT NOT NULL,             -- of the manifest or index
    image      TEXT NOT NULL,             -- an index stands for one image per platform
    PRIMARY KEY (repository, digest, image)
) WITHOUT ROWID;
CREATE INDEX repo_digests_by_image ON repo_digests (image);

CREATE TABLE records (
    kind TEXT NOT NULL,                   -- container, volume, network...
    key  TEXT NOT NULL,
    name TEXT,
    body TEXT NOT NULL,                   -- JSON of the owner's making
    PRIMARY KEY (kind, key)
) WITHOUT ROWID;
CREATE UNIQUE INDEX records_by_name ON records (kind, name) WHERE name IS NOT NULL;

CREATE TABLE leases (
    id      TEXT PRIMARY KEY NOT NULL,    -- leases/<id> is locked while the owner lives
    purpose TEXT NOT NULL
) WITHOUT ROWID;

-- Who keeps what alive. Everything else is garbage.
CREATE TABLE refs (
    holder_kind TEXT NOT NULL,            -- image, lease or a kind of record
    holder      TEXT NOT NULL,
    target_kind TEXT NOT NULL,            -- blob, image, snapshot, record
    target      TEXT NOT NULL,
    PRIMARY KEY (holder_kind, holder, target_kind, target)
) WITHOUT ROWID;
CREATE INDEX refs_by_target ON refs (target_kind, target);

-- What is known about layers, whether or not their bytes are here.
CREATE TABLE layers (
    snapshot   TEXT PRIMARY KEY NOT NULL,
    diff_id    TEXT NOT NULL,
    size_bytes INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX layers_by_diff_id ON layers (diff_id);

CREATE TABLE layer_blobs (
    digest     TEXT PRIMARY KEY NOT NULL, -- of the compressed bytes
    diff_id    TEXT NOT NULL,
    media_type TEXT NOT NULL,
    size_bytes INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX layer_blobs_by_diff_id ON layer_blobs (diff_id);

CREATE TABLE blob_sources (
    digest     TEXT NOT NULL,
    registry   TEXT NOT NULL,
    repository TEXT NOT NULL,
    PRIMARY KEY (digest, registry, repository)
) WITHOUT ROWID;

-- Row ids grow with every write, so the oldest rows are the ones with the lowest.
CREATE TABLE file_hashes (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    dev      INTEGER NOT NULL,
    ino      INTEGER NOT NULL,
    size     INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    ctime_ns INTEGER NOT NULL,
    sha256   BLOB NOT NULL,
    UNIQUE (dev, ino)
);
";

const FORMAT_2: &str = "
-- When records were used that may be made again.
CREATE TABLE record_uses (
    kind  TEXT NOT NULL,
    key   TEXT NOT NULL,
    first INTEGER NOT NULL,               -- unix seconds
    last  INTEGER NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (kind, key)
) WITHOUT ROWID;
";

const FORMAT_3: &str = "
-- What happened, in the order of commits.
CREATE TABLE events (
    number     INTEGER PRIMARY KEY AUTOINCREMENT,
    kind       TEXT NOT NULL,             -- image, container, volume...
    action     TEXT NOT NULL,
    object     TEXT NOT NULL,
    attributes TEXT NOT NULL,             -- JSON object
    time_ns    INTEGER NOT NULL,          -- since 1970
    UNIQUE (object, action, time_ns, kind)
);
";
