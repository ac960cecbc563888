//! Who asks, and what they may do.
//!
//! Users and passwords are those of an htpasswd file. They are shown with every request (`basic`), or once to `/token`,
//! which gives a signed token for a while (`token`, as in Docker's token specification); then whoever shows none may be
//! allowed to pull. Rules say who may do what where.

mod htpasswd;
mod rules;
mod token;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::error::{ApiError, Code};

pub(crate) use htpasswd::Htpasswd;
pub use htpasswd::{HtpasswdError, htpasswd_line};
pub(crate) use rules::{Action, Rule, Rules};
pub(crate) use token::{Access, Tokens};

/// What decides about requests.
#[derive(Clone)]
pub(crate) enum Auth {
    /// Everybody may do everything.
    None,
    /// Name and password with every request.
    Basic { users: Arc<Htpasswd>, rules: Arc<Rules> },
    /// Tokens.
    Token { users: Arc<Htpasswd>, rules: Arc<Rules>, tokens: Arc<Tokens> },
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// Nobody is asked who they are.
    Anybody,
    /// Somebody without name or token.
    Unknown,
    /// Somebody who showed a password.
    User(String),
    /// Somebody who showed a token of ours.
    Bearer { user: Option<String>, access: Vec<Access> },
}

impl Caller {
    fn name(&self) -> Option<&str> {
        match self {
            Caller::User(name) => Some(name),
            Caller::Bearer { user, .. } => user.as_deref(),
            Caller::Anybody | Caller::Unknown => None,
        }
    }
}

const REQUIRED: &str = "authentication required";

impl Auth {
    /// Finds out who asks. `home` is the URL of this server as the client knows it.
    pub(crate) async fn identify(&self, header: Option<String>, home: &str) -> Result<Caller, ApiError> {
        let Some(header) = header else {
            return Ok(if matches!(self, Auth::None) { Caller::Anybody } else { Caller::Unknown });
        };
        match self {
            Auth::None => Ok(Caller::Anybody),
            Auth::Basic { users, .. } => {
                let challenge = self.challenge(home, None, None);
                let wrong = || ApiError::unauthorized("wrong user name or password", challenge);
                let Some((name, password)) = basic(&header) else { return Err(wrong()) };
                if users.verify(&name, &password).await { Ok(Caller::User(name)) } else { Err(wrong()) }
            }
            Auth::Token { tokens, .. } => {
                let token = strip_scheme(&header, "bearer");
                match token.and_then(|token| tokens.verify(token)) {
                    Some((user, access)) => Ok(Caller::Bearer { user, access }),
                    None => {
                        let challenge = self.challenge(home, None, Some("invalid_token"));
                        Err(ApiError::unauthorized("the token is not valid", challenge))
                    }
                }
            }
        }
    }

    /// Whether the caller may do that with a repository.
    pub(crate) fn authorize(
        &self,
        caller: &Caller,
        repository: &str,
        action: Action,
        home: &str,
    ) -> Result<(), ApiError> {
        if self.allows(caller, repository, action) {
            return Ok(());
        }
        let scope = format!("repository:{repository}:{}", action.scope());
        let challenge = |error| self.challenge(home, Some(&scope), error);
        match caller {
            Caller::Unknown | Caller::Anybody => Err(ApiError::unauthorized(REQUIRED, challenge(None))),
            Caller::Bearer { user: None, .. } => {
                Err(ApiError::unauthorized(REQUIRED, challenge(Some("insufficient_scope"))))
            }
            // The token is for something else; another one would do.
            Caller::Bearer { user: Some(user), .. } if self.rules_allow(Some(user), repository, action) => {
                Err(ApiError::unauthorized(REQUIRED, challenge(Some("insufficient_scope"))))
            }
            Caller::User(_) | Caller::Bearer { .. } => {
                let message =
                    format!("{} may not {} {repository}", caller.name().unwrap_or_default(), action.verb());
                Err(ApiError::new(Code::Denied, message))
            }
        }
    }

    /// Whether the caller may. A token allows what it was given for.
    pub(crate) fn allows(&self, caller: &Caller, repository: &str, action: Action) -> bool {
        match caller {
            Caller::Bearer { access, .. } => access.iter().any(|access| access.allows(repository, action)),
            _ => self.rules_allow(caller.name(), repository, action),
        }
    }

    /// Whether the caller may know that a repository exists: lists show what could be pulled.
    pub(crate) fn shows(&self, caller: &Caller, repository: &str) -> bool {
        self.rules_allow(caller.name(), repository, Action::Pull)
    }

    fn rules_allow(&self, user: Option<&str>, repository: &str, action: Action) -> bool {
        match self {
            Auth::None => true,
            Auth::Basic { rules, .. } | Auth::Token { rules, .. } => rules.allow(user, repository, action),
        }
    }

    /// Whoever wants lists, or to see whether a login works, has to say who they are. Clients show what they have only
    /// when they are asked for it; where there are tokens, one that names nobody will do.
    pub(crate) fn require_caller(&self, caller: &Caller, home: &str) -> Result<(), ApiError> {
        match caller {
            Caller::Unknown => Err(ApiError::unauthorized(REQUIRED, self.challenge(home, None, None))),
            Caller::Anybody | Caller::User(_) | Caller::Bearer { .. } => Ok(()),
        }
    }

    fn challenge(&self, home: &str, scope: Option<&str>, error: Option<&str>) -> String {
        let Auth::Token { tokens, .. } = self else {
            return "Basic realm=\"dhow registry\"".to_owned();
        };
        let mut text = format!("Bearer realm=\"{home}/token\",service=\"{}\"", tokens.service());
        for (name, value) in [("scope", scope), ("error", error)] {
            if let Some(value) = value {
                text.push_str(&format!(",{name}=\"{value}\""));
            }
        }
        text
    }
}

/// The value after an authentication scheme, whose case does not matter.
fn strip_scheme<'a>(header: &'a str, scheme: &str) -> Option<&'a str> {
    let (first, rest) = header.split_once(' ')?;
    first.eq_ignore_ascii_case(scheme).then(|| rest.trim())
}

/// Name and password of a `Basic` header.
pub(crate) fn basic(header: &str) -> Option<(String, String)> {
    let pair = STANDARD.decode(strip_scheme(header, "basic")?).ok()?;
    let pair = String::from_utf8(pair).ok()?;
    let (name, password) = pair.split_once(':')?;
    Some((name.to_owned(), password.to_owned()))
}
