use std::io;
use std::path::PathBuf;
use std::time::Duration;

use dhow_oci::{Digest, DocumentError, Reference};
use serde::Deserialize;

use crate::credentials::CredentialsError;
use crate::transport::{Failure, FailureKind, Reply};

/// No more of a registry's own words is read than this.
const ERROR_BYTES_MAX: u64 = 64 << 10;
/// No more of them is shown than this.
const MESSAGE_CHARS_MAX: usize = 512;

/// What was being done; some refusals are worded by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Reading from a repository.
    Pull,
    /// Writing to it.
    Push,
    /// Signing in.
    Login,
    /// Searching.
    Search,
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Action::Pull => "pull",
            Action::Push => "push",
            Action::Login => "login",
            Action::Search => "search",
        }
    }
}

/// Why a registry did not do what it was asked. Where Docker has words for it, these are Docker's.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The repository has no such tag or digest.
    #[error("manifest for {reference} not found: {message}")]
    ManifestNotFound {
        /// The image, as people write it.
        reference: String,
        /// The registry's words.
        message: String,
    },
    /// The registry has no such repository and says so.
    #[error("repository {repository} not found: {message}")]
    RepositoryNotFound {
        /// The repository, as people write it.
        repository: String,
        /// The registry's words.
        message: String,
    },
    /// A manifest lists a blob that the registry does not have.
    #[error("blob {digest} of {repository} not found in the registry")]
    BlobNotFound {
        /// The repository, as people write it.
        repository: String,
        /// The blob.
        digest: Box<Digest>,
    },
    /// We may not, or it is not there; registries do not tell which.
    #[error("{} access denied for {repository}, repository does not exist or may require 'dhow login': {message}", action.name())]
    Denied {
        /// What was refused.
        action: Action,
        /// The repository, as people write it.
        repository: String,
        /// The registry's words.
        message: String,
    },
    /// User name, password or token are wrong.
    #[error("{registry}: unauthorized: {message}")]
    Unauthorized {
        /// The registry.
        registry: String,
        /// The server's words.
        message: String,
    },
    /// We asked too often.
    #[error("{registry}: too many requests for {subject}{}: {message}", wait_text(*retry_after))]
    TooManyRequests {
        /// The registry.
        registry: String,
        /// What was asked about.
        subject: String,
        /// When to come back, if it said so.
        retry_after: Option<Duration>,
        /// The registry's words.
        message: String,
    },
    /// Any other refusal.
    #[error("{registry}: cannot {} {subject}: registry answered {status}: {message}", action.name())]
    Server {
        /// The registry.
        registry: String,
        /// What was being done.
        action: Action,
        /// What was asked about.
        subject: String,
        /// The HTTP status.
        status: u16,
        /// The registry's words.
        message: String,
    },
    /// No connection, or one that kept breaking.
    #[error("{registry}: cannot {} {subject}: {host}: {why}", action.name())]
    Unreachable {
        /// The registry.
        registry: String,
        /// What was being done.
        action: Action,
        /// What was asked about.
        subject: String,
        /// Who did not answer: the registry, a mirror, a token server, a place it redirected to.
        host: String,
        /// What happened.
        why: String,
    },
    /// A connection that cannot be trusted.
    #[error("{registry}: cannot trust {host}: {why}")]
    Tls {
        /// The registry.
        registry: String,
        /// Whose certificate it was.
        host: String,
        /// What is wrong with it.
        why: String,
    },
    /// A certificate or key file that cannot be used.
    #[error("cannot use {}: {why}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A proxy setting that cannot be used.
    #[error("{why}")]
    Proxy {
        /// What is wrong with it.
        why: String,
    },
    /// The content is not what its name says. (Boxed, as two digests would make every result large.)
    #[error("{subject}: content is {actual}, expected {expected}")]
    DigestMismatch {
        /// What was asked for.
        subject: String,
        /// The promise.
        expected: Box<Digest>,
        /// What came.
        actual: Box<Digest>,
    },
    /// A blob that is longer or shorter than its manifest says.
    #[error("{subject}: content has {actual} bytes, expected {expected}")]
    SizeMismatch {
        /// What was asked for.
        subject: String,
        /// The promise.
        expected: u64,
        /// What came, or was announced.
        actual: u64,
    },
    /// An answer beyond all reason.
    #[error("{subject}: {what} is larger than the limit of {limit} bytes")]
    TooLarge {
        /// What was asked for.
        subject: String,
        /// Which part of the answer.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// A manifest that is not one.
    #[error("manifest of {reference} cannot be used")]
    BadManifest {
        /// The image, as people write it.
        reference: String,
        /// What is wrong.
        source: DocumentError,
    },
    /// An answer that breaks the protocol.
    #[error("{registry}: cannot {} {subject}: {why}", action.name())]
    BadReply {
        /// The registry.
        registry: String,
        /// What was being done.
        action: Action,
        /// What was asked about.
        subject: String,
        /// What is wrong.
        why: String,
    },
    /// The content to push could not be read here.
    #[error("cannot read {digest} to push it")]
    Content {
        /// The blob.
        digest: Box<Digest>,
        /// Why.
        source: io::Error,
    },
    /// Credentials could not be looked up.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

fn wait_text(retry_after: Option<Duration>) -> String {
    retry_after.map(|wait| format!(", try again in {} seconds", wait.as_secs())).unwrap_or_default()
}

impl RegistryError {
    /// Whether the server was not reached at all, so that asking it again soon is a waste of time.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, RegistryError::Unreachable { .. } | RegistryError::Tls { .. })
    }

    /// Whether the registry has not got what was asked for. Some deny what is not there.
    pub fn is_absence(&self) -> bool {
        matches!(
            self,
            RegistryError::ManifestNotFound { .. }
                | RegistryError::RepositoryNotFound { .. }
                | RegistryError::BlobNotFound { .. }
                | RegistryError::Denied { .. }
        )
    }

    /// Whether a command that has the image here may go on with it: the registry is away or busy, and has
    /// not said no.
    pub fn is_passing(&self) -> bool {
        match self {
            RegistryError::Unreachable { .. } | RegistryError::TooManyRequests { .. } => true,
            RegistryError::Server { status, .. } => *status >= 500,
            _ => false,
        }
    }
}

