use std::time::{Duration, Instant};

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use dhow_oci::{Algorithm, Digest, Digester};
use futures_util::TryStreamExt as _;
use http_body_util::BodyExt as _;
use tokio::sync::mpsc;

use super::{Registry, blob_key, random_name};
use crate::error::{ApiError, Code};
use crate::storage::{Note, StorageError, Upload};

/// So many bytes are hashed and written at once.
const BATCH_BYTES: usize = 1 << 20;
/// Batches that wait while another is written.
const BATCHES_WAITING_MAX: usize = 2;
/// What was received is saved at least this often.
const SAVE_BYTES: u64 = 64 << 20;
/// Who sends less than this while the patience lasts is too slow.
const PATIENCE_BYTES: usize = 16 << 10;
/// How often content is published again that a collector took away.
const PUBLISH_TRIES_MAX: usize = 5;

/// Which part of the blob a request says it brings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Part {
    /// Where it begins, if it says so; otherwise where the upload is.
    pub(crate) start: Option<u64>,
    /// How long it is, if it says so.
    pub(crate) bytes: Option<u64>,
}

/// An upload and how many bytes it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) upload: String,
    pub(crate) bytes: u64,
}

impl Registry {
    /// Begins an upload.
    pub(crate) async fn begin_upload(&self, repository: &str) -> Result<Progress, ApiError> {
        let upload = random_name();
        let sha256 = STANDARD.encode(Digester::sha256().state());
        let note = Note { repository: repository.to_owned(), bytes: 0, sha256 };
        self.storage.begin(&upload, &note).await?;
        Ok(Progress { upload, bytes: 0 })
    }

    /// How far an upload is.
    pub(crate) async fn upload(&self, repository: &str, upload: &str) -> Result<Progress, ApiError> {
        let open = self.resume(repository, upload).await?;
        Ok(Progress { upload: upload.to_owned(), bytes: open.note().bytes })
    }

    /// Adds the bytes of a request.
    pub(crate) async fn append(
        &self,
        repository: &str,
        upload: &str,
        part: Part,
        body: Body,
    ) -> Result<Progress, ApiError> {
        let mut receiver = self.receiver(repository, upload, part).await?;
        let received = receiver.receive(part, body).await;
        // Also what came before it broke off.
        receiver.save().await?;
        received?;
        Ok(Progress { upload: upload.to_owned(), bytes: receiver.note.bytes })
    }

    /// Adds the bytes of a request and makes the upload a blob.
    pub(crate) async fn finish_upload(
        &self,
        repository: &str,
        upload: &str,
        part: Part,
        body: Body,
        digest: Digest,
    ) -> Result<(), ApiError> {
        let mut receiver = self.receiver(repository, upload, part).await?;
        let before = receiver.note.bytes;
        if let Err(error) = receiver.receive(part, body).await {
            if receiver.note.bytes > before {
                receiver.save().await?;
            }
            return Err(error);
        }
        let Receiver { mut upload, digester, .. } = receiver;
        let mut actual = digester.finish();
        if digest.algorithm() == Algorithm::Sha256 && actual != digest {
            upload.discard().await?;
            return Err(digest_mismatch(digest, actual));
        }
        upload.seal(digest).await?;
        if digest.algorithm() != Algorithm::Sha256 {
            actual = read_back(upload.as_ref(), digest.algorithm()).await?;
            if actual != digest {
                upload.discard().await?;
                return Err(digest_mismatch(digest, actual));
            }
        }
        self.publish(repository, upload, digest).await
    }

    /// Takes a blob in one request.
    pub(crate) async fn upload_whole(
        &self,
        repository: &str,
        part: Part,
        body: Body,
        digest: Digest,
    ) -> Result<(), ApiError> {
        let upload = self.begin_upload(repository).await?.upload;
        let finished = self.finish_upload(repository, &upload, part, body, digest).await;
        if finished.is_err()
            && let Ok(open) = self.resume(repository, &upload).await
        {
            // Nobody knows its name. What cannot be removed now expires.
            let _ = open.discard().await;
        }
        finished
    }

    /// Forgets an upload.
    pub(crate) async fn cancel_upload(&self, repository: &str, upload: &str) -> Result<(), ApiError> {
        Ok(self.resume(repository, upload).await?.discard().await?)
    }

    async fn publish(
        &self,
        repository: &str,
        mut upload: Box<dyn Upload>,
        digest: Digest,
    ) -> Result<(), ApiError> {
        let key = blob_key(repository, digest);
        for _ in 0..PUBLISH_TRIES_MAX {
            match upload.publish(digest).await {
                // Only without grace: what was published a moment ago, and with it the upload.
                Err(StorageError::Busy(_)) => {
                    upload.discard().await?;
                    let text = format!(
                        "a collector has removed blob {digest}, which is not in this repository: push it again"
                    );
                    return Err(ApiError::new(Code::BlobUploadUnknown, text));
                }
                published => published?,
            }
            self.storage.put(&key, Bytes::new()).await?;
            self.fence(&[digest]).await?;
            if self.storage.size(digest).await?.is_some() && self.storage.written(&key).await?.is_some() {
                upload.discard().await?;
                return Ok(());
            }
        }
        Err(ApiError::new(Code::Unknown, format!("blob {digest} is removed as often as it is published")))
    }

    async fn resume(&self, repository: &str, upload: &str) -> Result<Box<dyn Upload>, ApiError> {
        let unknown = || {
            ApiError::new(Code::BlobUploadUnknown, format!("there is no upload {upload} in this repository"))
        };
        let open = self.storage.resume(upload).await?.ok_or_else(unknown)?;
        if open.note().repository == repository { Ok(open) } else { Err(unknown()) }
    }

