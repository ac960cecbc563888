use std::io;
use std::path::PathBuf;

/// Why a program of a build was not given what it asks for.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It asks for something that whoever builds has not allowed.
    #[error("{what} needs the entitlement {name}")]
    Entitlement {
        /// What asks for it.
        what: &'static str,
        /// What is missing.
        name: &'static str,
    },
    /// A secret it requires was not given.
    #[error("secret {id}: not found")]
    NoSecret {
        /// Which one.
        id: String,
    },
    /// A secret cannot be read.
    #[error("cannot read secret {id} from {}", path.display())]
    Secret {
        /// Which one.
        id: String,
        /// Its file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A secret is to be a variable and cannot be one.
    #[error("secret {id} cannot be the variable {env}: it is not UTF-8, or holds a null byte")]
    SecretVariable {
        /// Which one.
        id: String,
        /// The variable.
        env: String,
    },
    /// An agent it requires was not given.
    #[error("ssh agent {id}: not found")]
    NoAgent {
        /// Which one.
        id: String,
    },
    /// An agent cannot be forwarded.
    #[error("cannot forward ssh agent {id} at {}", socket.display())]
    Agent {
        /// Which one.
        id: String,
        /// Its socket.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A cache cannot be had.
    #[error("cannot prepare the cache {id}")]
    Cache {
        /// Which one.
        id: String,
        /// Why.
        source: io::Error,
    },
    /// Somebody is at work with a cache that is for one at a time.
    #[error("the cache {id} is in use by a step of a build, and may be used by one at a time")]
    CacheInUse {
        /// Which cache.
        id: String,
    },
    /// The build ended while a step waited for something.
    #[error("given up while waiting for the cache {id}, which another step has locked")]
    GivenUp {
        /// Which cache.
        id: String,
    },
}

impl RunError {
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            RunError::Entitlement { name, .. } => Some(format!("allow it with --allow {name}")),
            RunError::NoSecret { id } => Some(format!("give it with --secret id={id},src=FILE")),
            RunError::CacheInUse { .. } => Some("wait for the build, then try again".to_owned()),
            RunError::NoAgent { id } => Some(format!("give one with --ssh {id}")),
            _ => None,
        }
    }
}
