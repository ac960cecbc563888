//! Packs a folder into a layer: a gzipped tar with sorted names and fixed times, so that equal folders give equal bytes.
//!
//! The folder may be the upper folder of an overlay; what overlayfs notes about deleted files becomes the whiteouts of
//! image-spec. Extended attributes other than that are not kept: nothing in these images has any.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// What a layer's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packed {
    /// `sha256:…` of the tar.
    pub(crate) diff_id: String,
    /// `sha256:…` of the gzipped tar.
    pub(crate) digest: String,
    /// Bytes of the gzipped tar.
    pub(crate) size: u64,
    /// Bytes of the tar.
    pub(crate) tar_size: u64,
}

/// Packs `root` into the new file `archive`. No time in it is later than `epoch_seconds`.
pub(crate) fn pack(root: &Path, archive: &Path, epoch_seconds: u64) -> anyhow::Result<Packed> {
    let file = File::create(archive).with_context(|| format!("cannot create {}", archive.display()))?;
    let compressed = Hashing::new(BufWriter::new(file));
    let tar = Hashing::new(GzEncoder::new(compressed, Compression::default()));
    let mut packer = Packer { builder: Builder::new(tar), epoch_seconds, seen: BTreeMap::new() };
    packer.folder(root, Path::new(""))?;
    let (gzip, diff_id, tar_size) = packer.builder.into_inner()?.finish();
    let (mut file, digest, size) = gzip.finish()?.finish();
    file.flush()?;
    Ok(Packed { diff_id, digest, size, tar_size })
}

struct Packer<W: Write> {
    builder: Builder<W>,
    epoch_seconds: u64,
    /// Files with more than one name: where each was first.
    seen: BTreeMap<(u64, u64), PathBuf>,
}

impl<W: Write> Packer<W> {
    fn folder(&mut self, real: &Path, inside: &Path) -> anyhow::Result<()> {
        let mut names: Vec<OsString> = fs::read_dir(real)
            .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.file_name())).collect())
            .with_context(|| format!("cannot list {}", real.display()))?;
        names.sort_unstable();
        for name in names {
            let (real, inside) = (real.join(&name), inside.join(&name));
            self.entry(&real, &inside).with_context(|| format!("cannot pack {}", real.display()))?;
        }
        Ok(())
    }

    fn entry(&mut self, real: &Path, inside: &Path) -> anyhow::Result<()> {
        let metadata = real.symlink_metadata()?;
        let kind = metadata.file_type();
        if kind.is_dir() {
            self.append(&metadata, EntryType::Directory, inside, io::empty())?;
            if is_opaque(real)? {
                self.whiteout(&inside.join(".wh..wh..opq"))?;
            }
            self.folder(real, inside)
        } else if kind.is_symlink() {
            let mut header = self.header(&metadata, EntryType::Symlink);
            Ok(self.builder.append_link(&mut header, inside, fs::read_link(real)?)?)
        } else if kind.is_file() {
            self.file(&metadata, real, inside)
        } else if kind.is_char_device() && metadata.rdev() == 0 {
            let name = inside.file_name().expect("an entry has a name");
            let mut marker = OsString::from(".wh.");
            marker.push(name);
            self.whiteout(&inside.with_file_name(marker))
        } else {
            bail!("neither file, folder nor link")
        }
    }

    fn file(&mut self, metadata: &Metadata, real: &Path, inside: &Path) -> anyhow::Result<()> {
        if metadata.nlink() > 1 {
            let identity = (metadata.dev(), metadata.ino());
            if let Some(first) = self.seen.get(&identity) {
                let mut header = self.header(metadata, EntryType::Link);
                return Ok(self.builder.append_link(&mut header, inside, first)?);
            }
            self.seen.insert(identity, inside.to_owned());
        }
        self.append(metadata, EntryType::Regular, inside, BufReader::new(File::open(real)?))
    }

    fn append(
        &mut self,
        metadata: &Metadata,
        kind: EntryType,
        inside: &Path,
        content: impl Read,
    ) -> anyhow::Result<()> {
        let mut header = self.header(metadata, kind);
        Ok(self.builder.append_data(&mut header, inside, content)?)
    }

    fn header(&self, metadata: &Metadata, kind: EntryType) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(metadata.mode() & 0o7777);
        header.set_uid(metadata.uid().into());
        header.set_gid(metadata.gid().into());
        header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or(0).min(self.epoch_seconds));
        header.set_size(if kind == EntryType::Regular { metadata.len() } else { 0 });
        header
    }

    fn whiteout(&mut self, inside: &Path) -> anyhow::Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        header.set_mtime(self.epoch_seconds);
        header.set_size(0);
        Ok(self.builder.append_data(&mut header, inside, io::empty())?)
    }
}

