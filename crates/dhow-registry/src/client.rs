use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use crate::auth::{Auth, Scope};
use crate::endpoint::Endpoint;
use crate::error::Subject;
use crate::retry::persist;
use crate::transport::{Exchange, Failure, Payload, Reply, SendError, Transport, lock};
use crate::url::Url;
use crate::{Config, Keychain, RegistryError, Scheme, Secret};

/// A client of all registries.
///
/// It may be shared by any number of threads, and cloned: clones share connections, tokens, and what has been
/// learned about servers.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    transport: Transport,
    auth: Auth,
    /// What servers speak that may speak either, by authority.
    schemes: Mutex<HashMap<String, Scheme>>,
    /// Mirrors that did not answer; they are not waited for a second time.
    down: Mutex<HashSet<String>>,
}

/// A request to one endpoint, small enough to be sent again.
pub(crate) struct Ask<'a> {
    pub(crate) method: &'static str,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) bytes: Option<&'a [u8]>,
    pub(crate) scope: Scope,
}

impl<'a> Ask<'a> {
    pub(crate) fn new(method: &'static str, target: String, scope: Scope) -> Ask<'a> {
        Ask { method, target, headers: Vec::new(), bytes: None, scope }
    }

    pub(crate) fn get(target: String, scope: Scope) -> Ask<'a> {
        Ask::new("GET", target, scope)
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Ask<'a> {
        self.headers.push((name, value.into()));
        self
    }
}

impl Client {
    /// A client that knows what `config` says and may use the credentials in `keychain`.
    pub fn new(config: Config, keychain: Keychain) -> Client {
        let (schemes, down) = Default::default();
        let shared = Shared { transport: Transport::new(config), auth: Auth::new(keychain), schemes, down };
        Client { shared: Arc::new(shared) }
    }

    pub(crate) fn config(&self) -> &Config {
        self.shared.transport.config()
    }

    pub(crate) fn transport(&self) -> &Transport {
        &self.shared.transport
    }

    pub(crate) fn auth(&self) -> &Auth {
        &self.shared.auth
    }

    /// Tries the mirrors of a registry and then the registry itself, whose error is the one that counts.
    pub(crate) fn first_of<T>(
        &self,
        registry: &str,
        attempt: impl Fn(&Endpoint) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let mut endpoints = self.config().endpoints(registry);
        let main = endpoints.pop().expect("the registry itself is always among its endpoints");
        for mirror in endpoints {
            if lock(&self.shared.down).contains(&mirror.authority) {
                continue;
            }
            match attempt(&mirror) {
                Ok(value) => return Ok(value),
                Err(error) => {
                    tracing::warn!(%mirror, %error, "mirror did not help");
                    if error.is_unreachable() {
                        lock(&self.shared.down).insert(mirror.authority);
                    }
                }
            }
        }
        attempt(&main)
    }

    /// Sends a request until it is answered for good: with credentials if they are wanted, and again if the
    /// failure may pass. Any status may come back except those that may pass and did.
    pub(crate) fn ask(
        &self,
        endpoint: &Endpoint,
        ask: &Ask<'_>,
        subject: &Subject,
    ) -> Result<Reply, RegistryError> {
        persist(&self.config().retry, subject, || self.ask_once(endpoint, ask, subject))
    }

    /// Sends a request; twice if the first answer is a challenge, but never a third time.
    pub(crate) fn ask_once(
        &self,
        endpoint: &Endpoint,
        ask: &Ask<'_>,
        subject: &Subject,
    ) -> Result<Reply, SendError> {
        let auth = &self.shared.auth;
        let authorization = auth.authorization(self.transport(), endpoint, &ask.scope, subject)?;
        let mut reply = self.send(endpoint, ask, authorization.as_ref())?;
        if reply.status == 401 && auth.learn(endpoint, &reply, &ask.scope, authorization.as_ref()) {
            reply.drain();
            let authorization = auth.authorization(self.transport(), endpoint, &ask.scope, subject)?;
            reply = self.send(endpoint, ask, authorization.as_ref())?;
        }
        // A refusal for want of credentials is better explained by why there are none.
        match reply.status {
            401 | 403 => {
                auth.take_failure(endpoint).map_or(Ok(reply), |error| Err(SendError::Setup(error.into())))
            }
            _ => Ok(reply),
        }
    }

    /// Sends a request once, by the scheme the endpoint speaks.
    pub(crate) fn send(
        &self,
        endpoint: &Endpoint,
        ask: &Ask<'_>,
        authorization: Option<&Secret>,
    ) -> Result<Reply, SendError> {
        let known = endpoint.scheme.or_else(|| lock(&self.shared.schemes).get(&endpoint.authority).copied());
        match known {
            Some(scheme) => self.send_by(scheme, endpoint, ask, authorization),
            None => self.send_by_either(endpoint, ask, authorization),
        }
    }

    /// Plain HTTP goes first: where both are allowed it is what is usually spoken, and a TLS server says no
    /// to it at once.
    fn send_by_either(
        &self,
        endpoint: &Endpoint,
        ask: &Ask<'_>,
        authorization: Option<&Secret>,
    ) -> Result<Reply, SendError> {
        let plain = self.send_by(Scheme::Http, endpoint, ask, authorization);
        let (scheme, outcome) = match plain {
            Ok(reply) if !is_tls_hint(&reply) => (Scheme::Http, Ok(reply)),
            Err(SendError::Failure(failure)) if !failure.is_passing() => {
                return Err(SendError::Failure(failure));
            }
            plain => match self.send_by(Scheme::Https, endpoint, ask, authorization) {
                Ok(reply) => (Scheme::Https, Ok(reply)),
                Err(_) => return plain,
            },
        };
        lock(&self.shared.schemes).insert(endpoint.authority.clone(), scheme);
        outcome
    }

    fn send_by(
        &self,
        scheme: Scheme,
        endpoint: &Endpoint,
        ask: &Ask<'_>,
        authorization: Option<&Secret>,
    ) -> Result<Reply, SendError> {
        let url = endpoint
            .url(scheme, &ask.target)
            .map_err(|error| SendError::Failure(Failure::protocol(&endpoint.authority, error)))?;
        let payload = ask.bytes.map_or(Payload::None, Payload::Bytes);
        let exchange = Exchange { method: ask.method, url, headers: &ask.headers, authorization, payload };
        self.transport().send(endpoint, exchange)
    }

    /// The authorization to go to `url`, which `endpoint` named when it was reached at `home`.
    pub(crate) fn authorization_for(
        &self,
        url: &Url,
        home: &Url,
        endpoint: &Endpoint,
        scope: &Scope,
        subject: &Subject,
    ) -> Result<Option<Secret>, RegistryError> {
        if !url.same_origin(home) {
            return Ok(None);
        }
        self.shared.auth.authorization(self.transport(), endpoint, scope, subject)
    }

    /// Follows the `Location` of a reply.
    pub(crate) fn location(&self, reply: &Reply, subject: &Subject) -> Result<Url, RegistryError> {
        let failed = |failure: Failure| subject.failed(failure);
        match reply.header("location") {
            Some(location) => self.transport().follow(&reply.url, location).map_err(failed),
            None => Err(subject.bad_reply("the registry did not say where to upload to")),
        }
    }
}

/// Whether the answer is that of a TLS server that was spoken to in the clear.
fn is_tls_hint(reply: &Reply) -> bool {
    let is_api = reply.header("docker-distribution-api-version").is_some();
    let is_json = reply.header("content-type").is_some_and(|kind| kind.contains("json"));
    reply.status == 400 && !is_api && !is_json
}
