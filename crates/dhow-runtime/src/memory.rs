//! What a container gets that is written to no disk.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Files and variables that must leave no trace, such as the secrets of a build step. They travel in the request
/// and never in `config.json`; the files are made in a file system in memory that is the container's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InMemory {
    /// Files, shown read-only.
    pub files: Vec<MemoryFile>,
    /// Variables, set on top of those of the configuration.
    pub env: Vec<MemoryVariable>,
}

/// A file in memory.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryFile {
    /// Where it shows, absolute.
    pub target: String,
    /// What is in it.
    pub content: Vec<u8>,
    /// Its permissions.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// A variable in memory.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryVariable {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

impl InMemory {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.env.is_empty()
    }
}

/// Names only: nobody prints a secret by printing a request.
impl fmt::Debug for MemoryFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryFile({}, {} bytes)", self.target, self.content.len())
    }
}

impl fmt::Debug for MemoryVariable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryVariable({})", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printing_a_request_prints_no_secret() {
        let file =
            MemoryFile { target: "/run/secrets/t".into(), content: b"hush".into(), mode: 0, uid: 0, gid: 0 };
        let variable = MemoryVariable { name: "TOKEN".into(), value: "hush".into() };
        let text = format!("{:?}", InMemory { files: vec![file], env: vec![variable] });
        assert!(text.contains("/run/secrets/t") && text.contains("TOKEN"), "{text}");
        assert!(!text.contains("hush") && !text.contains("104, 117"), "{text}");
    }
}
