//! A tar of a file system becomes the one layer of an image.

use std::io::{BufReader, Read};

use dhow_layer::{ApplyError, ApplyOptions, Limits, Whiteouts, apply, open_archive};
use dhow_snapshot::{SnapshotError, SnapshotKey, Snapshotter as _};
use dhow_store::Lease;

use crate::{FreezeError, FrozenLayer, Images};

const BUFFER_BYTES: usize = 256 << 10;
/// Files that an archive may hold.
const ENTRIES_MAX: u64 = 4_000_000;
/// Bytes that its files may have together, holes included.
const UNPACKED_BYTES_MAX: u64 = 256 << 30;
/// Folders of dead imports that may stand in the way of a new one.
const ABANDONED_FOLDERS_MAX: u32 = 1000;

/// Why an archive did not become a layer.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// Its packing cannot be understood.
    #[error("cannot read the archive")]
    Read(#[source] std::io::Error),
    /// It cannot be unpacked.
    #[error("cannot unpack the archive")]
    Apply(#[from] ApplyError),
    /// There is no folder to unpack it in.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// Its files did not become a layer.
    #[error(transparent)]
    Freeze(#[from] FreezeError),
}

impl Images {
    /// Unpacks an archive, compressed or not, into a layer that `lease` protects. An empty archive makes none.
    pub fn import(&self, input: impl Read, lease: &Lease) -> Result<Option<FrozenLayer>, ImportError> {
        let (key, prepared) = self.import_folder()?;
        // In an archive a name that begins with `.wh.` is a name.
        let limits = Limits { entries_max: ENTRIES_MAX, size_bytes_max: UNPACKED_BYTES_MAX };
        let options = ApplyOptions { whiteouts: Whiteouts::Literal, limits, ..self.apply_options() };
        let stream = open_archive(input).map_err(ImportError::Read);
        let applied = stream.and_then(|stream| {
            let stream = BufReader::with_capacity(BUFFER_BYTES, stream);
            Ok(apply(stream, prepared.path(), &options)?)
        });
        if let Err(error) = applied {
            // Best effort: nobody holds it any more, so it is collected one day.
            let _ = self.snapshots().remove(&key);
            return Err(error);
        }
        Ok(self.freeze(&key, lease)?)
    }

    fn import_folder(&self) -> Result<(SnapshotKey, dhow_snapshot::Prepared), ImportError> {
        let mut number = 0;
        loop {
            let name = format!("import-{}-{number}", std::process::id());
            let key: SnapshotKey = name.parse().expect("letters, digits and dashes are a snapshot key");
            match self.snapshots().prepare_layer(&key) {
                Ok(prepared) => return Ok((key, prepared)),
                Err(SnapshotError::KeyTaken { .. }) if number < ABANDONED_FOLDERS_MAX => number += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }
}
