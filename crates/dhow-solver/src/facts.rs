use std::fmt;

use dhow_oci::{Digest, Digester};
use serde::{Deserialize, Serialize};

/// Counts up when operations come to mean something else, so that results of before are not taken for theirs.
const KEY_VERSION: &[u8] = b"dhow cache key 3";

/// Everything the result of a vertex depends on, in a fixed order: first what the operation is, then what
/// it reads. Kept next to the result, so that a later miss can be explained.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Facts(Vec<Fact>);

/// One thing a result depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// What sort of thing it is; decides how a change is told.
    pub kind: FactKind,
    /// Which one of its sort, such as the name of a build argument.
    pub name: String,
    /// What it was.
    pub value: FactValue,
}

/// The sorts of things a result depends on, from the outside in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FactKind {
    /// The text of the instruction.
    Instruction,
    /// The image a base is, under the name it was asked for.
    Base,
    /// An option of the operation: user, working directory, network, platform.
    Option,
    /// A build argument the operation can read.
    BuildArg,
    /// An environment variable the operation can read.
    Env,
    /// Files read from a context or another stage.
    Files,
    /// The content of an input vertex.
    Input,
}

/// What a fact was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FactValue {
    /// A text that may be shown.
    Text(String),
    /// A text that may be a secret: only its digest is kept.
    Hidden(Digest),
    /// The digest of a [`Tree`](crate::Tree) or of a result.
    Content(Digest),
}

impl Facts {
    /// No facts.
    pub fn new() -> Facts {
        Facts::default()
    }

    /// Adds a text that may be shown.
    pub fn text(&mut self, kind: FactKind, name: impl Into<String>, value: impl Into<String>) {
        self.0.push(Fact { kind, name: name.into(), value: FactValue::Text(value.into()) });
    }

    /// Adds a text that may be a secret.
    pub fn hidden(&mut self, kind: FactKind, name: impl Into<String>, value: &str) {
        let value = FactValue::Hidden(Digest::sha256_of(value.as_bytes()));
        self.0.push(Fact { kind, name: name.into(), value });
    }

    /// Adds content by its digest.
    pub fn content(&mut self, kind: FactKind, name: impl Into<String>, digest: Digest) {
        self.0.push(Fact { kind, name: name.into(), value: FactValue::Content(digest) });
    }

    /// The facts in the order they were added.
    pub fn iter(&self) -> impl Iterator<Item = &Fact> {
        self.0.iter()
    }

    /// What one fact was.
    pub fn find(&self, kind: FactKind, name: &str) -> Option<&FactValue> {
        self.0.iter().find(|fact| fact.kind == kind && fact.name == name).map(|fact| &fact.value)
    }

    /// The facts without the content of input vertices: what the operation itself is and reads.
    pub fn without_inputs(&self) -> Facts {
        Facts(self.0.iter().filter(|fact| fact.kind != FactKind::Input).cloned().collect())
    }

    /// The key under which a result with these facts is kept.
    pub fn key(&self) -> CacheKey {
        let mut digester = Digester::sha256();
        let mut part = |bytes: &[u8]| {
            // Lengths keep ("ab", "c") and ("a", "bc") apart.
            digester.update(&(bytes.len() as u64).to_le_bytes());
            digester.update(bytes);
        };
        part(KEY_VERSION);
        for fact in &self.0 {
            part(&[fact.kind as u8]);
            part(fact.name.as_bytes());
            match &fact.value {
                FactValue::Text(text) => part(text.as_bytes()),
                FactValue::Hidden(digest) | FactValue::Content(digest) => part(digest.as_bytes()),
            }
        }
        CacheKey(digester.finish())
    }
}

/// The name of a result: a digest of everything it depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CacheKey(Digest);

impl CacheKey {
    /// The digest itself.
    pub fn digest(&self) -> Digest {
        self.0
    }
}

impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
