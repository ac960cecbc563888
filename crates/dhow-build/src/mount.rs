//! `RUN --mount` with all that a build knows about it before it runs.

use dhow_dockerfile::{MountType, Sharing};

/// A mount of a `RUN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RunMount {
    /// Absolute, without dots; empty for a secret that is a variable only.
    pub target: String,
    pub kind: MountKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MountKind {
    Bind { source: MountSource, readonly: bool },
    Cache(CacheMount),
    Tmpfs { size_bytes: Option<u64> },
    Secret { id: String, env: Option<String>, required: bool, access: Access },
    Ssh { id: String, required: bool, access: Access },
}

/// Files that are mounted, or that a cache starts with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MountSource {
    pub from: MountFrom,
    /// Path in it.
    pub path: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MountFrom {
    Context,
    /// The result of an input of the vertex, named for people.
    Input {
        index: usize,
        name: String,
    },
}

/// A folder kept from build to build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CacheMount {
    /// Namespace and id.
    pub id: String,
    pub sharing: Sharing,
    pub seed: Option<MountSource>,
    /// What its root directory is when it is made.
    pub access: Access,
    pub readonly: bool,
    /// Whether what earlier builds left in it is thrown away.
    pub emptied: bool,
}

/// `mode`, `uid` and `gid`, as far as they are given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Access {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

impl RunMount {
    /// Its name among the facts of a step.
    pub(crate) fn name(&self) -> String {
        match &self.kind {
            MountKind::Secret { id, .. } if self.target.is_empty() => format!("--mount of secret {id}"),
            _ => format!("--mount at {}", self.target),
        }
    }

    /// All of it that a result depends on, but for files. What is in a cache, a secret or an agent does not
    /// count, nor which cache it is: these help to make a result, and are no part of it.
    pub(crate) fn fact(&self) -> String {
        let mut words: Vec<String> = Vec::new();
        let mut kind = |kind: MountType| words.push(format!("type={}", kind.name()));
        match &self.kind {
            MountKind::Bind { readonly, .. } => {
                kind(MountType::Bind);
                words.extend((!readonly).then(|| "rw".to_owned()));
            }
            MountKind::Cache(cache) => {
                kind(MountType::Cache);
                words.extend(cache.readonly.then(|| "ro".to_owned()));
                words.extend(cache.access.words());
            }
            MountKind::Tmpfs { size_bytes } => {
                kind(MountType::Tmpfs);
                words.extend(size_bytes.map(|size| format!("size={size}")));
            }
            MountKind::Secret { id, env, required, access } => {
                kind(MountType::Secret);
                words.push(format!("id={id}"));
                words.extend(env.as_ref().map(|env| format!("env={env}")));
                words.extend(required.then(|| "required".to_owned()));
                words.extend(access.words());
            }
            MountKind::Ssh { id, required, access } => {
                kind(MountType::Ssh);
                words.push(format!("id={id}"));
                words.extend(required.then(|| "required".to_owned()));
                words.extend(access.words());
            }
        }
        words.join(",")
    }

    /// The files it reads.
    pub(crate) fn source(&self) -> Option<&MountSource> {
        match &self.kind {
            MountKind::Bind { source, .. } => Some(source),
            MountKind::Cache(cache) => cache.seed.as_ref(),
            _ => None,
        }
    }
}

impl Access {
    fn words(&self) -> Vec<String> {
        let mode = self.mode.map(|mode| format!("mode={mode:04o}"));
        let ids = [("uid", self.uid), ("gid", self.gid)];
        let ids = ids.into_iter().filter_map(|(name, id)| Some(format!("{name}={}", id?)));
        mode.into_iter().chain(ids).collect()
    }
}
