//! A registry in a bucket of an S3-compatible store.
//!
//! ```text
//! records/…              records, an object each
//! blobs/sha256/ab/abcd…  a pointer: where the content lies, and its size
//! data/<name>            content, under the name of the upload it came by
//! uploads/<name>         how far an upload is, replaced only by who has read it
//! tails/<name>/<bytes>   what an upload has beyond its last whole part
//! trash/<name>           content that is being removed
//! ```
//!
//! Content arrives by a multipart upload to the place where it stays: nothing is copied in the end, whatever its size, and
//! another server may send the next part. Its digest is known last, and so a pointer has it. The store has to be consistent
//! and to know conditional puts, as S3 does; [`Bucket::open`] tries it.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use dhow_oci::Digest;
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::aws::AmazonS3Builder;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt as _, PutMode, PutPayload, PutResult,
    UpdateVersion,
};
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use super::{ByteStream, Content, Entry, Note, Storage, StorageError, Upload, content_key, content_of};
use crate::registry::random_name;

/// The size of a part. Stores want 5 MiB at least, and some want all of one size.
const PART_BYTES: u64 = 8 << 20;
/// So many parts have that size, those after them [`LATE_PART_BYTES`]: stores take 10 000 parts.
const EARLY_PARTS: usize = 4000;
const LATE_PART_BYTES: u64 = 64 << 20;
const PARTS_MAX: usize = 10_000;
/// Parts of one upload that are on their way at once.
const PARTS_IN_FLIGHT_MAX: usize = 2;

/// What is needed to find a bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct BucketOptions {
    /// Its name.
    pub bucket: String,
    /// Where the store is, if it is not Amazon's.
    pub endpoint: Option<String>,
    /// The region, which is part of every signature.
    pub region: Option<String>,
    /// Begins all keys.
    pub prefix: Option<String>,
    /// Who we are, unless the environment says so.
    pub access_key_id: Option<String>,
    /// The secret that goes with it.
    pub secret_access_key: Option<String>,
}

/// A registry in a bucket, which several servers may share.
#[derive(Clone)]
pub struct Bucket {
    objects: Arc<dyn ObjectStore>,
    parts: Arc<dyn MultipartStore>,
    prefix: String,
}

impl Bucket {
    /// Connects, and sees whether the store is fit. Credentials that `options` lack are those of the variables `AWS_…`.
    pub async fn open(options: &BucketOptions) -> Result<Bucket, StorageError> {
        // The client below takes TLS from it; there is no other provider in this program.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = AmazonS3Builder::from_env().with_bucket_name(&options.bucket);
        if let Some(region) = &options.region {
            builder = builder.with_region(region);
        }
        if let Some(endpoint) = &options.endpoint {
            // Whoever writes http:// means it.
            builder = builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http://"));
        }
        if let (Some(id), Some(secret)) = (&options.access_key_id, &options.secret_access_key) {
            builder = builder.with_access_key_id(id).with_secret_access_key(secret);
        }
        let store =
            builder.build().map_err(|error| StorageError::failed("open bucket", &options.bucket, error))?;
        let store = Arc::new(store);
        let bucket = Bucket::over(store.clone(), store, options.prefix.as_deref().unwrap_or_default());
        bucket.check(&options.bucket).await?;
        Ok(bucket)
    }

    fn over(objects: Arc<dyn ObjectStore>, parts: Arc<dyn MultipartStore>, prefix: &str) -> Bucket {
        let prefix = prefix.trim_matches('/');
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Bucket { objects, parts, prefix }
    }

    /// A bucket in memory.
    #[cfg(test)]
    pub(crate) fn in_memory() -> Bucket {
        let store = Arc::new(object_store::memory::InMemory::new());
        Bucket::over(store.clone(), store, "some/prefix")
    }

    /// Sees whether puts are conditional: what is written at once by two servers must not be lost.
    async fn check(&self, name: &str) -> Result<(), StorageError> {
        let key = format!("trash/check-{}", random_name());
        let is_fit = self.create_object(&key, Bytes::from_static(b"1")).await?
            && !self.create_object(&key, Bytes::from_static(b"2")).await?;
        self.delete_object(&key).await?;
        if is_fit {
            return Ok(());
        }
        let text = "this store does not refuse to overwrite when told so (conditional puts), which several servers need";
        Err(StorageError::failed("use bucket", name, text))
    }

    fn path(&self, key: &str) -> Path {
        Path::from(format!("{}{key}", self.prefix))
    }