/// What an operation is about, for the wording of its errors.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) action: Action,
    pub(crate) registry: String,
    /// The repository as people write it.
    pub(crate) name: String,
    /// The whole reference, or what else is most precise.
    pub(crate) text: String,
}

impl Subject {
    pub(crate) fn of(action: Action, reference: &Reference) -> Subject {
        Subject {
            action,
            registry: reference.registry().to_owned(),
            name: reference.familiar_name(),
            text: reference.familiar(),
        }
    }

    /// A blob of a repository.
    pub(crate) fn blob(action: Action, repository: &Reference, digest: Digest) -> Subject {
        let name = repository.familiar_name();
        let text = format!("{name}@{digest}");
        Subject { action, registry: repository.registry().to_owned(), name, text }
    }

    /// Something about the registry as a whole.
    pub(crate) fn registry(action: Action, registry: &str, text: &str) -> Subject {
        Subject { action, registry: registry.to_owned(), name: text.to_owned(), text: text.to_owned() }
    }

    pub(crate) fn bad_reply(&self, why: impl ToString) -> RegistryError {
        RegistryError::BadReply {
            registry: self.registry.clone(),
            action: self.action,
            subject: self.text.clone(),
            why: why.to_string(),
        }
    }

    pub(crate) fn failed(&self, failure: Failure) -> RegistryError {
        let (registry, host, why) = (self.registry.clone(), failure.host, failure.why);
        match failure.kind {
            FailureKind::Tls => RegistryError::Tls { registry, host, why },
            FailureKind::Protocol => self.bad_reply(format!("{host}: {why}")),
            FailureKind::Unreachable | FailureKind::Broken => RegistryError::Unreachable {
                registry,
                action: self.action,
                subject: self.text.clone(),
                host,
                why,
            },
        }
    }

