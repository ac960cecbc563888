//! The files of a case, on disk.
//!
//! A file's line has its path (in quotes, with JSON's escapes, if it is an odd one) and attributes:
//!
//! | | |
//! |---|---|
//! | `dir/` | a directory; those on the way are made |
//! | `-> TARGET` | a symbolic link |
//! | `= FILE` | another name of a file above |
//! | `fifo` | a named pipe |
//! | `mode=755` `owner=7:8` `xattr=user.note:1` | as they say |
//! | `chomp` | the content has no line end at its end |
//! | `escaped` | `\r` and `\t` in the content are what they usually are, `\` at the end of a line joins it |
//! | `base64` | the content is in base64 |

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, lchown, symlink};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

use crate::CONTEXT_TIME;

/// A file of a context.
#[derive(Debug)]
pub(crate) struct ContextFile {
    path: PathBuf,
    kind: Kind,
    mode: Option<u32>,
    owner: Option<(u32, u32)>,
    xattrs: Vec<(String, String)>,
    encoding: Encoding,
    /// Its lines in the case.
    pub(crate) body: String,
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    File,
    Dir,
    Symlink(String),
    HardLink(String),
    Fifo,
}

#[derive(Debug, PartialEq, Eq)]
enum Encoding {
    Plain,
    Chomp,
    Escaped,
    Base64,
}

impl ContextFile {
    /// Reads what stands between the dashes.
    pub(crate) fn parse(line: &str) -> anyhow::Result<Self> {
        let (path, rest) = split_path(line)?;
        let is_inside = Path::new(&path).components().all(|part| matches!(part, Component::Normal(_)));
        if !is_inside || path.is_empty() {
            bail!("`{path}` is not a path below the context");
        }
        let kind = if path.ends_with('/') { Kind::Dir } else { Kind::File };
        let mut file = Self {
            path: path.into(),
            kind,
            mode: None,
            owner: None,
            xattrs: Vec::new(),
            encoding: Encoding::Plain,
            body: String::new(),
        };
        let mut words = rest.split_whitespace();
        while let Some(word) = words.next() {
            let mut value = || words.next().map(str::to_owned).context("a path is missing");
            match word {
                "->" => file.kind = Kind::Symlink(value()?),
                "=" => file.kind = Kind::HardLink(value()?),
                "fifo" => file.kind = Kind::Fifo,
                "chomp" => file.encoding = Encoding::Chomp,
                "escaped" => file.encoding = Encoding::Escaped,
                "base64" => file.encoding = Encoding::Base64,
                _ => file.attribute(word)?,
            }
        }
        Ok(file)
    }

    fn attribute(&mut self, word: &str) -> anyhow::Result<()> {
        match word.split_once('=') {
            Some(("mode", value)) => self.mode = Some(u32::from_str_radix(value, 8)?),
            Some(("owner", value)) => {
                let (uid, gid) = value.split_once(':').context("an owner is UID:GID")?;
                self.owner = Some((uid.parse()?, gid.parse()?));
            }
            Some(("xattr", value)) => {
                let (name, value) = value.split_once(':').context("an attribute is NAME:VALUE")?;
                self.xattrs.push((name.to_owned(), value.to_owned()));
            }
            _ => bail!("`{word}` is no attribute of a file"),
        }
        Ok(())
    }

    fn content(&self) -> anyhow::Result<Vec<u8>> {
        Ok(match self.encoding {
            Encoding::Plain => self.body.clone().into_bytes(),
            Encoding::Chomp => self.body.trim_end_matches('\n').as_bytes().to_vec(),
            Encoding::Escaped => {
                let joined = self.body.replace("\\\n", "");
                joined.replace("\\r", "\r").replace("\\t", "\t").into_bytes()
            }
            Encoding::Base64 => {
                let text: String = self.body.split_whitespace().collect();
                base64::engine::general_purpose::STANDARD.decode(text)?
            }
        })
    }

