//! Answers challenges and keeps what it got for the next request.
//!
//! A registry's challenge is remembered, so that only its first request is refused; a token is kept until
//! shortly before it expires, and dropped when a registry refuses it. Threads that need the same token wait
//! for one of them to fetch it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::endpoint::Endpoint;
use crate::error::{Subject, Words};
use crate::retry::persist;
use crate::transport::{Exchange, Payload, Reply, SendError, Transport, lock};
use crate::url::{Url, push_escaped};
use crate::{Challenge, Credential, CredentialsError, Keychain, RegistryError, Scheme, Secret, Security};

const TOKEN_BYTES_MAX: u64 = 1 << 20;
/// What the token specification says when the server does not.
const TOKEN_LIFE_DEFAULT: Duration = Duration::from_secs(60);
/// A token is not used in the last moments of its life.
const TOKEN_LIFE_SPARE: Duration = Duration::from_secs(10);
const CLIENT_ID: &str = "dhow";

/// What a request needs to be allowed, in the words of the token specification; sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Scope(Vec<String>);

impl Scope {
    pub(crate) fn none() -> Scope {
        Scope::default()
    }

    pub(crate) fn pull(repository: &str) -> Scope {
        Scope(vec![format!("repository:{repository}:pull")])
    }

    pub(crate) fn push(repository: &str) -> Scope {
        Scope(vec![format!("repository:{repository}:pull,push")])
    }

    /// Writing to one repository what another one has.
    pub(crate) fn mount(repository: &str, from: &str) -> Scope {
        let mut scope = Scope::push(repository);
        scope.0.push(format!("repository:{from}:pull"));
        scope.0.sort();
        scope
    }

    /// Whether what a registry asked for is about a repository of ours. A challenge is kept, and the one at
    /// hand may have been about another.
    fn concerns(&self, asked: &str) -> bool {
        let resource = |scope: &str| scope.rsplit_once(':').map(|(resource, _)| resource.to_owned());
        let own: Vec<_> = self.0.iter().map(|scope| resource(scope)).collect();
        asked.split_whitespace().any(|asked| own.contains(&resource(asked)))
    }

    /// These and those the registry asked for.
    fn with(&self, asked: Option<&str>) -> Scope {
        let mut scope = self.clone();
        scope.0.extend(asked.unwrap_or_default().split_whitespace().map(str::to_owned));
        scope.0.sort();
        scope.0.dedup();
        // `a:pull` adds nothing to `a:pull,push`.
        let all = scope.0.clone();
        scope.0.retain(|one| {
            !all.iter()
                .any(|other| other.strip_prefix(one.as_str()).is_some_and(|rest| rest.starts_with(',')))
        });
        scope
    }
}

pub(crate) struct Auth {
    keychain: Keychain,
    /// By table, as reading them may start a program.
    credentials: Mutex<HashMap<String, Option<Credential>>>,
    /// Why there is no credential although there may be one, by table.
    failures: Mutex<HashMap<String, CredentialsError>>,
    /// By authority.
    challenges: Mutex<HashMap<String, Challenge>>,
    tokens: Mutex<HashMap<TokenKey, Arc<Mutex<Option<Token>>>>>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct TokenKey {
    table: String,
    realm: String,
    service: Option<String>,
    scope: Scope,
}

struct Token {
    value: Secret,
    stale_at: Option<Instant>,
}

/// What a token server answers.
pub(crate) struct Grant {
    pub(crate) token: Secret,
    /// An identity token, if one was asked for and given.
    pub(crate) refresh: Option<Secret>,
    life: Duration,
}

#[derive(Deserialize)]
struct GrantBody {
    token: Option<String>,
    access_token: Option<String>,
    refresh_token: Option<String>,
    expires_in: Option<u64>,
}

/// A token server and what to ask it for.
pub(crate) struct TokenRequest<'a> {
    pub(crate) realm: &'a str,
    pub(crate) service: Option<&'a str>,
    pub(crate) scope: &'a Scope,
    pub(crate) credential: Option<&'a Credential>,
    /// Ask for an identity token as well.
    pub(crate) offline: bool,
}

impl Auth {
    pub(crate) fn new(keychain: Keychain) -> Auth {
        let (credentials, failures, challenges, tokens) = Default::default();
        Auth { keychain, credentials, failures, challenges, tokens }
    }