    /// Words an answer that is not the wanted one.
    pub(crate) fn refused(&self, reply: Reply) -> RegistryError {
        let status = reply.status;
        let retry_after = crate::retry::retry_after(reply.header("retry-after"));
        let words = Words::read(reply);
        self.worded(status, retry_after, words)
    }

    pub(crate) fn worded(&self, status: u16, retry_after: Option<Duration>, words: Words) -> RegistryError {
        let (registry, subject, message) = (self.registry.clone(), self.text.clone(), words.message);
        match status {
            401 | 403 if self.action == Action::Login => RegistryError::Unauthorized {
                registry,
                message: message.strip_prefix("unauthorized: ").unwrap_or(&message).to_owned(),
            },
            401 | 403 => {
                RegistryError::Denied { action: self.action, repository: self.name.clone(), message }
            }
            404 if words.code == "NAME_UNKNOWN" => {
                RegistryError::RepositoryNotFound { repository: self.name.clone(), message }
            }
            429 => RegistryError::TooManyRequests { registry, subject, retry_after, message },
            _ => RegistryError::Server { registry, action: self.action, subject, status, message },
        }
    }
}

/// What a registry says about a refusal.
pub(crate) struct Words {
    pub(crate) code: String,
    pub(crate) message: String,
}

impl Words {
    pub(crate) fn read(mut reply: Reply) -> Words {
        let status = reply.status_text();
        // What cannot be read cannot be shown; the status says enough.
        let bytes = reply.bytes(ERROR_BYTES_MAX).unwrap_or_default();
        Words::parse(&bytes).unwrap_or(Words { code: String::new(), message: status })
    }

    /// Reads the `errors` of the distribution-spec, or the `detail(s)` of token servers.
    fn parse(bytes: &[u8]) -> Option<Words> {
        let body: Body = serde_json::from_slice(bytes).ok()?;
        let Some(error) = body.errors.into_iter().next() else {
            let message = clean(&body.details.or(body.detail).or(body.message)?);
            return (!message.is_empty()).then(|| Words { code: String::new(), message });
        };
        let code = clean(&error.code.unwrap_or_default());
        let spoken = code.to_lowercase().replace('_', " ");
        let message = clean(&error.message.unwrap_or_default());
        let message = match (spoken.is_empty(), message.is_empty()) {
            (false, false) => format!("{spoken}: {message}"),
            _ => spoken + &message,
        };
        (!message.is_empty()).then_some(Words { code, message })
    }
}

/// One line without control characters, cut at a length a person may read.
pub(crate) fn clean(text: &str) -> String {
    let printable = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    printable.take(MESSAGE_CHARS_MAX).collect::<String>().trim().to_owned()
}

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    errors: Vec<Item>,
    details: Option<String>,
    detail: Option<String>,
    message: Option<String>,
}

#[derive(Deserialize)]
struct Item {
    code: Option<String>,
    message: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registrys_words_are_dockers_and_harmless() {
        for (body, expected) in [
            (
                r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#,
                Some("manifest unknown: manifest unknown"),
            ),
            (r#"{"errors":[{"code":"DENIED","message":"a\u001b[31m\nb"}]}"#, Some("denied: a [31m b")),
            (r#"{"errors":[]}"#, None),
            (r#"{"details":"incorrect username or password"}"#, Some("incorrect username or password")),
            ("<html>", None),
        ] {
            assert_eq!(Words::parse(body.as_bytes()).map(|words| words.message).as_deref(), expected);
        }
        let long = format!(r#"{{"message":"{}"}}"#, "x".repeat(9999));
        assert_eq!(Words::parse(long.as_bytes()).map(|words| words.message.len()), Some(MESSAGE_CHARS_MAX));
    }
}
