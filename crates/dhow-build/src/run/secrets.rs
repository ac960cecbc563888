//! Secrets: read when a program needs them, handed over in memory, kept nowhere.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use dhow_runtime::{InMemory, MemoryFile, MemoryVariable};

use super::RunError;
use crate::mount::Access;
use crate::run_options::{RunOptions, SecretSource};

/// The largest secret, as in BuildKit.
const SECRET_BYTES_MAX: u64 = 500 << 10;
const SECRET_MODE: u32 = 0o400;

/// A secret that a program is to see.
pub(super) struct Wanted<'a> {
    pub id: &'a str,
    /// Where it is a file; empty if it is none.
    pub target: &'a str,
    /// What variable it is.
    pub env: Option<&'a str>,
    pub required: bool,
    pub access: Access,
}

impl Wanted<'_> {
    /// Adds the secret to what the program gets. One that was not given and is not required is left out.
    pub(super) fn add_to(&self, memory: &mut InMemory, options: &RunOptions) -> Result<(), RunError> {
        let Some(value) = self.value(options)? else { return Ok(()) };
        if let Some(env) = self.env {
            let text = String::from_utf8(value.clone()).ok().filter(|text| !text.contains('\0'));
            let text =
                text.ok_or_else(|| RunError::SecretVariable { id: self.id.to_owned(), env: env.to_owned() })?;
            memory.env.push(MemoryVariable { name: env.to_owned(), value: text });
        }
        if !self.target.is_empty() {
            memory.files.push(MemoryFile {
                target: self.target.to_owned(),
                content: value,
                mode: self.access.mode.unwrap_or(SECRET_MODE),
                uid: self.access.uid.unwrap_or(0),
                gid: self.access.gid.unwrap_or(0),
            });
        }
        Ok(())
    }

    fn value(&self, options: &RunOptions) -> Result<Option<Vec<u8>>, RunError> {
        let id = || self.id.to_owned();
        match options.secrets.get(self.id) {
            None if self.required => Err(RunError::NoSecret { id: id() }),
            None => Ok(None),
            Some(source) => source.read(self.id).map(Some),
        }
    }
}

impl SecretSource {
    /// The value; `id` is what it is called in errors.
    pub(crate) fn read(&self, id: &str) -> Result<Vec<u8>, RunError> {
        match self {
            SecretSource::Value(value) => Ok(value.clone()),
            SecretSource::File(path) => read(path).map_err(|source| {
                let (id, path) = (id.to_owned(), path.clone());
                RunError::Secret { id, path, source }
            }),
        }
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut value = Vec::new();
    File::open(path)?.take(SECRET_BYTES_MAX + 1).read_to_end(&mut value)?;
    if value.len() as u64 > SECRET_BYTES_MAX {
        return Err(io::Error::other(format!("it is larger than {SECRET_BYTES_MAX} bytes")));
    }
    Ok(value)
}
