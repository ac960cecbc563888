use std::fmt;
use std::str::FromStr;

use crate::Digest;

/// The registry that a name without one belongs to.
pub const DEFAULT_REGISTRY: &str = "docker.io";
/// The tag that a name without one gets.
pub const DEFAULT_TAG: &str = "latest";

const REPOSITORY_BYTES_MAX: usize = 255;
const TAG_BYTES_MAX: usize = 128;

/// The name of an image: registry, repository, and a tag, a digest, both or neither.
///
/// Parsing follows the `distribution/reference` grammar with Docker's familiar short forms: `flask` is
/// `docker.io/library/flask`, `me/app` is `docker.io/me/app`, and a first part with a dot, a colon or an
/// upper-case letter, or `localhost`, is a registry.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// The registry's host and port, `docker.io` for Docker Hub.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository within the registry, such as `library/flask`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, if one was written.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if one was written.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// The same image; without tag and digest it gets the tag `latest`.
    #[must_use]
    pub fn or_latest(mut self) -> Reference {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some(DEFAULT_TAG.to_owned());
        }
        self
    }

    /// The same repository under another tag.
    pub fn with_tag(&self, tag: &str) -> Result<Reference, ParseReferenceError> {
        check_tag(tag)?;
        Ok(Reference { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// The same repository by digest alone.
    pub fn with_digest(&self, digest: Digest) -> Reference {
        Reference { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// Registry and repository, fully written: `docker.io/library/flask`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// Registry and repository as people write them: `flask`, `me/app`, `quay.io/me/app`.
    pub fn familiar_name(&self) -> String {
        if self.registry != DEFAULT_REGISTRY {
            return self.name();
        }
        match self.repository.strip_prefix("library/") {
            // `library/a/b` is not an official image and `library/library/a` would lose its meaning.
            Some(short) if !short.contains('/') => short.to_owned(),
            _ => self.repository.clone(),
        }
    }

    /// The whole reference as people write it: `flask:3`.
    pub fn familiar(&self) -> String {
        let mut text = self.familiar_name();
        self.push_suffix(&mut text);
        text
    }

    fn push_suffix(&self, text: &mut String) {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(&digest.to_string());
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.name();
        self.push_suffix(&mut text);
        f.write_str(&text)
    }
}

/// Why a text is not an image reference. The words are Docker's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseReferenceError {
    /// Nothing was written.
    #[error("repository name must have at least one component")]
    Empty,
    /// Some part does not follow the grammar.
    #[error("invalid reference format")]
    Format,
    /// The repository has upper-case letters.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    /// The repository is longer than 255 bytes.
    #[error("repository name must not be more than {REPOSITORY_BYTES_MAX} characters")]
    TooLong,
    /// The name reads as an image ID.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    LooksLikeId(String),
    /// The part after `@` is not a digest.
    #[error("invalid reference format: {0}")]
    Digest(#[from] crate::ParseDigestError),
}

impl FromStr for Reference {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Reference, ParseReferenceError> {
        if text.is_empty() {
            return Err(ParseReferenceError::Empty);
        }
        if text.len() == 64 && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(ParseReferenceError::LooksLikeId(text.to_owned()));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse()?)),
            None => (text, None),
        };
        let (rest, tag) = split_tag(rest);
        let (registry, path) = split_registry(rest);
        check_registry(registry)?;
        if path.bytes().any(|c| c.is_ascii_uppercase()) {
            return Err(ParseReferenceError::Uppercase(path.to_owned()));
        }
        let repository = match (registry, path.contains('/')) {
            (DEFAULT_REGISTRY, false) => format!("library/{path}"),
            _ => path.to_owned(),
        };
        check_repository(path, &repository)?;
        if let Some(tag) = tag {
            check_tag(tag)?;
        }
        Ok(Reference { registry: registry.to_owned(), repository, tag: tag.map(str::to_owned), digest })
    }
}

/// Splits `name:tag`; a colon before the last slash belongs to a port.
fn split_tag(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (text, None),
    }
}

fn split_registry(text: &str) -> (&str, &str) {
    let (registry, path) = match text.split_once('/') {
        Some((first, rest)) if is_registry(first) => (first, rest),
        _ => (DEFAULT_REGISTRY, text),
    };
    match registry {
        "index.docker.io" => (DEFAULT_REGISTRY, path),
        _ => (registry, path),
    }
}

fn is_registry(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':']) || first.bytes().any(|c| c.is_ascii_uppercase())
}