    /// The `Authorization` header for a request, as far as the registry is known to want one.
    pub(crate) fn authorization(
        &self,
        transport: &Transport,
        endpoint: &Endpoint,
        scope: &Scope,
        subject: &Subject,
    ) -> Result<Option<Secret>, RegistryError> {
        let Some(challenge) = lock(&self.challenges).get(&endpoint.authority).cloned() else {
            return Ok(None);
        };
        let credential = self.credential(endpoint);
        match (challenge, &credential) {
            (Challenge::Basic { .. }, _) => Ok(credential.as_ref().and_then(basic)),
            (Challenge::Bearer { .. }, Some(Credential::RegistryToken(token))) => Ok(Some(bearer(token))),
            (Challenge::Bearer { realm, service, scope: asked }, _) => {
                let slot = self.slot(endpoint, &realm, service.as_deref(), scope);
                // Held while the token is fetched: whoever else needs it waits here.
                let mut slot = lock(&slot);
                if let Some(token) = slot.as_ref().filter(|token| token.is_fresh()) {
                    return Ok(Some(bearer(&token.value)));
                }
                let request = TokenRequest {
                    realm: &realm,
                    service: service.as_deref(),
                    scope: &scope.with(asked.as_deref().filter(|asked| scope.concerns(asked))),
                    credential: credential.as_ref(),
                    offline: false,
                };
                let token = Token::from(fetch_token(transport, endpoint, &request, subject)?);
                Ok(Some(bearer(&slot.insert(token).value)))
            }
        }
    }

    /// Learns from a 401. Returns whether the request is worth repeating.
    pub(crate) fn learn(
        &self,
        endpoint: &Endpoint,
        reply: &Reply,
        scope: &Scope,
        used: Option<&Secret>,
    ) -> bool {
        let Some(challenge) = Challenge::choose(reply.headers("www-authenticate")) else { return false };
        let again = match &challenge {
            Challenge::Basic { .. } => {
                used.is_none() && self.credential(endpoint).as_ref().and_then(basic).is_some()
            }
            Challenge::Bearer { realm, service, .. } => {
                let slot = self.slot(endpoint, realm, service.as_deref(), scope);
                let mut slot = lock(&slot);
                // Another thread may have replaced the refused token already.
                if slot.as_ref().is_some_and(|token| used == Some(&bearer(&token.value))) {
                    *slot = None;
                }
                !matches!(self.credential(endpoint), Some(Credential::RegistryToken(_)) if used.is_some())
            }
        };
        lock(&self.challenges).insert(endpoint.authority.clone(), challenge);
        again
    }

    /// What we have to show to a registry. Failing to look it up is no reason yet to fail: most of what is
    /// pulled is public.
    fn credential(&self, endpoint: &Endpoint) -> Option<Credential> {
        let mut credentials = lock(&self.credentials);
        if let Some(credential) = credentials.get(&endpoint.table) {
            return credential.clone();
        }
        let credential = self.keychain.get(&endpoint.table).unwrap_or_else(|error| {
            tracing::warn!(%error, registry = endpoint.table, "going on without credentials");
            lock(&self.failures).insert(endpoint.table.clone(), error);
            None
        });
        credentials.insert(endpoint.table.clone(), credential.clone());
        credential
    }

    /// Why credentials could not be looked up, told once, to explain a refusal.
    pub(crate) fn take_failure(&self, endpoint: &Endpoint) -> Option<CredentialsError> {
        lock(&self.failures).remove(&endpoint.table)
    }

    fn slot(
        &self,
        endpoint: &Endpoint,
        realm: &str,
        service: Option<&str>,
        scope: &Scope,
    ) -> Arc<Mutex<Option<Token>>> {
        let key = TokenKey {
            table: endpoint.table.clone(),
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.clone(),
        };
        lock(&self.tokens).entry(key).or_default().clone()
    }
}

impl From<Grant> for Token {
    fn from(grant: Grant) -> Token {
        let stale_at = Instant::now().checked_add(grant.life.saturating_sub(TOKEN_LIFE_SPARE));
        Token { value: grant.token, stale_at }
    }
}

impl Token {
    fn is_fresh(&self) -> bool {
        self.stale_at.is_none_or(|stale_at| Instant::now() < stale_at)
    }
}

/// `None` for what cannot be sent as user name and password.
pub(crate) fn basic(credential: &Credential) -> Option<Secret> {
    match credential {
        Credential::Basic { username, password } => {
            let pair = STANDARD.encode(format!("{username}:{}", password.expose()));
            Some(Secret::new(format!("Basic {pair}")))
        }
        Credential::IdentityToken { .. } | Credential::RegistryToken(_) => None,
    }
}

pub(crate) fn bearer(token: &Secret) -> Secret {
    Secret::new(format!("Bearer {}", token.expose()))
}

/// Asks a token server; once more, or several times, if it is busy or the connection breaks.
pub(crate) fn fetch_token(
    transport: &Transport,
    endpoint: &Endpoint,
    request: &TokenRequest<'_>,
    subject: &Subject,
) -> Result<Grant, RegistryError> {
    let realm = realm_url(transport, endpoint, request, subject)?;
    let reply = persist(&transport.config().retry, subject, || send(transport, endpoint, &realm, request))?;
    grant(reply, request, subject)
}

