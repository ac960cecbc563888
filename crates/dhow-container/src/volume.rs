//! Volumes: folders that outlive containers.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use dhow_layer::{ApplyOptions, DiffOptions};
use dhow_snapshot::MountSpec;
use dhow_store::{DatabaseError, Record, RecordStore, RemoveRecordError, Store, UpdateError};
use dhow_sys::beneath::{Owner, Root, proc_path};
use dhow_sys::overlay::Options;
use serde::{Deserialize, Serialize};

use crate::error::{DiskError, VolumeError, disk};
use crate::local_driver::Backing;
use crate::name::is_id;

/// The kind of volumes' records.
pub(crate) const KIND: &str = "volume";

/// Bytes of an image's folder on their way into a volume.
const PIPE_BUFFER_BYTES: usize = 64 * 1024;

/// The body of a volume's record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct VolumeRecord {
    pub created: String,
    /// It was made without being given a name.
    pub anonymous: bool,
    /// The container it was made for and goes with. `None`: it was named, or has outlived its container.
    pub made_for: Option<String>,
    pub labels: BTreeMap<String, String>,
    /// What the driver was told.
    pub options: BTreeMap<String, String>,
}

/// The volumes of a store.
pub(crate) struct Volumes<'s> {
    store: &'s Store,
}

impl<'s> Volumes<'s> {
    pub(crate) fn new(store: &'s Store) -> Volumes<'s> {
        Volumes { store }
    }

    /// The folder with a volume's files.
    pub(crate) fn data_dir(&self, name: &str) -> PathBuf {
        self.dir(name).join("_data")
    }

    /// Makes a volume unless it is there. True: it was made.
    pub(crate) fn ensure(&self, name: &str, record: &VolumeRecord) -> Result<bool, VolumeError> {
        let made = self.records().get(name)?.is_none();
        if made {
            let body = serde_json::to_string(record).expect("plain data serializes");
            self.records().put(name, Some(name), &body, &[])?;
        }
        // After the record: a folder without one is rubbish, a record without a folder is mended here.
        let data = self.data_dir(name);
        fs::create_dir_all(&data).map_err(disk("create", &data))?;
        Ok(made)
    }

    /// A volume's record. One that cannot be read is as good as empty: it takes room all the same, and was given
    /// its name as far as we know.
    pub(crate) fn record(&self, name: &str) -> Result<Option<VolumeRecord>, DatabaseError> {
        Ok(self.records().get(name)?.map(|record| read(&record.body)))
    }

    /// What is behind a volume. Options were checked when it was made; those of nobody are a folder's.
    pub(crate) fn backing(&self, name: &str) -> Result<Backing, DatabaseError> {
        let options = self.record(name)?.unwrap_or_default().options;
        Ok(Backing::of(&options).unwrap_or_default())
    }

    /// The folder of the host that shows a volume's files, while they are mounted if they have to be.
    pub(crate) fn source(&self, name: &str) -> Result<PathBuf, DatabaseError> {
        Ok(match self.backing(name)? {
            Backing::Bind(bind) => bind.device,
            Backing::Folder | Backing::Mount(_) => self.data_dir(name),
        })
    }

    /// Fills an empty volume with what the image has at `target`, attributes of the folder included.
    pub(crate) fn fill(
        &self,
        name: &str,
        image: &MountSpec,
        target: &str,
        options: &ApplyOptions,
    ) -> Result<(), VolumeError> {
        let (dir, data) = (self.dir(name), self.data_dir(name));
        let failed = |source| VolumeError::Copy { name: name.into(), target: target.into(), source };
        match self.backing(name)? {
            Backing::Folder => {}
            // It may be on another disk, and was there before us: it is filled where it lies.
            Backing::Bind(bind) if is_empty(&bind.device).map_err(disk("read", &bind.device))? => {
                return copy_folder(image, target, &bind.device, options).map(drop).map_err(failed);
            }
            // What is mounted for a while only is not worth filling, or somebody else's.
            Backing::Bind(_) | Backing::Mount(_) => return Ok(()),
        }
        if !is_empty(&data).map_err(disk("read", &data))? {
            return Ok(());
        }
        let new = dir.join(format!("_new-{}", std::process::id()));
        let copied = copy_folder(image, target, &new, options).map_err(failed);
        // Over an empty folder a rename is one step; one that somebody filled meanwhile stays as it is.
        let renamed = copied.and_then(|copied| match copied.then(|| fs::rename(&new, &data)) {
            Some(Err(error)) if error.kind() != io::ErrorKind::DirectoryNotEmpty => {
                Err(disk("rename", &new)(error).into())
            }
            _ => Ok(()),
        });
        remove_dir(&new)?;
        renamed
    }

    /// Lets an anonymous volume outlive its container.
    pub(crate) fn keep(&self, name: &str) -> Result<(), RemoveVolumeError> {
        let keep = |record: &Record| {
            let record: VolumeRecord = serde_json::from_str(&record.body)?;
            serde_json::to_string(&VolumeRecord { made_for: None, ..record })
        };
        match self.records().update(name, keep) {
            Ok(_) | Err(UpdateError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// All volumes by name.
    pub(crate) fn list(&self) -> Result<Vec<(String, VolumeRecord)>, DatabaseError> {
        Ok(self.records().list()?.into_iter().map(|record| (record.key, read(&record.body))).collect())
    }

    /// The anonymous volumes that go with their containers, each with its container.
    pub(crate) fn bound(&self) -> Result<Vec<(String, String)>, DatabaseError> {
        let bound = |record: Record| {
            // A record that cannot be read says nothing, so its volume stays.
            let body = serde_json::from_str::<VolumeRecord>(&record.body).ok()?;
            Some((record.key, body.made_for?))
        };
        Ok(self.records().list()?.into_iter().filter_map(bound).collect())
    }

    /// Removes the folders of anonymous volumes without a record, left by removals that were killed.
    ///
    /// Folders with other names stay, whatever they are: somebody may have put them there.
    pub(crate) fn sweep_folders(&self) -> Result<(), RemoveVolumeError> {
        let Ok(entries) = fs::read_dir(self.store.root().join("volumes")) else { return Ok(()) };
        for name in entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
            if is_id(&name) && self.records().get(&name)?.is_none() {
                remove_dir(&self.dir(&name))?;
            }
        }
        Ok(())
    }

    /// Removes a volume that no container uses; one that is used stays. True: it was there and is gone.
    pub(crate) fn remove_unused(&self, name: &str) -> Result<bool, RemoveVolumeError> {
        match self.remove(name) {
            Err(RemoveVolumeError::Record(RemoveRecordError::InUse { .. })) => Ok(false),
            result => result,
        }
    }

    /// Removes a volume. True: it was there.
    pub(crate) fn remove(&self, name: &str) -> Result<bool, RemoveVolumeError> {
        let record = self.records().remove(name)?;
        // Before anything is removed by name: what is mounted there is not ours to delete.
        self.unmount(name)?;
        remove_dir(&self.dir(name))?;
        Ok(record.is_some())
    }

    pub(crate) fn records(&self) -> RecordStore<'s> {
        self.store.records(KIND)
    }

    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        self.store.root().join("volumes").join(name)
    }
}

fn read(body: &str) -> VolumeRecord {
    serde_json::from_str(body).unwrap_or_default()
}

/// Why a volume was not removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RemoveVolumeError {
    /// The store refused.
    #[error(transparent)]
    Record(#[from] RemoveRecordError),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// Its record cannot be changed.
    #[error(transparent)]
    Update(#[from] UpdateError<serde_json::Error>),
    /// The disk failed us.
    #[error(transparent)]
    Io(#[from] DiskError),
}

type CopyError = Box<dyn std::error::Error + Send + Sync>;

/// Copies the folder `target` of an image to `new`. False: the image has no such folder.
fn copy_folder(
    image: &MountSpec,
    target: &str,
    new: &Path,
    options: &ApplyOptions,
) -> Result<bool, CopyError> {
    let mounted = image.mount(Options::default())?;
    let root = Root::from_fd(mounted.into());
    let relative = Path::new(target.trim_start_matches('/'));
    let folder = match root.open_dir(relative) {
        Ok(folder) => folder,
        // A file, or nothing: there is nothing to copy.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(false);
        }
        Err(error) => return Err(error.into()),
    };
    match fs::create_dir(new) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error.into()),
        _ => {}
    }
    copy_tree(Path::new(&proc_path(&folder)), new, options)?;
    let stat = root.stat(relative)?;
    let new = Root::open(new)?;
    let itself = Path::new("");
    new.chown(itself, Owner { uid: stat.st_uid, gid: stat.st_gid })?;
    new.chmod(itself, stat.st_mode & 0o7777)?;
    Ok(true)
}

