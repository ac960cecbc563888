//! Reads a tar stream: old V7, ustar, PAX and GNU, including names of any length and files with holes.
//!
//! Where the formats leave room, Go's `archive/tar` decides, since that is what Docker unpacks with: two
//! readers that see different files in one archive are a way to smuggle. Global PAX headers are skipped as
//! Docker does, and links and directories have no data whatever their size field says.

use std::io::{self, BufRead, Read};

use dhow_sys::beneath::Time;

use crate::header::{BLOCK_BYTES, Block, Entry, EntryKind};
use crate::pax::{Records, parse_number, parse_time};
use crate::sparse::{self, PaxSparse};

/// The largest PAX header or GNU long name accepted.
pub const EXTENSION_BYTES_MAX: u64 = 1024 * 1024;
/// The most extension headers in a row before one entry.
const EXTENSIONS_MAX: usize = 64;

/// Why a tar stream cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The stream is not a well-formed tar.
    #[error("malformed tar at byte {offset}: {what}")]
    Malformed {
        /// Where the header at fault begins.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// The stream ends within an entry.
    #[error("tar is cut off at byte {offset}")]
    CutOff {
        /// How long it is.
        offset: u64,
    },
    /// The source of the stream failed.
    #[error("cannot read tar")]
    Read(#[source] io::Error),
}

/// A tar stream being read: [`next_entry`](Self::next_entry), then the data through `Read` or `BufRead`.
/// Data not read is skipped.
#[derive(Debug)]
pub struct TarReader<R> {
    input: R,
    offset: u64,
    /// Where the header looked at last begins, for messages.
    header_offset: u64,
    /// Data of the current entry not read yet.
    remaining: u64,
    /// Zeros up to the next block after it.
    padding: u64,
}

/// Extension headers collected for the next entry.
#[derive(Default)]
struct Extensions {
    records: Records,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    count: usize,
}

impl<R: BufRead> TarReader<R> {
    /// Starts at the beginning of `input`.
    pub fn new(input: R) -> Self {
        Self { input, offset: 0, header_offset: 0, remaining: 0, padding: 0 }
    }

    /// The next entry, or `None` at the end of the archive.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        let mut extensions = Extensions::default();
        loop {
            self.skip_data()?;
            let Some(block) = self.next_header()? else {
                return match extensions.count {
                    0 => Ok(None),
                    _ => Err(self.malformed("the archive ends after an extension header")),
                };
            };
            let block = Block(&block);
            if !self.extend(&block, &mut extensions)? {
                return self.entry(&block, extensions).map(Some);
            }
            extensions.count += 1;
            if extensions.count > EXTENSIONS_MAX {
                return Err(self.malformed("too many extension headers in a row"));
            }
        }
    }

    /// Reads what follows the archive, up to the end of the input, and drops it: a digest taken underneath
    /// must cover it.
    pub fn drain(&mut self) -> Result<(), TarError> {
        io::copy(&mut self.input, &mut io::sink()).map(drop).map_err(TarError::Read)
    }

    fn next_header(&mut self) -> Result<Option<[u8; BLOCK_BYTES]>, TarError> {
        self.header_offset = self.offset;
        let Some(block) = self.read_block()? else { return Ok(None) };
        if !Block(&block).is_zero() {
            return match Block(&block).checksum_matches() {
                true => Ok(Some(block)),
                false => Err(self.malformed("header checksum does not match")),
            };
        }
        // Two zero blocks end an archive, and so does one at the end of the input.
        match self.read_block()? {
            Some(block) if !Block(&block).is_zero() => Err(self.malformed("a lone zero block")),
            _ => Ok(None),
        }
    }

    /// Takes in an extension header; false if `block` is an entry of its own.
    fn extend(&mut self, block: &Block<'_>, extensions: &mut Extensions) -> Result<bool, TarError> {
        match block.typeflag() {
            b'x' => {
                let bytes = self.read_extension(block)?;
                let malformed = self.malformed("PAX header is not made of records");
                extensions.records = Records::parse(&bytes).ok_or(malformed)?;
            }
            b'g' => drop(self.read_extension(block)?),
            b'L' => extensions.long_name = Some(until_nul(self.read_extension(block)?)),
            b'K' => extensions.long_link = Some(until_nul(self.read_extension(block)?)),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn read_extension(&mut self, block: &Block<'_>) -> Result<Vec<u8>, TarError> {
        let size = self.unsigned(block.size(), "size")?;
        if size > EXTENSION_BYTES_MAX {
            let what = format!("extension header of {size} bytes, more than {EXTENSION_BYTES_MAX}");
            return Err(self.malformed(&what));
        }
        self.start_data(size);
        let mut bytes = vec![0; usize::try_from(size).map_err(|_| self.malformed("size"))?];
        self.read_exact_data(&mut bytes)?;
        Ok(bytes)
    }

    fn entry(&mut self, block: &Block<'_>, extensions: Extensions) -> Result<Entry, TarError> {
        let Extensions { records, long_name, long_link, .. } = extensions;
        let own = |key: &[u8]| records.get(key).map(<[u8]>::to_vec);
        let (real_name, real_size) = sparse::pax_real(&records);
        let raw_path = real_name.map(<[u8]>::to_vec).or_else(|| own(b"path")).or(long_name);
        let raw_path = raw_path.unwrap_or_else(|| block.name());
        let kind = self.kind(block, &raw_path)?;
        let stored = match kind {
            EntryKind::File => self.number(&records, b"size", block.size())?,
            _ => 0,
        };
        let device = block.device().ok_or_else(|| self.malformed("device number is not a number"))?;
        let mut entry = Entry {
            link: own(b"linkpath").or(long_link).unwrap_or_else(|| block.link()),
            kind,
            mode: (self.unsigned(block.mode(), "mode")? & 0o7777) as u32,
            uid: self.number(&records, b"uid", block.uid())?,
            gid: self.number(&records, b"gid", block.gid())?,
            size: stored,
            mtime: self.mtime(&records, block)?,
            xattrs: records.xattrs(),
            device: self.device_numbers(kind, device)?,
            extents: None,
            raw_path,
        };
        self.start_data(stored);
        if kind == EntryKind::File {
            self.read_extents(block, &records, real_size, &mut entry)?;
        }
        Ok(entry)
    }

    fn kind(&self, block: &Block<'_>, path: &[u8]) -> Result<EntryKind, TarError> {
        Ok(match block.typeflag() {
            0 if path.ends_with(b"/") => EntryKind::Directory,
            0 | b'0' | b'7' | b'S' => EntryKind::File,
            b'1' => EntryKind::HardLink,
            b'2' => EntryKind::Symlink,
            b'3' => EntryKind::CharDevice,
            b'4' => EntryKind::BlockDevice,
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            other => {
                let (path, other) = (path.escape_ascii(), other.escape_ascii());
                return Err(self.malformed(&format!("{path} has the unknown type `{other}`")));
            }
        })
    }

    fn mtime(&self, records: &Records, block: &Block<'_>) -> Result<Time, TarError> {
        match records.get(b"mtime") {
            Some(value) => parse_time(value).ok_or_else(|| self.malformed("mtime is not a number")),
            None => {
                let seconds = block.mtime().ok_or_else(|| self.malformed("mtime is not a number"))?;
                Ok(Time { seconds, nanoseconds: 0 })
            }
        }
    }

    fn device_numbers(&self, kind: EntryKind, device: (i64, i64)) -> Result<(u32, u32), TarError> {
        if !matches!(kind, EntryKind::CharDevice | EntryKind::BlockDevice) {
            return Ok((0, 0));
        }
        let part = |value| u32::try_from(value).map_err(|_| self.malformed("device number out of range"));
        Ok((part(device.0)?, part(device.1)?))
    }

    /// Finds out where the data goes, which may take reading the front of it.
    fn read_extents(
        &mut self,
        block: &Block<'_>,
        records: &Records,
        real_size: Option<u64>,
        entry: &mut Entry,
    ) -> Result<(), TarError> {
        let malformed = self.malformed("sparse file table is not sound");
        let pax = sparse::pax_sparse(records).map_err(|()| self.malformed("sparse file records"))?;
        let (extents, real_size) = match pax {
            _ if block.typeflag() == b'S' => self.gnu_extents(block)?,
            Some(PaxSparse::Table(extents)) => (extents, real_size.ok_or(malformed)?),
            Some(PaxSparse::BeforeData) => (self.table_before_data()?, real_size.ok_or(malformed)?),
            None => return Ok(()),
        };
        if !sparse::is_sound(&extents, real_size, self.remaining) {
            return Err(self.malformed("sparse file table is not sound"));
        }
        entry.size = real_size;
        entry.extents = Some(extents);
        Ok(())
    }

    /// The table of type `S`: in the header, then in blocks of their own before the data.
    fn gnu_extents(&mut self, block: &Block<'_>) -> Result<(Vec<(u64, u64)>, u64), TarError> {
        let malformed = |reader: &Self| reader.malformed("GNU sparse header");
        let (fields, mut more, real_size) = block.gnu_sparse().ok_or_else(|| malformed(self))?;
        let mut extents = Vec::new();
        sparse::gnu_extents(fields, &mut extents).map_err(|()| malformed(self))?;
        while more {
            let block = self.read_block()?.ok_or(TarError::CutOff { offset: self.offset })?;
            sparse::gnu_extents(&block[..504], &mut extents).map_err(|()| malformed(self))?;
            // An empty block that announces another could go on for ever.
            more = block[504] != 0 && block[0] != 0;
        }
        Ok((extents, self.unsigned(Some(real_size), "size")?))
    }

    /// The table of PAX version 1.0: decimal numbers on lines of their own, padded to a block.
    fn table_before_data(&mut self) -> Result<Vec<(u64, u64)>, TarError> {
        let mut used = 0;
        let count = self.table_number(&mut used)?;
        let mut extents = Vec::new();
        for _ in 0..count {
            let extent = (self.table_number(&mut used)?, self.table_number(&mut used)?);
            sparse::push(&mut extents, extent).map_err(|()| self.malformed("too many sparse extents"))?;
        }
        let mut rest = vec![0; (BLOCK_BYTES - used % BLOCK_BYTES) % BLOCK_BYTES];
        self.read_exact_data(&mut rest)?;
        Ok(extents)
    }

    fn table_number(&mut self, used: &mut usize) -> Result<u64, TarError> {
        let mut digits = Vec::with_capacity(20);
        loop {
            let mut byte = [0];
            self.read_exact_data(&mut byte)?;
            *used += 1;
            match byte[0] {
                b'\n' => break,
                digit if digits.len() < 20 => digits.push(digit),
                _ => return Err(self.malformed("sparse file table")),
            }
        }
        parse_number(&digits).ok_or_else(|| self.malformed("sparse file table"))
    }

    /// A number from a PAX record if there is one, else from the header, never negative.
    fn number(&self, records: &Records, key: &[u8], header: Option<i64>) -> Result<u64, TarError> {
        let name = || String::from_utf8_lossy(key).into_owned();
        match records.get(key) {
            Some(value) => {
                parse_number(value).ok_or_else(|| self.malformed(&format!("{} is not a number", name())))
            }
            None => self.unsigned(header, &name()),
        }
    }

    fn unsigned(&self, value: Option<i64>, name: &str) -> Result<u64, TarError> {
        value
            .and_then(|value| u64::try_from(value).ok())
            .ok_or_else(|| self.malformed(&format!("{name} is not a number")))
    }

    fn start_data(&mut self, size: u64) {
        self.remaining = size;
        self.padding = size.wrapping_neg() % BLOCK_BYTES as u64;
    }

    fn skip_data(&mut self) -> Result<(), TarError> {
        let mut left = self.remaining.saturating_add(self.padding);
        while left > 0 {
            let length = self.input.fill_buf().map_err(TarError::Read)?.len();
            if length == 0 {
                return Err(TarError::CutOff { offset: self.offset });
            }
            let step = length.min(usize::try_from(left).unwrap_or(usize::MAX));
            self.input.consume(step);
            self.offset += step as u64;
            left -= step as u64;
        }
        (self.remaining, self.padding) = (0, 0);
        Ok(())
    }

    fn read_exact_data(&mut self, out: &mut [u8]) -> Result<(), TarError> {
        self.read_exact(out).map_err(|error| self.data_error(error))
    }

    /// What an error of the `Read` and `BufRead` faces means.
    pub fn data_error(&self, error: io::Error) -> TarError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => TarError::CutOff { offset: self.offset },
            _ => TarError::Read(error),
        }
    }

    fn read_block(&mut self) -> Result<Option<[u8; BLOCK_BYTES]>, TarError> {
        let mut block = [0; BLOCK_BYTES];
        let mut filled = 0;
        while filled < BLOCK_BYTES {
            match self.input.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(TarError::CutOff { offset: self.offset + filled as u64 }),
                Ok(length) => filled += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(TarError::Read(error)),
            }
        }
        self.offset += BLOCK_BYTES as u64;
        Ok(Some(block))
    }

    fn malformed(&self, what: &str) -> TarError {
        TarError::Malformed { offset: self.header_offset, what: what.to_owned() }
    }
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len()));
    bytes
}

impl<R: BufRead> Read for TarReader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let length = available.len().min(out.len());
        out[..length].copy_from_slice(&available[..length]);
        self.consume(length);
        Ok(length)
    }
}

/// The data of the current entry. An input that ends too early is an `UnexpectedEof`.
impl<R: BufRead> BufRead for TarReader<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.remaining == 0 {
            return Ok(&[]);
        }
        let buffer = self.input.fill_buf()?;
        if buffer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let length = buffer.len().min(usize::try_from(self.remaining).unwrap_or(usize::MAX));
        Ok(&buffer[..length])
    }

    fn consume(&mut self, amount: usize) {
        self.input.consume(amount);
        self.offset += amount as u64;
        self.remaining -= amount as u64;
    }
}
