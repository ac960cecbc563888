//! Images, the names that point to them and the digests they were pulled or pushed under.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::PathBuf;

use dhow_oci::{Descriptor, DiffId, Digest};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::Value;

use crate::database::{DatabaseError, Durability, from_sqlite, parsed, parsed_or_null, unsigned};
use crate::refs::{self, Holders, IMAGE, ResolveError};
use crate::{Ref, Store};

/// An image: what the store knows without opening its config.
///
/// An image lives until it is removed, named or not, and keeps alive its config, `target`, `blobs` and
/// `snapshots`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRecord {
    /// The digest of its config.
    pub id: Digest,
    /// The manifest or index it came by. A built image has none until it is pushed or saved.
    pub target: Option<Descriptor>,
    /// When its config says it was made, in unix seconds; 0 if it does not say.
    pub created: i64,
    /// The size of its unpacked layers.
    pub size_bytes: u64,
    /// Its layers, lowest first.
    pub diff_ids: Vec<DiffId>,
    /// The snapshots its layers are unpacked in, lowest first.
    pub snapshots: Vec<String>,
    /// The blobs it keeps alive beside its config and target: the manifest below an index, compressed layers.
    pub blobs: BTreeSet<Digest>,
    /// The labels in its config, for filters.
    pub labels: BTreeMap<String, String>,
}

/// A name and what it points to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageName {
    /// The canonical reference, `docker.io/library/alpine:latest`.
    pub reference: String,
    /// The manifest or index the name stood for in its registry, if it came from one.
    pub manifest: Option<Digest>,
    /// When the name was given, in unix seconds.
    pub tagged_at: i64,
}

/// A digest under which a repository has an image: `repository@digest`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RepoDigest {
    /// The canonical name, `docker.io/library/alpine`.
    pub repository: String,
    /// The digest of the manifest or index.
    pub digest: Digest,
}

impl fmt::Display for RepoDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.repository, self.digest)
    }
}

/// An image with everything that points to it, sorted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The image.
    pub record: ImageRecord,
    /// Its names.
    pub names: Vec<ImageName>,
    /// Its digests in repositories.
    pub repo_digests: Vec<RepoDigest>,
}

/// A name that pointed to another image before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The name.
    pub reference: String,
    /// The image it pointed to.
    pub from: Digest,
}

/// What to do with an image's names when it is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// Remove the image only if it has no name (any more).
    Refuse,
    /// Remove the names with it.
    Untag,
}

/// Why an image was not recorded.
#[derive(Debug, thiserror::Error)]
pub enum PutImageError {
    /// A blob of the image is not in the store.
    #[error("{missing} of image {id} is not in the store")]
    Missing {
        /// The image.
        id: Digest,
        /// What is missing.
        missing: Box<Ref>,
    },
    /// The blobs could not be made to survive a power cut.
    #[error("cannot sync {}", path.display())]
    Sync {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The database failed.
    #[error(transparent)]
    Database(DatabaseError),
}

/// Why an image got no further name.
#[derive(Debug, thiserror::Error)]
pub enum TagError {
    /// There is no such image.
    #[error("no such image: {id}")]
    NotFound {
        /// The image.
        id: Digest,
    },
    /// The database failed.
    #[error(transparent)]
    Database(DatabaseError),
}

/// Why an image was not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveImageError {
    /// There is no such image.
    #[error("no such image: {id}")]
    NotFound {
        /// The image.
        id: Digest,
    },
    /// It has names and the caller wanted none.
    #[error("image {id} is named {}", references.join(", "))]
    Named {
        /// The image.
        id: Digest,
        /// Its names.
        references: Vec<String>,
    },
    /// Records refer to it.
    #[error("image {id} is used by {holders}")]
    InUse {
        /// The image.
        id: Digest,
        /// Who refers to it.
        holders: Holders,
    },
    /// The database failed.
    #[error(transparent)]
    Database(DatabaseError),
}
from_sqlite!(PutImageError, TagError, RemoveImageError);

impl ImageRecord {
    fn refs(&self) -> Vec<Ref> {
        let target = self.target.as_ref().map(|target| target.digest);
        let blobs = [self.id].into_iter().chain(target).chain(self.blobs.iter().copied());
        blobs.map(Ref::Blob).chain(self.snapshots.iter().cloned().map(Ref::Snapshot)).collect()
    }

    /// What two records of one image say together. An ID fixes the config, so they cannot contradict each
    /// other, but one may know blobs or a manifest that the other does not. The newer one knows its snapshots.
    fn joined_with(mut self, older: ImageRecord) -> ImageRecord {
        self.blobs.extend(older.blobs);
        // A manifest that is no longer the target is still what some repository digest stands for.
        if let Some(target) = older.target {
            self.blobs.insert(target.digest);
            self.target.get_or_insert(target);
        }
        self
    }
}