fn check_registry(registry: &str) -> Result<(), ParseReferenceError> {
    let (host, port) = match registry.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (registry, None),
    };
    let port_fits = port.is_none_or(|port| !port.is_empty() && port.bytes().all(|c| c.is_ascii_digit()));
    let host_fits = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => !address.is_empty() && address.bytes().all(|c| c.is_ascii_hexdigit() || c == b':'),
        None => host.split('.').all(is_host_label),
    };
    if port_fits && host_fits { Ok(()) } else { Err(ParseReferenceError::Format) }
}

fn is_host_label(label: &str) -> bool {
    !label.is_empty()
        && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

fn check_repository(path: &str, repository: &str) -> Result<(), ParseReferenceError> {
    if !path.split('/').all(is_path_component) {
        return Err(ParseReferenceError::Format);
    }
    if repository.len() > REPOSITORY_BYTES_MAX {
        return Err(ParseReferenceError::TooLong);
    }
    Ok(())
}

/// Whether `text` names a repository within a registry, such as `library/flask`.
pub fn is_repository(text: &str) -> bool {
    check_repository(text, text).is_ok()
}

/// Whether `text` is a tag.
pub fn is_tag(text: &str) -> bool {
    check_tag(text).is_ok()
}

/// Lower-case alphanumerics, separated by one dot, one or two underscores, or any number of dashes.
fn is_path_component(component: &str) -> bool {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !component.starts_with(is_word) || !component.ends_with(is_word) {
        return false;
    }
    let mut separators = component.split(is_word).filter(|separator| !separator.is_empty());
    separators.all(|separator| matches!(separator, "." | "_" | "__") || separator.bytes().all(|c| c == b'-'))
}

fn check_tag(tag: &str) -> Result<(), ParseReferenceError> {
    let is_word = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
    let fits = tag.len() <= TAG_BYTES_MAX
        && tag.bytes().next().is_some_and(is_word)
        && tag.bytes().all(|c| is_word(c) || c == b'.' || c == b'-');
    if fits { Ok(()) } else { Err(ParseReferenceError::Format) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_belong_to_docker_hub() {
        for (text, canonical, familiar) in [
            ("alpine", "docker.io/library/alpine", "alpine"),
            ("me/app:1", "docker.io/me/app:1", "me/app:1"),
            ("docker.io/alpine", "docker.io/library/alpine", "alpine"),
            ("index.docker.io/library/a", "docker.io/library/a", "a"),
            ("localhost/a", "localhost/a", "localhost/a"),
            ("localhost:5000/a:b", "localhost:5000/a:b", "localhost:5000/a:b"),
            ("[::1]:5000/a", "[::1]:5000/a", "[::1]:5000/a"),
            ("a--b__c.d", "docker.io/library/a--b__c.d", "a--b__c.d"),
            ("192.168.0.1:80", "docker.io/library/192.168.0.1:80", "192.168.0.1:80"),
        ] {
            let reference: Reference = text.parse().expect(text);
            assert_eq!(reference.to_string(), canonical);
            assert_eq!(reference.familiar(), familiar);
            assert_eq!(canonical.parse(), Ok(reference));
        }
    }

    #[test]
    fn parts_are_known_by_themselves() {
        let long = "a".repeat(REPOSITORY_BYTES_MAX + 1);
        for (text, repository, tag) in [
            ("library/flask", true, false),
            ("flask", true, true),
            ("3.1-slim_x", true, true),
            ("_x", false, true),
            ("A", false, true),
            ("a/../b", false, false),
            ("", false, false),
            (&long, false, false),
        ] {
            assert_eq!((is_repository(text), is_tag(text)), (repository, tag), "{text}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, message) in [
            ("", "repository name must have at least one component"),
            ("A/b", ""),
            ("me/App", "invalid reference format: repository name (me/App) must be lowercase"),
            ("App", "invalid reference format: repository name (App) must be lowercase"),
            ("a:", "invalid reference format"),
            (":a", "invalid reference format"),
            ("a b", "invalid reference format"),
            ("a___b", "invalid reference format"),
            ("a..b", "invalid reference format"),
            ("-a", "invalid reference format"),
            ("a//b", "invalid reference format"),
            ("a@sha256:0", "invalid reference format: invalid checksum digest length"),
            ("https://a.b/c", "invalid reference format"),
        ] {
            let error = text.parse::<Reference>().err().map(|e| e.to_string()).unwrap_or_default();
            assert_eq!(error, message, "{text}");
        }
    }
}
