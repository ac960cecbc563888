//! The 512 bytes before each file: ustar, with GNU's and the old V7 form when reading.

use std::path::PathBuf;

use dhow_sys::beneath::Time;

/// The unit of a tar stream.
pub(crate) const BLOCK_BYTES: usize = 512;

/// Name and value of an extended attribute.
pub type Xattr = (Vec<u8>, Vec<u8>);

/// What an entry makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A second name for an earlier entry.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

/// One entry of a tar stream, all its headers taken together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name as it stands in the tar, not checked in any way.
    pub raw_path: Vec<u8>,
    /// Target of a hard or symbolic link, as it stands in the tar.
    pub link: Vec<u8>,
    /// What it makes.
    pub kind: EntryKind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Size of the file once written, holes included.
    pub size: u64,
    /// Last modification.
    pub mtime: Time,
    /// Extended attributes, sorted by name.
    pub xattrs: Vec<Xattr>,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Where the data goes if the file has holes: offset and length.
    pub extents: Option<Vec<(u64, u64)>>,
}

impl Entry {
    /// The name, for messages.
    pub fn shown_path(&self) -> PathBuf {
        use std::os::unix::ffi::OsStrExt;
        PathBuf::from(std::ffi::OsStr::from_bytes(&self.raw_path))
    }
}

/// One raw header block.
pub(crate) struct Block<'a>(pub(crate) &'a [u8; BLOCK_BYTES]);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    V7,
    Ustar,
    Gnu,
}

impl Block<'_> {
    pub(crate) fn is_zero(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }

    /// The checksum over the block with its own field as spaces. Old archivers summed signed bytes.
    pub(crate) fn checksum_matches(&self) -> bool {
        let bytes = || self.0[..148].iter().chain(&[b' '; 8]).chain(&self.0[156..]);
        let unsigned: i64 = bytes().map(|byte| i64::from(*byte)).sum();
        let signed: i64 = bytes().map(|byte| i64::from(byte.cast_signed())).sum();
        number(&self.0[148..156]).is_some_and(|sum| sum == unsigned || sum == signed)
    }

    pub(crate) fn typeflag(&self) -> u8 {
        self.0[156]
    }

    pub(crate) fn name(&self) -> Vec<u8> {
        let name = text(&self.0[..100]);
        match text(&self.0[345..500]) {
            prefix if self.format() == Format::Ustar && !prefix.is_empty() => [prefix, b"/", name].concat(),
            _ => name.to_vec(),
        }
    }

    pub(crate) fn link(&self) -> Vec<u8> {
        text(&self.0[157..257]).to_vec()
    }

    pub(crate) fn mode(&self) -> Option<i64> {
        number(&self.0[100..108])
    }

    pub(crate) fn uid(&self) -> Option<i64> {
        number(&self.0[108..116])
    }

    pub(crate) fn gid(&self) -> Option<i64> {
        number(&self.0[116..124])
    }

    pub(crate) fn size(&self) -> Option<i64> {
        number(&self.0[124..136])
    }

    pub(crate) fn mtime(&self) -> Option<i64> {
        number(&self.0[136..148])
    }

    pub(crate) fn device(&self) -> Option<(i64, i64)> {
        match self.format() {
            Format::V7 => Some((0, 0)),
            _ => Some((number(&self.0[329..337])?, number(&self.0[337..345])?)),
        }
    }

    /// GNU's old sparse header: the first extents, whether more follow, and the size with holes.
    pub(crate) fn gnu_sparse(&self) -> Option<(&[u8], bool, i64)> {
        (self.format() == Format::Gnu)
            .then(|| Some((&self.0[386..482], self.0[482] != 0, number(&self.0[483..495])?)))
            .flatten()
    }

    fn format(&self) -> Format {
        match &self.0[257..265] {
            b"ustar\x0000" => Format::Ustar,
            b"ustar  \0" => Format::Gnu,
            _ => Format::V7,
        }
    }
}

/// A numeric field: octal digits, or base 256 if the first bit is set. `None` if it is neither.
pub(crate) fn number(field: &[u8]) -> Option<i64> {
    match field {
        [first, ..] if first & 0x80 != 0 => base_256(field),
        _ => octal(field),
    }
}

fn base_256(field: &[u8]) -> Option<i64> {
    // The second bit is the sign; the first is only the mark.
    let mut value =
        if field[0] & 0x40 != 0 { i128::from(field[0]) - 256 } else { i128::from(field[0] & 0x3f) };
    for byte in &field[1..] {
        value = (value << 8) | i128::from(*byte);
    }
    i64::try_from(value).ok()
}