    async fn get_object(&self, key: &str) -> Result<Option<(Bytes, UpdateVersion)>, StorageError> {
        let failed = |error| StorageError::failed("read", key, error);
        let Some(result) = optional(self.objects.get(&self.path(key)).await).map_err(failed)? else {
            return Ok(None);
        };
        let version =
            UpdateVersion { e_tag: result.meta.e_tag.clone(), version: result.meta.version.clone() };
        // It may go between head and body.
        let Some(bytes) = optional(result.bytes().await).map_err(failed)? else { return Ok(None) };
        Ok(Some((bytes, version)))
    }

    async fn put_object(&self, key: &str, bytes: Bytes) -> Result<PutResult, StorageError> {
        let put = self.objects.put(&self.path(key), PutPayload::from(bytes)).await;
        put.map_err(|error| StorageError::failed("write", key, error))
    }

    async fn create_object(&self, key: &str, bytes: Bytes) -> Result<bool, StorageError> {
        let put =
            self.objects.put_opts(&self.path(key), PutPayload::from(bytes), PutMode::Create.into()).await;
        match put {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(false),
            Err(error) => Err(StorageError::failed("write", key, error)),
        }
    }

    async fn delete_object(&self, key: &str) -> Result<(), StorageError> {
        let deleted = optional(self.objects.delete(&self.path(key)).await);
        deleted.map(drop).map_err(|error| StorageError::failed("remove", key, error))
    }

    async fn list_objects(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<object_store::ObjectMeta>, StorageError> {
        let path = self.path(prefix);
        let listed = match after {
            Some(after) => self.objects.list_with_offset(Some(&path), &self.path(after)),
            None => self.objects.list(Some(&path)),
        };
        let found: Vec<_> = listed
            .take(limit)
            .try_collect()
            .await
            .map_err(|error| StorageError::failed("list", prefix, error))?;
        Ok(found)
    }

    /// The key of an object, without the prefix of all.
    fn key<'a>(&self, path: &'a Path) -> &'a str {
        path.as_ref().strip_prefix(&self.prefix).unwrap_or(path.as_ref())
    }

    async fn pointer(&self, digest: Digest) -> Result<Option<Pointer>, StorageError> {
        let key = pointer_key(digest);
        let Some((bytes, _)) = self.get_object(&key).await? else { return Ok(None) };
        let pointer = serde_json::from_slice(&bytes);
        Ok(Some(pointer.map_err(|error| StorageError::failed("understand", &key, error))?))
    }
}

/// Where content lies.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Pointer {
    data: String,
    bytes: u64,
}

fn pointer_key(digest: Digest) -> String {
    format!("blobs/{}", content_key(digest))
}

fn optional<T>(result: object_store::Result<T>) -> object_store::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).expect("our own types are JSON").into()
}

#[async_trait]
impl Storage for Bucket {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, StorageError> {
        Ok(self.get_object(&format!("records/{key}")).await?.map(|(bytes, _)| bytes))
    }

