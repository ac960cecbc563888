//! What records and content mean, for any number of servers on one storage.
//!
//! ```text
//! catalog/<repository>/_                                     there are manifests in it
//! repositories/<repository>/_manifests/sha256/<hex>          a manifest, as it was pushed
//! repositories/<repository>/_tags/<tag>                      the digest of a manifest
//! repositories/<repository>/_blobs/sha256/<hex>              the repository has this content
//! repositories/<repository>/_referrers/sha256/<hex>/sha256/<hex>   a descriptor: the second is about the first
//! gc/<name>                                                  digests that are about to be removed
//! keys/token                                                 what tokens are signed with
//! ```
//!
//! A part of a repository's name cannot begin with an underscore, so that none of these can be taken for another.
//!
//! **Order.** A push ends with its tag, which is written when all it leads to is there: content, then the blob's record,
//! then the manifest, then its referrer and the catalog, then the tag. Killed in between, what is there is whole and
//! what is not is garbage.
//!
//! **Garbage** is collected while pushes run, by any process. Collecting may miss a manifest that is written meanwhile,
//! and a push may rely on a blob that is removed meanwhile; so each announces itself before it looks at the other. The
//! collector writes what it is about to remove to `gc/`, and only then reads the manifests and the times of the blobs'
//! records again. A push writes its manifest or blob record first, and only then looks into `gc/`; if its blobs are
//! there, it waits until they are gone from it, and then makes sure that they are still there. Whichever comes second
//! sees the other. A collector that dies leaves its announcement; [`FENCE_SECONDS_MAX`] after it was seen first it counts
//! for nothing, and a collector that is slow stops well before ([`gc`]).
//!
//! **Asking whether a blob is there** makes its record new again when it has become old: who asks is about to push an
//! image with it, and has the whole time of grace for that.

mod blobs;
mod fence;
mod gc;
mod manifests;
mod referrers;
mod search;
mod tags;
mod uploads;

use std::sync::Arc;

use dhow_oci::Digest;
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::storage::Storage;

pub(crate) use blobs::blob_unknown;
pub use gc::{GcOptions, GcReport};
pub(crate) use manifests::{Reference, manifest_unknown};
pub(crate) use search::Found;
pub(crate) use tags::{Names, Page};
pub(crate) use uploads::{Part, Progress};

/// The registry over a storage. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Registry {
    storage: Arc<dyn Storage>,
    limits: Limits,
}

/// What one request may ask for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The largest manifest that is taken.
    pub(crate) manifest_bytes_max: u64,
    /// The largest blob.
    pub(crate) blob_bytes_max: u64,
    /// How long a client may take to send the next bytes.
    pub(crate) patience: std::time::Duration,
}

impl Registry {
    pub(crate) fn new(storage: Arc<dyn Storage>, limits: Limits) -> Registry {
        Registry { storage, limits }
    }
}

/// 128 random bits in hexadecimal: a name nobody else has.
pub(crate) fn random_name() -> String {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).expect("the kernel has random bytes");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn digest_words(digest: Digest) -> String {
    format!("{}/{}", digest.algorithm().name(), digest.hex())
}

/// Reads the digest that ends a key.
fn digest_at_end(key: &str) -> Option<Digest> {
    let mut words = key.rsplit('/');
    let (hex, algorithm) = (words.next()?, words.next()?);
    format!("{algorithm}:{hex}").parse().ok()
}

fn manifest_key(repository: &str, digest: Digest) -> String {
    format!("repositories/{repository}/_manifests/{}", digest_words(digest))
}

fn blob_key(repository: &str, digest: Digest) -> String {
    format!("repositories/{repository}/_blobs/{}", digest_words(digest))
}

fn tag_key(repository: &str, tag: &str) -> String {
    format!("repositories/{repository}/_tags/{tag}")
}

fn catalog_key(repository: &str) -> String {
    format!("catalog/{repository}/_")
}
