//! What every storage has to do, tried on each.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use dhow_oci::Digest;
use futures_util::TryStreamExt as _;

use super::{Bucket, ByteStream, Folder, Note, Storage, StorageError};

/// Runs a truth on every implementation.
macro_rules! suite {
    ($($name:ident)*) => {
        mod folder {
            use super::Arc;
            $(#[tokio::test] async fn $name() {
                let folder = tempfile::tempdir().unwrap();
                super::$name(Arc::new(super::Folder::open(folder.path()).unwrap())).await;
            })*
        }
        mod bucket {
            use super::Arc;
            $(#[tokio::test] async fn $name() {
                super::$name(Arc::new(super::Bucket::in_memory())).await;
            })*
        }
        /// A real store, where `DHOW_TEST_S3` says: `http://127.0.0.1:PORT`.
        mod s3 {
            use super::Arc;
            $(#[tokio::test] async fn $name() {
                if let Some(bucket) = super::s3(stringify!($name)).await {
                    super::$name(Arc::new(bucket)).await;
                }
            })*
        }
    };
}

suite! {
    a_record_is_what_was_written_last
    of_several_who_create_a_record_one_does
    records_are_listed_in_the_order_of_their_keys
    content_is_read_whole_and_in_part
    what_was_saved_goes_on_elsewhere_and_what_was_not_is_lost
    of_two_writers_of_an_upload_one_is_refused
    a_large_upload_in_odd_pieces_comes_out_as_it_went_in
    content_that_is_there_stays_when_it_is_published_again
    a_discarded_upload_leaves_nothing
    removed_content_is_gone_and_can_come_back
}

type Any = Arc<dyn Storage>;

async fn s3(test: &str) -> Option<Bucket> {
    let Ok(endpoint) = std::env::var("DHOW_TEST_S3") else {
        println!("skipped: no DHOW_TEST_S3");
        return None;
    };
    let options = super::BucketOptions {
        bucket: "suite".to_owned(),
        endpoint: Some(endpoint),
        region: Some("us-east-1".to_owned()),
        prefix: Some(format!("{test}-{}", crate::registry::random_name())),
        access_key_id: Some("test".to_owned()),
        secret_access_key: Some("test".to_owned()),
    };
    Some(Bucket::open(&options).await.expect("the store of DHOW_TEST_S3"))
}

async fn bytes(stream: ByteStream) -> Vec<u8> {
    stream
        .try_fold(Vec::new(), async |mut all, piece| {
            all.extend_from_slice(&piece);
            Ok(all)
        })
        .await
        .unwrap()
}

fn note(bytes: u64) -> Note {
    Note { repository: "a/b".to_owned(), bytes, sha256: String::new() }
}

/// Bytes that repeat at no power of two.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index % 251) as u8).collect()
}

async fn publish(storage: &Any, upload: &str, content: &[u8]) -> Digest {
    let digest = Digest::sha256_of(content);
    storage.begin(upload, &note(0)).await.unwrap();
    let mut open = storage.resume(upload).await.unwrap().unwrap();
    open.write(vec![Bytes::copy_from_slice(content)]).await.unwrap();
    open.seal(digest).await.unwrap();
    open.publish(digest).await.unwrap();
    open.discard().await.unwrap();
    digest
}

async fn a_record_is_what_was_written_last(storage: Any) {
    assert_eq!(storage.get("a/b").await.unwrap(), None);
    assert_eq!(storage.written("a/b").await.unwrap(), None);
    assert!(!storage.delete("a/b").await.unwrap());
    let before = SystemTime::now() - Duration::from_secs(5);
    for text in ["one", "", "three"] {
        storage.put("a/b", text.into()).await.unwrap();
        assert_eq!(storage.get("a/b").await.unwrap().unwrap(), text);
    }
    assert!(storage.written("a/b").await.unwrap().unwrap() > before);
    assert!(storage.delete("a/b").await.unwrap());
    assert_eq!(storage.get("a/b").await.unwrap(), None);
    assert_eq!(storage.get("a").await.unwrap(), None, "a folder is no record");
}

async fn of_several_who_create_a_record_one_does(storage: Any) {
    let create = |text: String| {
        let storage = Arc::clone(&storage);
        tokio::spawn(async move { storage.create("keys/x", text.into()).await.unwrap() })
    };
    let tasks: Vec<_> = (0..8).map(|index| create(index.to_string())).collect();
    let mut created = Vec::new();
    for (index, task) in tasks.into_iter().enumerate() {
        if task.await.unwrap() {
            created.push(index.to_string());
        }
    }
    assert_eq!(created.len(), 1, "{created:?}");
    assert_eq!(storage.get("keys/x").await.unwrap().unwrap(), created[0]);
}

async fn records_are_listed_in_the_order_of_their_keys(storage: Any) {
    let mut keys = ["r/a/_", "r/a-b/_", "r/a.b/_", "r/a/b/_", "r/a0/_", "r/A", "r/b/c/d/_", "rr/x"];
    for key in keys {
        storage.put(key, Bytes::new()).await.unwrap();
    }
    keys.sort_unstable();
    let list = async |prefix: &str, after: Option<&str>, limit| {
        let entries = storage.list(prefix, after, limit).await.unwrap();
        entries.into_iter().map(|entry| entry.key).collect::<Vec<_>>()
    };
    assert_eq!(list("r/", None, usize::MAX).await, keys[..7]);
    for (index, key) in keys[..7].iter().enumerate() {
        assert_eq!(list("r/", Some(key), 2).await, keys[index + 1..7.min(index + 3)], "after {key}");
    }
    assert_eq!(list("r/b/", None, 9).await, ["r/b/c/d/_"]);
    assert_eq!(list("nothing/", None, 9).await, [""; 0]);
}