    async fn written(&self, key: &str) -> Result<Option<SystemTime>, StorageError> {
        let head = optional(self.objects.head(&self.path(&format!("records/{key}"))).await);
        let head = head.map_err(|error| StorageError::failed("look at", key, error))?;
        Ok(head.map(|head| head.last_modified.into()))
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StorageError> {
        self.put_object(&format!("records/{key}"), bytes).await.map(drop)
    }

    async fn create(&self, key: &str, bytes: Bytes) -> Result<bool, StorageError> {
        self.create_object(&format!("records/{key}"), bytes).await
    }

    async fn delete(&self, key: &str) -> Result<bool, StorageError> {
        // The store does not say whether there was one.
        let existed = self.written(key).await?.is_some();
        if existed {
            self.delete_object(&format!("records/{key}")).await?;
        }
        Ok(existed)
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Entry>, StorageError> {
        let after = after.map(|after| format!("records/{after}"));
        let found = self.list_objects(&format!("records/{prefix}"), after.as_deref(), limit).await?;
        let entry = |meta: object_store::ObjectMeta| {
            let key = self.key(&meta.location).strip_prefix("records/")?.to_owned();
            Some(Entry { key, written: meta.last_modified.into() })
        };
        Ok(found.into_iter().filter_map(entry).collect())
    }

    async fn size(&self, digest: Digest) -> Result<Option<u64>, StorageError> {
        Ok(self.pointer(digest).await?.map(|pointer| pointer.bytes))
    }

    async fn read(&self, digest: Digest, range: Range<u64>) -> Result<Option<ByteStream>, StorageError> {
        let Some(pointer) = self.pointer(digest).await? else { return Ok(None) };
        if range.is_empty() {
            return Ok(Some(futures_util::stream::empty().boxed()));
        }
        let failed = move |error| StorageError::failed("read", digest.to_string(), error);
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        let result = self.objects.get_opts(&self.path(&format!("data/{}", pointer.data)), options).await;
        let result = optional(result).map_err(failed)?;
        Ok(result.map(|result| result.into_stream().map_err(failed).boxed()))
    }

    async fn contents(&self) -> Result<Vec<Content>, StorageError> {
        let found = self.list_objects("blobs", None, usize::MAX).await?;
        let content = |meta: object_store::ObjectMeta| {
            let digest = content_of(self.key(&meta.location).strip_prefix("blobs/")?)?;
            Some(Content { digest, written: meta.last_modified.into() })
        };
        Ok(found.into_iter().filter_map(content).collect())
    }

    async fn remove(&self, digest: Digest) -> Result<(), StorageError> {
        let Some(pointer) = self.pointer(digest).await? else { return Ok(()) };
        let trash = format!("trash/{}", pointer.data);
        self.put_object(&trash, Bytes::from(digest.to_string())).await?;
        self.delete_object(&pointer_key(digest)).await?;
        self.delete_object(&format!("data/{}", pointer.data)).await?;
        self.delete_object(&trash).await
    }

    async fn begin(&self, upload: &str, note: &Note) -> Result<(), StorageError> {
        let state = State {
            note: note.clone(),
            multipart: None,
            parts: Vec::new(),
            tail: 0,
            sealed: false,
            digest: None,
        };
        match self.create_object(&format!("uploads/{upload}"), json(&state)).await? {
            true => Ok(()),
            false => Err(StorageError::failed("begin upload", upload, "there is one of this name")),
        }
    }

    async fn resume(&self, upload: &str) -> Result<Option<Box<dyn Upload>>, StorageError> {
        let key = format!("uploads/{upload}");
        let Some((bytes, version)) = self.get_object(&key).await? else { return Ok(None) };
        let state: State = serde_json::from_slice(&bytes)
            .map_err(|error| StorageError::failed("understand", &key, error))?;
        let (mut waiting, mut waiting_bytes) = (VecDeque::new(), 0);
        if state.tail > 0 && !state.sealed {
            let tail = tail_key(upload, state.note.bytes);
            // Gone if another request has saved since.
            let (tail, _) =
                self.get_object(&tail).await?.ok_or_else(|| StorageError::Busy(upload.to_owned()))?;
            waiting_bytes = tail.len() as u64;
            waiting.push_back(tail);
        }
        let bucket = self.clone();
        let name = upload.to_owned();
        let in_flight = VecDeque::new();
        Ok(Some(Box::new(BucketUpload { bucket, name, state, version, waiting, waiting_bytes, in_flight })))
    }

    async fn uploads(&self) -> Result<Vec<(String, SystemTime)>, StorageError> {
        let found = self.list_objects("uploads", None, usize::MAX).await?;
        let upload = |meta: object_store::ObjectMeta| {
            let name = self.key(&meta.location).strip_prefix("uploads/")?.to_owned();
            Some((name, meta.last_modified.into()))
        };
        Ok(found.into_iter().filter_map(upload).collect())
    }

    async fn sweep(&self, before: SystemTime) -> Result<u64, StorageError> {
        let mut swept = 0;
        for meta in self.list_objects("trash", None, usize::MAX).await? {
            if SystemTime::from(meta.last_modified) >= before {
                continue;
            }
            let key = self.key(&meta.location).to_owned();
            let Some(name) = key.strip_prefix("trash/") else { continue };
            let Some((digest, _)) = self.get_object(&key).await? else { continue };
            let digest = std::str::from_utf8(&digest).ok().and_then(|text| text.parse().ok());
            if let Some(digest) = digest {
                // Killed before its pointer was removed, it is still there for others.
                let pointer = self.pointer(digest).await?;
                if pointer.is_none_or(|pointer| pointer.data != name) {
                    self.delete_object(&format!("data/{name}")).await?;
                }
            }
            self.delete_object(&key).await?;
            swept += 1;
        }
        for meta in self.list_objects("tails", None, usize::MAX).await? {
            let key = self.key(&meta.location).to_owned();
            let upload = key.split('/').nth(1).unwrap_or_default();
            if SystemTime::from(meta.last_modified) < before
                && self.get_object(&format!("uploads/{upload}")).await?.is_none()
            {
                self.delete_object(&key).await?;
                swept += 1;
            }
        }
        Ok(swept)
    }
}

/// How far an upload is.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct State {
    note: Note,
    /// The multipart upload; there is none as long as all fits into the tail.
    multipart: Option<String>,
    /// What the store calls its parts.
    parts: Vec<String>,
    /// How many bytes there are beyond the parts.
    tail: u64,
    /// Whether `data` is whole.
    sealed: bool,
    /// What it is to become.
    digest: Option<Digest>,
}

fn tail_key(upload: &str, bytes: u64) -> String {
    format!("tails/{upload}/{bytes}")
}

/// Parts that go to the store while the next is collected.
struct BucketUpload {
    bucket: Bucket,
    name: String,
    state: State,
    version: UpdateVersion,
    /// What is not yet part of a part.
    waiting: VecDeque<Bytes>,
    waiting_bytes: u64,
    in_flight: VecDeque<JoinHandle<object_store::Result<PartId>>>,
}

impl BucketUpload {
    fn data(&self) -> Path {
        self.bucket.path(&format!("data/{}", self.name))
    }