fn octal(field: &[u8]) -> Option<i64> {
    let digits =
        field.iter().position(|byte| *byte != b' ' && *byte != 0).map_or(&[][..], |start| &field[start..]);
    let end = digits.iter().position(|byte| *byte == b' ' || *byte == 0).unwrap_or(digits.len());
    digits[..end].iter().try_fold(0_i64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    &field[..end]
}

/// The plain ustar part of an entry, and whether the values fit into their fields.
pub(crate) struct Ustar {
    bytes: [u8; BLOCK_BYTES],
}

impl Ustar {
    pub(crate) fn new(typeflag: u8) -> Self {
        let mut bytes = [0; BLOCK_BYTES];
        bytes[156] = typeflag;
        bytes[257..265].copy_from_slice(b"ustar\x0000");
        Self { bytes }
    }

    /// False if the name fits neither the name field nor name and prefix together.
    pub(crate) fn set_name(&mut self, name: &[u8]) -> bool {
        if name.len() <= 100 {
            self.bytes[..name.len()].copy_from_slice(name);
            return true;
        }
        // The split that leaves the shortest last part: a rule, so that equal names give equal bytes.
        let split = name.iter().take(156).rposition(|byte| *byte == b'/').filter(|at| *at > 0);
        match split {
            Some(at) if (1..=100).contains(&(name.len() - at - 1)) => {
                self.bytes[345..345 + at].copy_from_slice(&name[..at]);
                self.bytes[..name.len() - at - 1].copy_from_slice(&name[at + 1..]);
                true
            }
            _ => false,
        }
    }

    /// False if the target is longer than its field.
    pub(crate) fn set_link(&mut self, link: &[u8]) -> bool {
        let fits = link.len() <= 100;
        if fits {
            self.bytes[157..157 + link.len()].copy_from_slice(link);
        }
        fits
    }

    pub(crate) fn set_mode(&mut self, mode: u32) {
        self.set_octal(100, 8, u64::from(mode & 0o7777));
    }

    pub(crate) fn set_owner(&mut self, uid: u64, gid: u64) -> (bool, bool) {
        (self.set_octal(108, 8, uid), self.set_octal(116, 8, gid))
    }

    pub(crate) fn set_size(&mut self, size: u64) -> bool {
        self.set_octal(124, 12, size)
    }

    pub(crate) fn set_mtime(&mut self, seconds: i64) -> bool {
        self.set_octal(136, 12, seconds.max(0).cast_unsigned()) & (seconds >= 0)
    }

    pub(crate) fn set_device(&mut self, major: u32, minor: u32) -> bool {
        self.set_octal(329, 8, major.into()) & self.set_octal(337, 8, minor.into())
    }

    pub(crate) fn finish(mut self) -> [u8; BLOCK_BYTES] {
        self.bytes[148..156].fill(b' ');
        let sum: u64 = self.bytes.iter().map(|byte| u64::from(*byte)).sum();
        self.set_octal(148, 7, sum);
        self.bytes
    }

    /// Writes digits and a NUL; zeros and false if the value needs more digits than there are.
    fn set_octal(&mut self, at: usize, width: usize, value: u64) -> bool {
        let digits = width - 1;
        let fits = value >> (3 * digits) == 0;
        let value = if fits { value } else { 0 };
        let text = format!("{value:0digits$o}\0");
        self.bytes[at..at + width].copy_from_slice(text.as_bytes());
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        for (field, expected) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"77777777777\0", Some(0o77_777_777_777)),
            (b"0000648\0", None),
            (b"-000001\0", None),
            (b"\x80\0\0\0\0\0\x01\0", Some(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff", None),
        ] {
            assert_eq!(number(field), expected, "{}", field.escape_ascii());
        }
    }

    #[test]
    fn long_names_split_at_a_slash_or_not_at_all() {
        let mut long = vec![b'd'; 90];
        long.push(b'/');
        long.extend_from_slice(&[b'f'; 60]);
        let mut header = Ustar::new(b'0');
        assert!(header.set_name(&long));
        let bytes = header.finish();
        assert_eq!(Block(&bytes).name(), long);
        assert!(Block(&bytes).checksum_matches());
        assert!(!Ustar::new(b'0').set_name(&[b'x'; 101]));
    }
}