async fn content_is_read_whole_and_in_part(storage: Any) {
    let content = pattern(3_000_000);
    let digest = publish(&storage, "u1", &content).await;
    assert_eq!(storage.size(digest).await.unwrap(), Some(3_000_000));
    for range in [0..3_000_000, 0..1, 1_048_575..1_048_577, 2_999_999..3_000_000, 5..5] {
        let part = bytes(storage.read(digest, range.clone()).await.unwrap().unwrap()).await;
        assert_eq!(part, content[range.start as usize..range.end as usize], "{range:?}");
    }
    let empty = publish(&storage, "u2", b"").await;
    assert_eq!(storage.size(empty).await.unwrap(), Some(0));
    let listed: Vec<Digest> =
        storage.contents().await.unwrap().into_iter().map(|content| content.digest).collect();
    assert!(listed.len() == 2 && listed.contains(&digest) && listed.contains(&empty), "{listed:?}");
    let other = Digest::sha256_of(b"other");
    assert_eq!(storage.size(other).await.unwrap(), None);
    assert!(storage.read(other, 0..1).await.unwrap().is_none());
}

async fn what_was_saved_goes_on_elsewhere_and_what_was_not_is_lost(storage: Any) {
    assert!(storage.resume("u").await.unwrap().is_none());
    storage.begin("u", &note(0)).await.unwrap();
    let mut open = storage.resume("u").await.unwrap().unwrap();
    assert_eq!(open.note(), &note(0));
    open.write(vec!["saved".into()]).await.unwrap();
    open.save(&note(5)).await.unwrap();
    open.write(vec![" and lost".into()]).await.unwrap();
    // As if the process had been killed.
    drop(open);
    let uploads = storage.uploads().await.unwrap();
    assert_eq!(uploads.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["u"]);
    let mut open = storage.resume("u").await.unwrap().unwrap();
    assert_eq!(open.note(), &note(5));
    open.write(vec![" ".into(), "again".into()]).await.unwrap();
    let digest = Digest::sha256_of(b"saved again");
    open.seal(digest).await.unwrap();
    assert_eq!(bytes(open.read().await.unwrap()).await, b"saved again");
    open.publish(digest).await.unwrap();
    assert_eq!(storage.size(digest).await.unwrap(), Some(11));
}

async fn of_two_writers_of_an_upload_one_is_refused(storage: Any) {
    storage.begin("u", &note(0)).await.unwrap();
    let mut one = storage.resume("u").await.unwrap().unwrap();
    one.write(vec!["one".into()]).await.unwrap();
    // A folder refuses at once, a bucket when it is saved.
    let two = async {
        let mut two = storage.resume("u").await?.unwrap();
        two.write(vec!["two".into()]).await?;
        one.save(&note(3)).await?;
        two.save(&note(3)).await
    };
    assert!(matches!(two.await, Err(StorageError::Busy(_))));
    one.save(&note(3)).await.unwrap();
}

async fn a_large_upload_in_odd_pieces_comes_out_as_it_went_in(storage: Any) {
    // More than two parts of a bucket, saved where no part ends.
    let content = pattern((17 << 20) + 12345);
    storage.begin("u", &note(0)).await.unwrap();
    let mut at = 0;
    for saved_at in [7, 5 << 20, 9 << 20, 16 << 20, 17 << 20, content.len()] {
        let mut open = storage.resume("u").await.unwrap().unwrap();
        assert_eq!(open.note().bytes, at as u64);
        for piece in content[at..saved_at].chunks(1_000_003) {
            open.write(vec![Bytes::copy_from_slice(piece)]).await.unwrap();
        }
        open.save(&note(saved_at as u64)).await.unwrap();
        at = saved_at;
    }
    let mut open = storage.resume("u").await.unwrap().unwrap();
    let digest = Digest::sha256_of(&content);
    open.seal(digest).await.unwrap();
    open.publish(digest).await.unwrap();
    open.discard().await.unwrap();
    let stored = bytes(storage.read(digest, 0..content.len() as u64).await.unwrap().unwrap()).await;
    assert!(stored == content, "other bytes");
}

async fn content_that_is_there_stays_when_it_is_published_again(storage: Any) {
    let digest = publish(&storage, "u1", b"content").await;
    assert_eq!(publish(&storage, "u2", b"content").await, digest);
    assert_eq!(bytes(storage.read(digest, 0..7).await.unwrap().unwrap()).await, b"content");
    assert_eq!(storage.contents().await.unwrap().len(), 1);
    assert_eq!(storage.uploads().await.unwrap(), []);
}

async fn a_discarded_upload_leaves_nothing(storage: Any) {
    for length in [0, 10, 9 << 20] {
        storage.begin("u", &note(0)).await.unwrap();
        let mut open = storage.resume("u").await.unwrap().unwrap();
        open.write(vec![pattern(length).into()]).await.unwrap();
        open.save(&note(length as u64)).await.unwrap();
        open.discard().await.unwrap();
        assert!(storage.resume("u").await.unwrap().is_none());
        assert_eq!(storage.uploads().await.unwrap(), []);
    }
    assert_eq!(storage.sweep(SystemTime::now() + Duration::from_secs(60)).await.unwrap(), 0);
}

async fn removed_content_is_gone_and_can_come_back(storage: Any) {
    let digest = publish(&storage, "u1", b"content").await;
    storage.remove(digest).await.unwrap();
    storage.remove(digest).await.unwrap();
    assert_eq!(storage.size(digest).await.unwrap(), None);
    assert_eq!(publish(&storage, "u2", b"content").await, digest);
    assert_eq!(bytes(storage.read(digest, 0..7).await.unwrap().unwrap()).await, b"content");
}