    fn failed(
        &self,
        act: &'static str,
        error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> StorageError {
        StorageError::failed(act, format!("upload {}", self.name), error)
    }

    fn part_bytes(&self) -> u64 {
        let part = self.state.parts.len() + self.in_flight.len();
        if part < EARLY_PARTS { PART_BYTES } else { LATE_PART_BYTES }
    }

    /// Sends what waits, at most `bytes`, as the next part.
    async fn send_part(&mut self, bytes: u64) -> Result<(), StorageError> {
        if self.state.multipart.is_none() {
            let begun = self.bucket.parts.create_multipart(&self.data()).await;
            self.state.multipart = Some(begun.map_err(|error| self.failed("begin", error))?);
            // Known before it costs anything, so that it can be aborted whatever happens.
            self.write_state(self.state.clone()).await?;
        }
        while self.in_flight.len() >= PARTS_IN_FLIGHT_MAX {
            self.settle_one().await?;
        }
        let part = self.state.parts.len() + self.in_flight.len();
        if part >= PARTS_MAX {
            return Err(self.failed("go on with", "the store takes no content as large as this"));
        }
        let payload = self.take(bytes);
        let (store, path) = (Arc::clone(&self.bucket.parts), self.data());
        let id = self.state.multipart.clone().expect("it was begun");
        self.in_flight
            .push_back(tokio::spawn(async move { store.put_part(&path, &id, part, payload).await }));
        Ok(())
    }

    fn take(&mut self, bytes: u64) -> PutPayload {
        let mut left = bytes.min(self.waiting_bytes);
        self.waiting_bytes -= left;
        let mut pieces = Vec::new();
        while left > 0 {
            let mut piece = self.waiting.pop_front().expect("their lengths add up");
            if piece.len() as u64 > left {
                self.waiting
                    .push_front(piece.split_off(usize::try_from(left).expect("it is shorter than a piece")));
            }
            left -= piece.len() as u64;
            pieces.push(piece);
        }
        PutPayload::from_iter(pieces)
    }

    async fn settle_one(&mut self) -> Result<(), StorageError> {
        if let Some(task) = self.in_flight.pop_front() {
            let part = task.await.map_err(|error| self.failed("send a part of", error))?;
            let part = part.map_err(|error| self.failed("send a part of", error))?;
            self.state.parts.push(part.content_id);
        }
        Ok(())
    }

    async fn settle(&mut self) -> Result<(), StorageError> {
        while !self.in_flight.is_empty() {
            self.settle_one().await?;
        }
        Ok(())
    }

    /// Replaces the state that was read, or fails if another did.
    async fn write_state(&mut self, mut state: State) -> Result<(), StorageError> {
        // What is under way is not durable yet.
        state.parts.truncate(self.state.parts.len());
        let path = self.bucket.path(&format!("uploads/{}", self.name));
        let mode = PutMode::Update(self.version.clone());
        let put = self.bucket.objects.put_opts(&path, PutPayload::from(json(&state)), mode.into()).await;
        let put = put.map_err(|error| match error {
            Error::Precondition { .. } | Error::NotFound { .. } => StorageError::Busy(self.name.clone()),
            error => self.failed("save", error),
        })?;
        self.version = UpdateVersion { e_tag: put.e_tag, version: put.version };
        Ok(())
    }
}

#[async_trait]
impl Upload for BucketUpload {
    fn note(&self) -> &Note {
        &self.state.note
    }