    fn make(&self, root: &Path) -> anyhow::Result<()> {
        let path = root.join(&self.path);
        fs::create_dir_all(path.parent().expect("it is below the root"))?;
        match &self.kind {
            Kind::File => fs::write(&path, self.content()?)?,
            Kind::Dir => fs::create_dir_all(&path)?,
            Kind::Symlink(target) => symlink(target, &path)?,
            Kind::HardLink(other) => fs::hard_link(root.join(other), &path)?,
            Kind::Fifo => rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RUSR, 0)?,
        }
        Ok(())
    }

    /// Owner first: changing it takes away special bits.
    fn dress(&self, root: &Path) -> anyhow::Result<()> {
        let path = root.join(&self.path);
        if let Some((uid, gid)) = self.owner {
            lchown(&path, Some(uid), Some(gid))?;
        }
        for (name, value) in &self.xattrs {
            rustix::fs::lsetxattr(&path, name, value.as_bytes(), XattrFlags::empty())?;
        }
        let mode = match self.kind {
            Kind::Symlink(_) | Kind::HardLink(_) => return Ok(()),
            Kind::Dir => 0o755,
            Kind::File | Kind::Fifo => 0o644,
        };
        fs::set_permissions(&path, fs::Permissions::from_mode(self.mode.unwrap_or(mode)))?;
        Ok(())
    }
}

fn split_path(line: &str) -> anyhow::Result<(String, &str)> {
    if !line.starts_with('"') {
        let (path, rest) = line.split_once(' ').unwrap_or((line, ""));
        return Ok((path.to_owned(), rest));
    }
    let mut quoted = serde_json::Deserializer::from_str(line).into_iter::<String>();
    let path = quoted.next().context("a path is missing")??;
    Ok((path, &line[quoted.byte_offset()..]))
}

/// Makes the files below `root`, which is there and empty. Nothing depends on who does it, nor on the umask.
pub(crate) fn make(files: &[ContextFile], root: &Path) -> anyhow::Result<()> {
    for file in files {
        file.make(root).with_context(|| format!("cannot make {}", file.path.display()))?;
    }
    settle(root)?;
    for file in files {
        file.dress(root).with_context(|| format!("cannot dress {}", file.path.display()))?;
    }
    Ok(())
}

/// Gives directories that were made on the way a mode, and everything its time; contents before what they are in.
fn settle(path: &Path) -> anyhow::Result<()> {
    if path.symlink_metadata()?.is_dir() {
        for entry in fs::read_dir(path)? {
            settle(&entry?.path())?;
        }
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    }
    let time = Timespec { tv_sec: CONTEXT_TIME, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_made_as_their_lines_say() {
        let folder = tempfile::tempdir().unwrap();
        let lines = ["\"a b\" mode=4755 chomp", "d/e/ mode=700", "d/l -> ../a", "d/h = d/f"];
        let mut files: Vec<_> =
            ["d/f escaped"].iter().chain(&lines).map(|l| ContextFile::parse(l).unwrap()).collect();
        files[0].body = "1\\r\n".to_owned();
        files[1].body = "x\n".to_owned();
        make(&files, folder.path()).unwrap();
        let at = |name: &str| folder.path().join(name);
        assert_eq!(fs::read(at("d/h")).unwrap(), b"1\r\n");
        assert_eq!(fs::read(at("a b")).unwrap(), b"x");
        let mode = |name: &str| at(name).metadata().unwrap().permissions().mode() & 0o7777;
        assert_eq!([mode("a b"), mode("d/e"), mode("d"), mode("d/f")], [0o4755, 0o700, 0o755, 0o644]);
        assert_eq!(fs::read_link(at("d/l")).unwrap(), Path::new("../a"));
    }

    #[test]
    fn a_line_that_is_not_understood_is_refused() {
        for line in ["../a", "/a", "a b", "a mode=9", "a ->", "a owner=1", "\"a"] {
            assert!(ContextFile::parse(line).is_err(), "{line}");
        }
    }
}
