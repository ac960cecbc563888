//! Writes a canonical tar stream: ustar where the values fit, a PAX header before it where they do not.
//!
//! Equal entries give equal bytes: PAX records come in a fixed order, nothing is written that does not have
//! to be, and no field holds a name of a user, a clock or a machine.

use std::io::{self, Write};

use crate::header::{BLOCK_BYTES, Entry, EntryKind, Ustar};
use crate::pax::{XATTR_PREFIX, push_record};

/// The name of the PAX header itself, which only old unpackers ever show.
const PAX_NAME: &[u8] = b"PaxHeaders.0/entry";

/// A tar stream being written.
pub(crate) struct TarWriter<W> {
    output: W,
    bytes: u64,
}

impl<W: Write> TarWriter<W> {
    pub(crate) fn new(output: W) -> Self {
        Self { output, bytes: 0 }
    }

    /// Writes the headers of an entry. For a regular file `entry.size` bytes of [`data`](Self::data) and an
    /// [`end_data`](Self::end_data) must follow.
    pub(crate) fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        let (header, records) = headers(entry);
        if !records.is_empty() {
            self.put(&pax_header(records.len()))?;
            self.put(&records)?;
            self.pad(records.len() as u64)?;
        }
        self.put(&header)
    }

    pub(crate) fn data(&mut self, data: &[u8]) -> io::Result<()> {
        self.put(data)
    }

    pub(crate) fn end_data(&mut self, size: u64) -> io::Result<()> {
        self.pad(size)
    }

    /// Writes the two zero blocks at the end; returns the output and the length of the whole stream.
    pub(crate) fn finish(mut self) -> io::Result<(W, u64)> {
        self.put(&[0; 2 * BLOCK_BYTES])?;
        self.output.flush()?;
        Ok((self.output, self.bytes))
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let padding = size.wrapping_neg() % BLOCK_BYTES as u64;
        self.put(&[0; BLOCK_BYTES][..padding as usize])
    }

    fn put(&mut self, data: &[u8]) -> io::Result<()> {
        self.bytes += data.len() as u64;
        self.output.write_all(data)
    }
}

/// The ustar header of `entry` and the PAX records for what does not fit into it, sorted by key.
fn headers(entry: &Entry) -> ([u8; BLOCK_BYTES], Vec<u8>) {
    let mut header = Ustar::new(typeflag(entry.kind));
    let mut records: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let mut record = |fits: bool, key: &str, value: &dyn Fn() -> Vec<u8>| {
        if !fits {
            records.push((key.into(), value()));
        }
    };
    let number = |value: u64| value.to_string().into_bytes();
    header.set_mode(entry.mode);
    let (uid_fits, gid_fits) = header.set_owner(entry.uid, entry.gid);
    record(gid_fits, "gid", &|| number(entry.gid));
    record(header.set_link(&entry.link), "linkpath", &|| entry.link.clone());
    record(header.set_mtime(entry.mtime.seconds), "mtime", &|| entry.mtime.seconds.to_string().into_bytes());
    record(header.set_name(&entry.raw_path), "path", &|| entry.raw_path.clone());
    record(header.set_size(entry.size), "size", &|| number(entry.size));
    record(uid_fits, "uid", &|| number(entry.uid));
    // Linux numbers devices with 12 and 20 bits: they always fit into seven octal digits.
    header.set_device(entry.device.0, entry.device.1);
    for (name, value) in &entry.xattrs {
        records.push(([XATTR_PREFIX, name].concat(), value.clone()));
    }
    records.sort_unstable();
    let mut bytes = Vec::new();
    for (key, value) in &records {
        push_record(&mut bytes, key, value);
    }
    (header.finish(), bytes)
}

fn pax_header(size: usize) -> [u8; BLOCK_BYTES] {
    let mut header = Ustar::new(b'x');
    header.set_name(PAX_NAME);
    header.set_mode(0o644);
    header.set_owner(0, 0);
    header.set_size(size as u64);
    header.set_mtime(0);
    header.set_device(0, 0);
    header.finish()
}

fn typeflag(kind: EntryKind) -> u8 {
    match kind {
        EntryKind::File => b'0',
        EntryKind::HardLink => b'1',
        EntryKind::Symlink => b'2',
        EntryKind::CharDevice => b'3',
        EntryKind::BlockDevice => b'4',
        EntryKind::Directory => b'5',
        EntryKind::Fifo => b'6',
    }
}