/// The images of a store.
#[derive(Clone, Copy, Debug)]
pub struct ImageStore<'s> {
    store: &'s Store,
}

impl<'s> ImageStore<'s> {
    pub(crate) fn new(store: &'s Store) -> ImageStore<'s> {
        ImageStore { store }
    }

    /// Records an image and points names and repository digests to it, all at once.
    ///
    /// If it is known already, what the records say is joined. Returns the names that pointed elsewhere.
    pub fn put(
        &self,
        record: &ImageRecord,
        names: &[ImageName],
        repo_digests: &[RepoDigest],
    ) -> Result<Vec<Moved>, PutImageError> {
        let sync_failed = |(path, source)| PutImageError::Sync { path, source };
        self.store.database().write(Durability::Now, |transaction| {
            let record = match find(transaction, &record.id)? {
                Some(older) => record.clone().joined_with(older),
                None => record.clone(),
            };
            let refs = record.refs();
            if let Some(missing) = refs::first_missing(transaction, self.store, &refs)? {
                return Err(PutImageError::Missing { id: record.id, missing: Box::new(missing) });
            }
            let blobs = refs.iter().filter_map(|target| match target {
                Ref::Blob(digest) => Some(digest),
                _ => None,
            });
            self.store.sync_blob_names(blobs).map_err(sync_failed)?;
            insert(transaction, &record)?;
            let holder = record.id.to_string();
            refs::clear(transaction, IMAGE, &holder)?;
            refs::add(transaction, IMAGE, &holder, &refs)?;
            for repo_digest in repo_digests {
                insert_repo_digest(transaction, &record.id, repo_digest)?;
            }
            point_all(transaction, &record.id, names)
        })
    }

    /// Stops keeping blobs of the images that came by `target` alive.
    pub fn forget_blobs(&self, target: &Digest, blobs: &BTreeSet<Digest>) -> Result<(), DatabaseError> {
        self.store.database().write(Durability::Now, |transaction| {
            for Image { mut record, .. } in images(transaction)? {
                if record.target.as_ref().is_none_or(|own| own.digest != *target) {
                    continue;
                }
                record.blobs.retain(|blob| !blobs.contains(blob));
                let holder = record.id.to_string();
                insert(transaction, &record)?;
                refs::clear(transaction, IMAGE, &holder)?;
                refs::add(transaction, IMAGE, &holder, &record.refs())?;
            }
            Ok(())
        })
    }

    /// Gives an image one more name. Returns the image the name pointed to before.
    pub fn tag(&self, id: &Digest, name: &ImageName) -> Result<Option<Digest>, TagError> {
        self.store.database().write(Durability::Now, |transaction| {
            if !exists(transaction, id)? {
                return Err(TagError::NotFound { id: *id });
            }
            Ok(point(transaction, id, name)?)
        })
    }

    /// Takes a name away. Returns the image it pointed to, which stays.
    pub fn untag(&self, reference: &str) -> Result<Option<Digest>, DatabaseError> {
        self.store.database().write(Durability::Now, |transaction| {
            let image = pointed_to(transaction, reference)?;
            transaction
                .prepare_cached("DELETE FROM image_names WHERE reference = ?1")?
                .execute([reference])?;
            Ok(image)
        })
    }

    /// Records that a repository has an image, after a push.
    pub fn add_repo_digest(&self, id: &Digest, repo_digest: &RepoDigest) -> Result<(), TagError> {
        self.store.database().write(Durability::Now, |transaction| {
            if !exists(transaction, id)? {
                return Err(TagError::NotFound { id: *id });
            }
            Ok(insert_repo_digest(transaction, id, repo_digest)?)
        })
    }

    /// Forgets that a repository has an image: `rmi` does when the repository's last tag goes.
    pub fn remove_repo_digest(&self, id: &Digest, repo_digest: &RepoDigest) -> Result<(), DatabaseError> {
        self.store.database().write(Durability::Now, |transaction| {
            transaction
                .prepare_cached(
                    "DELETE FROM repo_digests WHERE repository = ?1 AND digest = ?2 AND image = ?3",
                )?
                .execute(params![repo_digest.repository, repo_digest.digest.to_string(), id.to_string()])?;
            Ok(())
        })
    }

    /// The image with this ID.
    pub fn get(&self, id: &Digest) -> Result<Option<Image>, DatabaseError> {
        self.store.database().read(|connection| Ok(image(connection, id)?))
    }

    /// The image this name points to.
    pub fn by_name(&self, reference: &str) -> Result<Option<Image>, DatabaseError> {
        self.store.database().read(|connection| match pointed_to(connection, reference)? {
            Some(id) => Ok(image(connection, &id)?),
            None => Ok(None),
        })
    }

    /// The images a repository has under this digest: more than one if it is an index.
    pub fn by_repo_digest(&self, repo_digest: &RepoDigest) -> Result<Vec<Digest>, DatabaseError> {
        self.store.database().read(|connection| {
            let mut query = connection.prepare_cached(
                "SELECT image FROM repo_digests WHERE repository = ?1 AND digest = ?2 ORDER BY image",
            )?;
            let key = params![repo_digest.repository, repo_digest.digest.to_string()];
            let images = query.query_map(key, |row| parsed(row, 0))?;
            Ok(images.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// The one image whose ID starts with `text`: hexadecimal digits, with or without `sha256:`.
    pub fn resolve_id(&self, text: &str) -> Result<Digest, ResolveError> {
        let not_found = || ResolveError::NotFound { kind: IMAGE, text: text.to_owned() };
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        if hex.is_empty() || !hex.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(not_found());
        }
        self.store.database().read(|connection| {
            // `g` sorts right behind every hexadecimal digit.
            let mut query = connection.prepare_cached(
                "SELECT id FROM images WHERE id >= 'sha256:' || ?1 AND id < 'sha256:' || ?1 || 'g' LIMIT 2",
            )?;
            let id = refs::one_of(IMAGE, text, query.query_map([hex], |row| row.get(0))?)?;
            id.parse().map_err(|_| not_found())
        })
    }

    /// All images, by ID.
    pub fn list(&self) -> Result<Vec<Image>, DatabaseError> {
        self.store.database().read(|connection| Ok(images(connection)?))
    }

    /// Removes an image. What only it kept alive becomes garbage. Returns it as it was.
    pub fn remove(&self, id: &Digest, named: Named) -> Result<Image, RemoveImageError> {
        self.store.database().write(Durability::Now, |transaction| {
            let Some(image) = image(transaction, id)? else {
                return Err(RemoveImageError::NotFound { id: *id });
            };
            if named == Named::Refuse && !image.names.is_empty() {
                let references = image.names.into_iter().map(|name| name.reference).collect();
                return Err(RemoveImageError::Named { id: *id, references });
            }
            let holders = refs::holders(transaction, &Ref::Image(*id))?;
            if !holders.0.is_empty() {
                return Err(RemoveImageError::InUse { id: *id, holders });
            }
            delete(transaction, id)?;
            Ok(image)
        })
    }
}

pub(crate) fn exists(connection: &Connection, id: &Digest) -> rusqlite::Result<bool> {
    refs::any(connection, "SELECT 1 FROM images WHERE id = ?1", [id.to_string()])
}

fn delete(connection: &Connection, id: &Digest) -> rusqlite::Result<()> {
    let id = id.to_string();
    for sql in [
        "DELETE FROM images WHERE id = ?1",
        "DELETE FROM image_names WHERE image = ?1",
        "DELETE FROM repo_digests WHERE image = ?1",
    ] {
        connection.prepare_cached(sql)?.execute([&id])?;
    }
    refs::clear(connection, IMAGE, &id)
}

fn insert(connection: &Connection, record: &ImageRecord) -> rusqlite::Result<()> {
    let json = |value: Value| value.to_string();
    let target = record.target.as_ref().map(|target| to_json(target).to_string());
    connection
        .prepare_cached("INSERT OR REPLACE INTO images VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?
        .execute(params![
            record.id.to_string(),
            target,
            record.created,
            record.size_bytes.cast_signed(),
            json(to_json(&record.diff_ids)),
            json(to_json(&record.snapshots)),
            json(to_json(&record.blobs)),
            json(to_json(&record.labels)),
        ])?;
    Ok(())
}

fn to_json<T: serde::Serialize>(value: &T) -> Value {
    serde_json::to_value(value).expect("lists, descriptors and labels have only text for keys")
}

fn insert_repo_digest(
    connection: &Connection,
    id: &Digest,
    repo_digest: &RepoDigest,
) -> rusqlite::Result<()> {
    let digest = repo_digest.digest.to_string();
    connection.prepare_cached("INSERT OR IGNORE INTO repo_digests VALUES (?1, ?2, ?3)")?.execute(params![
        repo_digest.repository,
        digest,
        id.to_string()
    ])?;
    Ok(())
}

fn point_all(connection: &Connection, id: &Digest, names: &[ImageName]) -> Result<Vec<Moved>, PutImageError> {
    let mut moved = Vec::new();
    for name in names {
        if let Some(from) = point(connection, id, name)?
            && from != *id
        {
            moved.push(Moved { reference: name.reference.clone(), from });
        }
    }
    Ok(moved)
}

fn point(connection: &Connection, id: &Digest, name: &ImageName) -> rusqlite::Result<Option<Digest>> {
    let before = pointed_to(connection, &name.reference)?;
    let manifest = name.manifest.map(|digest| digest.to_string());
    connection
        .prepare_cached("INSERT OR REPLACE INTO image_names VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![name.reference, id.to_string(), manifest, name.tagged_at])?;
    Ok(before)
}

fn pointed_to(connection: &Connection, reference: &str) -> rusqlite::Result<Option<Digest>> {
    connection
        .prepare_cached("SELECT image FROM image_names WHERE reference = ?1")?
        .query_row([reference], |row| parsed(row, 0))
        .optional()
}

const COLUMNS: &str =
    "SELECT id, target, created, size_bytes, diff_ids, snapshots, blobs, labels FROM images";

fn find(connection: &Connection, id: &Digest) -> rusqlite::Result<Option<ImageRecord>> {
    connection
        .prepare_cached(&format!("{COLUMNS} WHERE id = ?1"))?
        .query_row([id.to_string()], record_from)
        .optional()
}

fn record_from(row: &Row<'_>) -> rusqlite::Result<ImageRecord> {
    let has_target = !matches!(row.get_ref(1)?, rusqlite::types::ValueRef::Null);
    Ok(ImageRecord {
        id: parsed(row, 0)?,
        target: if has_target { Some(from_json(row, 1)?) } else { None },
        created: row.get(2)?,
        size_bytes: unsigned(row, 3)?,
        diff_ids: from_json(row, 4)?,
        snapshots: from_json(row, 5)?,
        blobs: from_json(row, 6)?,
        labels: from_json(row, 7)?,
    })
}

fn from_json<T: serde::de::DeserializeOwned>(row: &Row<'_>, index: usize) -> rusqlite::Result<T> {
    serde_json::from_str(row.get_ref(index)?.as_str()?)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(index, Type::Text, Box::new(error)))
}

fn name_from(row: &Row<'_>) -> rusqlite::Result<(Digest, ImageName)> {
    let name =
        ImageName { reference: row.get(1)?, manifest: parsed_or_null(row, 2)?, tagged_at: row.get(3)? };
    Ok((parsed(row, 0)?, name))
}

fn repo_digest_from(row: &Row<'_>) -> rusqlite::Result<(Digest, RepoDigest)> {
    Ok((parsed(row, 0)?, RepoDigest { repository: row.get(1)?, digest: parsed(row, 2)? }))
}

fn image(connection: &Connection, id: &Digest) -> rusqlite::Result<Option<Image>> {
    let Some(record) = find(connection, id)? else { return Ok(None) };
    let id = id.to_string();
    let names = connection
        .prepare_cached(
            "SELECT image, reference, manifest, tagged_at FROM image_names WHERE image = ?1 ORDER BY reference",
        )?
        .query_map([&id], |row| Ok(name_from(row)?.1))?
        .collect::<rusqlite::Result<_>>()?;
    let repo_digests = connection
        .prepare_cached("SELECT image, repository, digest FROM repo_digests WHERE image = ?1 ORDER BY 2, 3")?
        .query_map([&id], |row| Ok(repo_digest_from(row)?.1))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Some(Image { record, names, repo_digests }))
}

/// Three scans instead of two look-ups per image.
fn images(connection: &Connection) -> rusqlite::Result<Vec<Image>> {
    let mut images = BTreeMap::new();
    for record in connection.prepare_cached(COLUMNS)?.query_map([], record_from)? {
        let record = record?;
        images.insert(record.id, Image { record, names: Vec::new(), repo_digests: Vec::new() });
    }
    let names = "SELECT image, reference, manifest, tagged_at FROM image_names ORDER BY reference";
    for row in connection.prepare_cached(names)?.query_map([], name_from)? {
        let (id, name) = row?;
        if let Some(image) = images.get_mut(&id) {
            image.names.push(name);
        }
    }
    let repo_digests = "SELECT image, repository, digest FROM repo_digests ORDER BY repository, digest";
    for row in connection.prepare_cached(repo_digests)?.query_map([], repo_digest_from)? {
        let (id, repo_digest) = row?;
        if let Some(image) = images.get_mut(&id) {
            image.repo_digests.push(repo_digest);
        }
    }
    Ok(images.into_values().collect())
}