/// Copies all below `from` to `to`, with owners, modes, times, links and extended attributes, in overlayfs's own
/// terms if there are any.
pub(crate) fn copy_tree(from: &Path, to: &Path, options: &ApplyOptions) -> Result<(), CopyError> {
    let (reader, writer) = io::pipe()?;
    std::thread::scope(|scope| {
        let write = scope.spawn(move || dhow_layer::write_tar(from, writer, &DiffOptions::default()));
        let reader = io::BufReader::with_capacity(PIPE_BUFFER_BYTES, reader);
        let applied = dhow_layer::apply(reader, to, options);
        let written = write.join().map_err(|_| "the thread that reads the files panicked")?;
        // If both failed, the reader's error is the consequence.
        match (written, applied) {
            (Err(dhow_layer::DiffError::Write(_)), Err(error)) => Err(error.into()),
            (Err(error), _) => Err(error.into()),
            (Ok(_), Err(error)) => Err(error.into()),
            (Ok(_), Ok(_)) => Ok(()),
        }
    })
}

fn is_empty(dir: &Path) -> io::Result<bool> {
    Ok(fs::read_dir(dir)?.next().is_none())
}

/// Removes a folder that may not be there.
pub(crate) fn remove_dir(dir: &Path) -> Result<(), DiskError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(disk("remove", dir)(error)),
        _ => Ok(()),
    }
}
