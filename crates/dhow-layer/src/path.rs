//! Names out of a tar, checked before anything is done with them.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use dhow_sys::beneath::PATH_BYTES_MAX;

/// Why a path in a layer is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// `..` leads above the root.
    #[error("path leaves the layer through `..`")]
    Leaves,
    /// A NUL byte, which no file name can hold.
    #[error("path holds a NUL byte")]
    Nul,
    /// Longer than Linux allows.
    #[error("path is longer than {PATH_BYTES_MAX} bytes")]
    TooLong,
    /// A name with the prefix `.wh.` where none can be: inside a path, or as the whiteout of nothing.
    #[error("names that begin with `.wh.` are reserved for whiteouts")]
    Reserved,
}

/// Turns a name from a tar into a path relative to the layer's root, without `.` and `..`; empty for the
/// root. A leading `/` is dropped. `a/../b` is `b` whatever `a` is, as in Docker; `..` above the root is
/// refused.
pub(crate) fn layer_path(raw: &[u8]) -> Result<PathBuf, PathError> {
    if raw.contains(&0) {
        return Err(PathError::Nul);
    }
    let mut path: Vec<&[u8]> = Vec::new();
    for part in raw.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => _ = path.pop().ok_or(PathError::Leaves)?,
            name => path.push(name),
        }
    }
    let path = path.join(&b'/');
    if path.len() >= PATH_BYTES_MAX {
        return Err(PathError::TooLong);
    }
    Ok(PathBuf::from(OsStr::from_bytes(&path)))
}

/// How much of a path a message shows.
const SHOWN_BYTES_MAX: usize = 300;

/// Shows a path from a stranger in a message: what could upset a terminal is escaped, and the middle of an
/// overlong one is left out.
pub(crate) struct Shown<'a>(pub(crate) &'a Path);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.as_os_str().is_empty() {
            return f.write_str("/");
        }
        let bytes = self.0.as_os_str().as_bytes();
        if bytes.len() <= SHOWN_BYTES_MAX {
            return write!(f, "{}", bytes.escape_ascii());
        }
        let (head, tail) = (&bytes[..SHOWN_BYTES_MAX / 2], &bytes[bytes.len() - SHOWN_BYTES_MAX / 2..]);
        write!(f, "{}...{}", head.escape_ascii(), tail.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_relative_to_the_root_and_stay_in_it() {
        let long = [b"a/".repeat(3000)].concat();
        for (raw, expected) in [
            (&b"./"[..], Ok("")),
            (b"/", Ok("")),
            (b"/etc/passwd", Ok("etc/passwd")),
            (b"./a//b/./c/", Ok("a/b/c")),
            (b"a/../b", Ok("b")),
            (b"a/..", Ok("")),
            (b"..", Err(PathError::Leaves)),
            (b"/../etc", Err(PathError::Leaves)),
            (b"a/../../b", Err(PathError::Leaves)),
            (b"a\0b", Err(PathError::Nul)),
            (&long, Err(PathError::TooLong)),
        ] {
            assert_eq!(layer_path(raw), expected.map(PathBuf::from), "{}", raw.escape_ascii());
        }
    }
}