/// A token server gets our password: it must be reached as safely as the registry itself.
fn realm_url(
    transport: &Transport,
    endpoint: &Endpoint,
    request: &TokenRequest<'_>,
    subject: &Subject,
) -> Result<Url, RegistryError> {
    let realm =
        Url::parse(request.realm).map_err(|error| subject.bad_reply(format!("token server: {error}")))?;
    let config = transport.config();
    let security = config.security(&endpoint.table, &endpoint.authority);
    let is_plain_here =
        endpoint.scheme != Some(Scheme::Https) || matches!(security, Security::PlainHttp | Security::Any);
    if !config.allows_plain(&realm) && !is_plain_here {
        return Err(subject.bad_reply(format!("token server {realm} is not reached by HTTPS")));
    }
    Ok(realm)
}

fn send(
    transport: &Transport,
    endpoint: &Endpoint,
    realm: &Url,
    request: &TokenRequest<'_>,
) -> Result<Reply, SendError> {
    let mut parameters = vec![("client_id", CLIENT_ID)];
    parameters.extend(request.service.map(|service| ("service", service)));
    if let Some(Credential::IdentityToken { token, .. }) = request.credential {
        let scope = request.scope.0.join(" ");
        parameters.extend([
            ("grant_type", "refresh_token"),
            ("scope", &scope),
            ("refresh_token", token.expose()),
        ]);
        let form = form(&parameters);
        let headers = [("content-type", "application/x-www-form-urlencoded".to_owned())];
        let payload = Payload::Bytes(form.expose().as_bytes());
        let exchange =
            Exchange { method: "POST", url: realm.clone(), headers: &headers, authorization: None, payload };
        return transport.send(endpoint, exchange);
    }
    parameters.extend(request.scope.0.iter().map(|scope| ("scope", scope.as_str())));
    if let Some(Credential::Basic { username, .. }) = request.credential {
        parameters.push(("account", username));
    }
    if request.offline {
        parameters.push(("offline_token", "true"));
    }
    let url = parameters.iter().fold(realm.clone(), |url, (key, value)| url.with_query(key, value));
    let authorization = request.credential.and_then(basic);
    let exchange = Exchange {
        method: "GET",
        url,
        headers: &[],
        authorization: authorization.as_ref(),
        payload: Payload::None,
    };
    transport.send(endpoint, exchange)
}

fn form(parameters: &[(&str, &str)]) -> Secret {
    let mut text = String::new();
    for (key, value) in parameters {
        if !text.is_empty() {
            text.push('&');
        }
        text.push_str(key);
        text.push('=');
        push_escaped(&mut text, value);
    }
    Secret::new(text)
}

fn grant(mut reply: Reply, request: &TokenRequest<'_>, subject: &Subject) -> Result<Grant, RegistryError> {
    if reply.status != 200 {
        return Err(refusal(reply, request, subject));
    }
    let body = reply.small(TOKEN_BYTES_MAX).map_err(|failure| subject.failed(failure))?;
    let body = body.ok_or_else(|| subject.bad_reply("the token server's answer is too large"))?;
    // serde's own words could quote the token.
    let body: GrantBody = serde_json::from_slice(&body)
        .map_err(|_| subject.bad_reply("the token server's answer is not JSON"))?;
    let token = [body.token, body.access_token].into_iter().flatten().find(|token| !token.is_empty());
    let token = token.ok_or_else(|| subject.bad_reply("the token server gave no token"))?;
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(subject.bad_reply("the token server's token has characters that cannot be sent"));
    }
    let life = body.expires_in.map_or(TOKEN_LIFE_DEFAULT, Duration::from_secs);
    Ok(Grant { token: Secret::new(token), refresh: body.refresh_token.map(Secret::new), life })
}

fn refusal(reply: Reply, request: &TokenRequest<'_>, subject: &Subject) -> RegistryError {
    let status = reply.status;
    if status == 401 && request.credential.is_some() {
        let message = Words::read(reply).message;
        let message = message.strip_prefix("unauthorized: ").unwrap_or(&message).to_owned();
        return RegistryError::Unauthorized { registry: subject.registry.clone(), message };
    }
    subject.refused(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_merge_without_repetition() {
        let scope = Scope::pull("a").with(Some("repository:a:pull,push repository:b:pull"));
        assert_eq!(scope.0, ["repository:a:pull,push", "repository:b:pull"]);
        assert_eq!(Scope::push("a").with(Some("repository:a:pull")), Scope::push("a"));
        assert_eq!(Scope::mount("b", "a").0, ["repository:a:pull", "repository:b:pull,push"]);
    }
}