    async fn receiver(&self, repository: &str, upload: &str, part: Part) -> Result<Receiver, ApiError> {
        let open = self.resume(repository, upload).await?;
        let note = open.note().clone();
        if part.start.is_some_and(|start| start != note.bytes) {
            let message = format!("the upload has {} bytes; send what follows", note.bytes);
            return Err(ApiError::new(Code::RangeInvalid, message));
        }
        let state = STANDARD.decode(&note.sha256).ok();
        let digester =
            state.and_then(|state| Digester::resume(Algorithm::Sha256, &state)).ok_or_else(|| {
                ApiError::new(
                    Code::BlobUploadUnknown,
                    "this upload was begun by another version; begin again",
                )
            })?;
        let bytes_max = self.limits.blob_bytes_max;
        Ok(Receiver { upload: open, digester, note, bytes_max, patience: self.limits.patience })
    }
}

async fn read_back(upload: &dyn Upload, algorithm: Algorithm) -> Result<Digest, StorageError> {
    let mut digester = Digester::new(algorithm);
    let mut pieces = upload.read().await?;
    while let Some(piece) = pieces.try_next().await? {
        digester = hashed(digester, vec![piece]).await;
    }
    Ok(digester.finish())
}

fn digest_mismatch(expected: Digest, actual: Digest) -> ApiError {
    ApiError::new(Code::DigestInvalid, format!("content is {actual}, not {expected}"))
}

/// Hashing takes as long as writing; it is done elsewhere meanwhile.
async fn hashed(mut digester: Digester, pieces: Vec<Bytes>) -> Digester {
    let hash = move || {
        pieces.iter().for_each(|piece| digester.update(piece));
        digester
    };
    tokio::task::spawn_blocking(hash).await.expect("hashing does not panic")
}

/// Takes a body into an upload.
struct Receiver {
    upload: Box<dyn Upload>,
    digester: Digester,
    note: Note,
    bytes_max: u64,
    patience: Duration,
}

impl Receiver {
    async fn save(&mut self) -> Result<(), StorageError> {
        self.note.sha256 = STANDARD.encode(self.digester.state());
        self.upload.save(&self.note).await
    }

    /// Receives, hashes and writes, all at once. What came is kept, even if this fails.
    async fn receive(&mut self, part: Part, body: Body) -> Result<(), ApiError> {
        let room = self.bytes_max.saturating_sub(self.note.bytes);
        let (sender, batches) = mpsc::channel(BATCHES_WAITING_MAX);
        let source = collect(body, part.bytes, room, self.patience, sender);
        let sink = async {
            // Dropped with this block: should the source still wait, it is told that nobody takes more.
            let mut batches = batches;
            let mut unsaved = 0;
            while let Some(batch) = batches.recv().await {
                unsaved += self.take(batch).await?;
                if unsaved >= SAVE_BYTES {
                    self.save().await?;
                    unsaved = 0;
                }
            }
            Ok::<(), StorageError>(())
        };
        let (received, written) = tokio::join!(source, sink);
        written?;
        received
    }

    async fn take(&mut self, batch: Vec<Bytes>) -> Result<u64, StorageError> {
        let bytes = batch.iter().map(|piece| piece.len() as u64).sum::<u64>();
        let digester = hashed(self.digester.clone(), batch.clone());
        let (digester, written) = tokio::join!(digester, self.upload.write(batch));
        written?;
        self.digester = digester;
        self.note.bytes += bytes;
        Ok(bytes)
    }
}

/// Reads a body in batches.
async fn collect(
    mut body: Body,
    expected: Option<u64>,
    room: u64,
    patience: Duration,
    sender: mpsc::Sender<Vec<Bytes>>,
) -> Result<(), ApiError> {
    let (mut batch, mut batch_bytes, mut total) = (Vec::new(), 0, 0_u64);
    let (mut since, mut heard) = (Instant::now(), 0);
    let outcome = loop {
        let frame = match tokio::time::timeout(patience.saturating_sub(since.elapsed()), body.frame()).await {
            Ok(None) => break Ok(()),
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => {
                break Err(ApiError::new(Code::BlobUploadInvalid, format!("the request broke off: {error}")));
            }
            Err(_) => break Err(too_slow()),
        };
        let Ok(piece) = frame.into_data() else { continue };
        heard += piece.len();
        if heard >= PATIENCE_BYTES {
            (since, heard) = (Instant::now(), 0);
        }
        total += piece.len() as u64;
        if expected.is_some_and(|expected| total > expected) {
            break Err(ApiError::new(
                Code::SizeInvalid,
                "the request has more bytes than its Content-Range says",
            ));
        }
        if total > room {
            let error = ApiError::new(Code::SizeInvalid, "the blob is larger than this registry takes");
            break Err(error.status(hyper::StatusCode::PAYLOAD_TOO_LARGE));
        }
        batch_bytes += piece.len();
        batch.push(piece);
        if batch_bytes >= BATCH_BYTES {
            batch_bytes = 0;
            if sender.send(std::mem::take(&mut batch)).await.is_err() {
                // The writer failed, and says why.
                return Ok(());
            }
            // The time it took us to write is not the client's.
            (since, heard) = (Instant::now(), 0);
        }
    };
    if !batch.is_empty() {
        let _ = sender.send(batch).await;
    }
    outcome?;
    match expected {
        Some(expected) if total < expected => {
            Err(ApiError::new(Code::SizeInvalid, "the request has fewer bytes than its Content-Range says"))
        }
        _ => Ok(()),
    }
}

pub(super) fn too_slow() -> ApiError {
    ApiError::new(Code::BlobUploadInvalid, "the client sends too slowly")
        .status(hyper::StatusCode::REQUEST_TIMEOUT)
}