/// Whether overlayfs hides what lies below this folder.
fn is_opaque(folder: &Path) -> anyhow::Result<bool> {
    let mut value = [0_u8; 8];
    match rustix::fs::lgetxattr(folder, "trusted.overlay.opaque", &mut value) {
        Ok(length) => Ok(&value[..length] == b"y"),
        // Without root the attribute cannot be seen, and without an overlay it cannot be there.
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::NOTSUP) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Digests and counts what passes through.
struct Hashing<W> {
    inner: W,
    hasher: Sha256,
    count: u64,
}

impl<W> Hashing<W> {
    fn new(inner: W) -> Self {
        Self { inner, hasher: Sha256::new(), count: 0 }
    }

    fn finish(self) -> (W, String, u64) {
        (self.inner, format!("sha256:{}", hex(&self.hasher.finalize())), self.count)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.count += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// `sha256:…` of `bytes`.
pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use expect_test::expect;
    use flate2::read::GzDecoder;

    use super::*;

    const EPOCH_SECONDS: u64 = 1_000_000_000;

    /// One line for each entry: type, mode, size, time, name, target.
    fn listing(archive: &Path) -> String {
        let mut archive = tar::Archive::new(GzDecoder::new(File::open(archive).unwrap()));
        let mut lines = String::new();
        for entry in archive.entries().unwrap() {
            let entry = entry.unwrap();
            let header = entry.header();
            let target = entry
                .link_name()
                .unwrap()
                .map(|target| format!(" -> {}", target.display()))
                .unwrap_or_default();
            lines += &format!(
                "{:?} {:o} {} {} {}{target}\n",
                header.entry_type(),
                header.mode().unwrap(),
                header.size().unwrap(),
                header.mtime().unwrap(),
                entry.path().unwrap().display(),
            );
        }
        lines
    }

    fn tree() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir(root.join("b")).unwrap();
        fs::write(root.join("b/tool"), "#!/bin/sh\n").unwrap();
        fs::write(root.join("a"), "one").unwrap();
        fs::hard_link(root.join("a"), root.join("c")).unwrap();
        symlink("../a", root.join("b/link")).unwrap();
        for (name, mode) in [("a", 0o600), ("b", 0o755), ("b/tool", 0o4755)] {
            fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        folder
    }

    #[test]
    fn a_layer_is_sorted_and_its_times_are_fixed() {
        let (tree, out) = (tree(), tempfile::tempdir().unwrap());
        let archive = out.path().join("layer");
        pack(tree.path(), &archive, EPOCH_SECONDS).unwrap();
        expect![[r#"
            Regular 600 3 1000000000 a
            Directory 755 0 1000000000 b
            Symlink 777 0 1000000000 b/link -> ../a
            Regular 4755 10 1000000000 b/tool
            Link 600 0 1000000000 c -> a
        "#]]
        .assert_eq(&listing(&archive));
    }

    #[test]
    fn equal_folders_give_equal_layers_and_the_digest_is_of_the_file() {
        let out = tempfile::tempdir().unwrap();
        let (first, second) = (out.path().join("1"), out.path().join("2"));
        let packed = pack(tree().path(), &first, EPOCH_SECONDS).unwrap();
        assert_eq!(packed, pack(tree().path(), &second, EPOCH_SECONDS).unwrap());
        let bytes = fs::read(&first).unwrap();
        assert_eq!((packed.digest, packed.size), (digest(&bytes), bytes.len() as u64));
        let mut tar = Vec::new();
        GzDecoder::new(&bytes[..]).read_to_end(&mut tar).unwrap();
        assert_eq!((packed.diff_id, packed.tar_size), (digest(&tar), tar.len() as u64));
    }

    #[test]
    fn what_an_overlay_notes_as_deleted_becomes_a_whiteout() {
        if !crate::command::is_root() {
            println!("skipped: making devices needs root");
            return;
        }
        use rustix::fs::{CWD, FileType, Mode, XattrFlags, lsetxattr, mknodat};
        let (tree, out) = (tree(), tempfile::tempdir().unwrap());
        mknodat(CWD, tree.path().join("b/gone"), FileType::CharacterDevice, Mode::empty(), 0).unwrap();
        let opaque = lsetxattr(tree.path().join("b"), "trusted.overlay.opaque", b"y", XattrFlags::empty());
        if opaque.is_err() {
            println!("skipped: the temporary folder keeps no attributes");
            return;
        }
        let archive = out.path().join("layer");
        pack(tree.path(), &archive, EPOCH_SECONDS).unwrap();
        let names = listing(&archive);
        assert!(names.contains(" b/.wh..wh..opq\n") && names.contains(" b/.wh.gone\n"), "{names}");
    }

    #[test]
    fn a_pipe_has_no_place_in_a_layer() {
        let (tree, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let pipe = tree.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
            .unwrap();
        let error = pack(tree.path(), &out.path().join("layer"), EPOCH_SECONDS).unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            format!("cannot pack {}: neither file, folder nor link", pipe.display())
        );
    }
}