    async fn write(&mut self, pieces: Vec<Bytes>) -> Result<(), StorageError> {
        if self.state.sealed {
            return Err(self.failed("write", "it is complete"));
        }
        for piece in pieces {
            self.waiting_bytes += piece.len() as u64;
            self.waiting.push_back(piece);
        }
        // Strictly more: the last part of a multipart upload is sent when it is sealed, and must not be empty.
        while self.waiting_bytes > self.part_bytes() {
            self.send_part(self.part_bytes()).await?;
        }
        Ok(())
    }

    async fn save(&mut self, note: &Note) -> Result<(), StorageError> {
        self.settle().await?;
        let (old, had_tail) = (self.state.note.bytes, self.state.tail > 0);
        if self.waiting_bytes > 0 {
            let tail: Vec<Bytes> = self.waiting.iter().cloned().collect();
            let path = self.bucket.path(&tail_key(&self.name, note.bytes));
            let put = self.bucket.objects.put(&path, PutPayload::from_iter(tail)).await;
            put.map_err(|error| self.failed("save", error))?;
        }
        self.state.note = note.clone();
        self.state.tail = self.waiting_bytes;
        self.write_state(self.state.clone()).await?;
        if had_tail && old != note.bytes {
            self.bucket.delete_object(&tail_key(&self.name, old)).await?;
        }
        Ok(())
    }

    async fn seal(&mut self, digest: Digest) -> Result<(), StorageError> {
        if self.state.sealed {
            return Ok(());
        }
        if self.state.multipart.is_none() {
            let payload = self.take(self.waiting_bytes);
            let put = self.bucket.objects.put(&self.data(), payload).await;
            put.map_err(|error| self.failed("complete", error))?;
        } else {
            self.send_part(self.waiting_bytes).await?;
            self.settle().await?;
            let id = self.state.multipart.clone().expect("it was begun");
            let parts = self.state.parts.iter().map(|id| PartId { content_id: id.clone() }).collect();
            let completed = self.bucket.parts.complete_multipart(&self.data(), &id, parts).await;
            completed.map_err(|error| self.failed("complete", error))?;
        }
        // Before there is a pointer: whoever clears up after us has to know where to look for it.
        (self.state.sealed, self.state.digest) = (true, Some(digest));
        self.write_state(self.state.clone()).await
    }

    async fn read(&self) -> Result<ByteStream, StorageError> {
        let got = self.bucket.objects.get(&self.data()).await.map_err(|error| self.failed("read", error))?;
        let name = self.name.clone();
        Ok(got.into_stream().map_err(move |error| StorageError::failed("read upload", &name, error)).boxed())
    }

    async fn publish(&mut self, digest: Digest) -> Result<(), StorageError> {
        let data = match self.bucket.objects.head(&self.data()).await {
            // It was published before, and a collector has taken it since.
            Err(Error::NotFound { .. }) => return Err(StorageError::Busy(self.name.clone())),
            data => data.map_err(|error| self.failed("publish", error))?,
        };
        let pointer = Pointer { data: self.name.clone(), bytes: data.size };
        self.bucket.create_object(&pointer_key(digest), json(&pointer)).await.map(drop)
    }

    async fn discard(mut self: Box<Self>) -> Result<(), StorageError> {
        for task in std::mem::take(&mut self.in_flight) {
            task.abort();
        }
        let is_published = match self.state.digest.filter(|_| self.state.sealed) {
            Some(digest) => {
                self.bucket.pointer(digest).await?.is_some_and(|pointer| pointer.data == self.name)
            }
            None => false,
        };
        if !is_published {
            if let Some(id) = self.state.multipart.as_ref().filter(|_| !self.state.sealed) {
                // Gone already if we were killed between completing and sealing.
                let _ = optional(self.bucket.parts.abort_multipart(&self.data(), id).await);
            }
            self.bucket.delete_object(&format!("data/{}", self.name)).await?;
        }
        for tail in self.bucket.list_objects(&format!("tails/{}", self.name), None, usize::MAX).await? {
            self.bucket.delete_object(self.bucket.key(&tail.location)).await?;
        }
        self.bucket.delete_object(&format!("uploads/{}", self.name)).await
    }
}
