use std::fmt;

use crate::Security;
use crate::url::{Scheme, Url, UrlError};

/// The host that serves Docker Hub.
const DOCKER_HUB: &str = "registry-1.docker.io";

/// A server that is asked for a registry's content: the registry, its stand-in, or a mirror.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Under which name settings and credentials are found.
    pub(crate) table: String,
    /// `None`: whichever the server speaks.
    pub(crate) scheme: Option<Scheme>,
    pub(crate) authority: String,
    /// What goes before each repository: empty, or `path/`.
    prefix: String,
}

impl Endpoint {
    pub(crate) fn of(registry: &str, security: Security) -> Endpoint {
        let scheme = match security {
            Security::Verified | Security::Unverified => Some(Scheme::Https),
            Security::PlainHttp => Some(Scheme::Http),
            Security::Any => None,
        };
        let authority = if registry == dhow_oci::DEFAULT_REGISTRY { DOCKER_HUB } else { registry };
        Endpoint {
            table: registry.to_owned(),
            scheme,
            authority: authority.to_ascii_lowercase(),
            prefix: String::new(),
        }
    }

    pub(crate) fn at(table: &str, url: &Url) -> Endpoint {
        let path = url.path().trim_matches('/');
        let path = path.strip_prefix("v2").filter(|rest| rest.is_empty()).unwrap_or(path);
        Endpoint {
            table: table.to_owned(),
            scheme: Some(url.scheme()),
            authority: url.authority().to_owned(),
            prefix: if path.is_empty() { String::new() } else { format!("{path}/") },
        }
    }

    /// A mirror's credentials are its own: those of the registry it mirrors are none of its business.
    pub(crate) fn mirror(url: &Url) -> Endpoint {
        Endpoint::at(url.authority(), url)
    }

    /// The repository as this server knows it.
    pub(crate) fn repository(&self, repository: &str) -> String {
        format!("{}{repository}", self.prefix)
    }

    /// The path of its URL, for servers that are not registries.
    pub(crate) fn path(&self) -> String {
        match self.prefix.trim_end_matches('/') {
            "" => String::new(),
            path => format!("/{path}"),
        }
    }

    pub(crate) fn url(&self, scheme: Scheme, target: &str) -> Result<Url, UrlError> {
        Url::new(scheme, &self.authority, target)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(scheme) = self.scheme {
            write!(f, "{}://", scheme.name())?;
        }
        f.write_str(&self.authority)?;
        if !self.prefix.is_empty() {
            write!(f, "/{}", self.prefix.trim_end_matches('/'))?;
        }
        Ok(())
    }
}
