//! One HTTP exchange: TLS, proxies, redirects, time limits. No authentication, no second try.

use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ureq::http::{HeaderMap, Request, Response};
use ureq::tls::Certificate;
use ureq::{Agent, Body, Proxy, SendBody, Timeout};

use crate::endpoint::Endpoint;
use crate::error::{Subject, clean};
use crate::url::Url;
use crate::{Config, RegistryError, Scheme, Secret, tls};

const REDIRECTS_MAX: usize = 5;
/// What is read of an answer nobody wants, so that its connection can serve again.
const DRAIN_BYTES_MAX: u64 = 64 << 10;
const USER_AGENT: &str = concat!("dhow/", env!("CARGO_PKG_VERSION"));
/// Enough for every transfer the engine runs at once.
const IDLE_CONNECTIONS_MAX: usize = 16;

/// A request as it goes out.
pub(crate) struct Exchange<'a> {
    pub(crate) method: &'static str,
    pub(crate) url: Url,
    pub(crate) headers: &'a [(&'static str, String)],
    /// The value of the `Authorization` header; never sent to another origin than that of `url`.
    pub(crate) authorization: Option<&'a Secret>,
    pub(crate) payload: Payload<'a>,
}

/// The body of a request.
pub(crate) enum Payload<'a> {
    None,
    Bytes(&'a [u8]),
    /// Exactly `size` bytes, or the exchange fails.
    Stream {
        reader: &'a mut dyn Read,
        size: u64,
    },
}

/// The head of an answer, with its body still on the wire.
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Who answered, after redirects.
    pub(crate) url: Url,
    headers: HeaderMap,
    body: Body,
    deadline: Instant,
}

/// Why an exchange brought no answer.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    pub(crate) host: String,
    pub(crate) why: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// There was no connection.
    Unreachable,
    /// There was one, with nobody we trust at its end.
    Tls,
    /// It broke; another may not.
    Broken,
    /// What came is not HTTP as we know it; it will not be better next time.
    Protocol,
}

pub(crate) struct Transport {
    config: Config,
    agents: Mutex<HashMap<AgentKey, Agent>>,
    /// Read when the first TLS connection is made.
    roots: Mutex<Option<Vec<Certificate<'static>>>>,
}

/// Connections are shared by requests that agree on all of this.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct AgentKey {
    table: String,
    scheme: Scheme,
    authority: String,
    proxy: Option<String>,
}

/// Why [`Transport::send`] failed: on the network, or before it.
pub(crate) enum SendError {
    Failure(Failure),
    Setup(RegistryError),
}

impl From<RegistryError> for SendError {
    fn from(error: RegistryError) -> SendError {
        SendError::Setup(error)
    }
}

impl SendError {
    pub(crate) fn about(self, subject: &Subject) -> RegistryError {
        match self {
            SendError::Failure(failure) => subject.failed(failure),
            SendError::Setup(error) => error,
        }
    }
}

impl Transport {
    pub(crate) fn new(config: Config) -> Transport {
        Transport { config, agents: Mutex::default(), roots: Mutex::default() }
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Sends a request on behalf of `endpoint` and follows redirects of GET and HEAD.
    pub(crate) fn send(&self, endpoint: &Endpoint, mut exchange: Exchange<'_>) -> Result<Reply, SendError> {
        let may_follow = matches!(exchange.method, "GET" | "HEAD");
        for _ in 0..REDIRECTS_MAX {
            let url = exchange.url.clone();
            let mut reply = self.send_one(endpoint, &mut exchange)?;
            let location = match (reply.status, reply.header("location")) {
                (301 | 302 | 303 | 307 | 308, Some(location)) if may_follow => location,
                _ => return Ok(reply),
            };
            exchange.url = self.follow(&url, location).map_err(SendError::Failure)?;
            if !exchange.url.same_origin(&url) {
                exchange.authorization = None;
            }
            reply.drain();
        }
        let why = format!("more than {REDIRECTS_MAX} redirects");
        Err(SendError::Failure(Failure::protocol(exchange.url.authority(), why)))
    }

    /// The URL a server sends us to, unless it would take us from HTTPS to plain HTTP. Only a server behind
    /// a proxy that does its TLS may say `http` of itself: it does not know better.
    pub(crate) fn follow(&self, from: &Url, location: &str) -> Result<Url, Failure> {
        let url = from
            .join(location)
            .map_err(|error| Failure::protocol(from.authority(), format!("redirect: {error}")))?;
        let url = url.secured_like(from);
        if from.scheme() == Scheme::Https && !self.config.allows_plain(&url) {
            return Err(Failure::protocol(from.authority(), format!("redirects from HTTPS to {url}")));
        }
        Ok(url)
    }

    fn send_one(&self, endpoint: &Endpoint, exchange: &mut Exchange<'_>) -> Result<Reply, SendError> {
        let agent = self.agent(endpoint, &exchange.url)?;
        let mut request = Request::builder().method(exchange.method).uri(exchange.url.for_wire());
        for (name, value) in exchange.headers {
            request = request.header(*name, value);
        }
        if let Some(authorization) = exchange.authorization {
            request = request.header("authorization", authorization.expose());
        }
        let outcome = match &mut exchange.payload {
            Payload::None => request.body(()).map_err(Into::into).and_then(|request| agent.run(request)),
            Payload::Bytes(bytes) => {
                request.body(*bytes).map_err(Into::into).and_then(|request| agent.run(request))
            }
            Payload::Stream { reader, size } => {
                let body = SendBody::from_reader(*reader);
                let request = request.header("content-length", size.to_string()).body(body);
                request.map_err(Into::into).and_then(|request| agent.run(self.patient(&agent, request)))
            }
        };
        outcome
            .map(|response| Reply::new(exchange.url.clone(), response, self.config.timeouts.small))
            .map_err(|error| SendError::Failure(Failure::new(&exchange.url, error)))
    }

    /// After a large body the registry may need long to answer.
    fn patient<'a>(&self, agent: &Agent, request: Request<SendBody<'a>>) -> Request<SendBody<'a>> {
        let commit = Some(self.config.timeouts.commit);
        agent.configure_request(request).timeout_per_read(commit).timeout_recv_response(commit).build()
    }

    fn agent(&self, endpoint: &Endpoint, url: &Url) -> Result<Agent, RegistryError> {
        let authority = url.authority();
        let has_own_table = self.config.registries.contains_key(authority);
        let key = AgentKey {
            table: if has_own_table { authority.to_owned() } else { endpoint.table.clone() },
            scheme: url.scheme(),
            authority: authority.to_owned(),
            proxy: self.config.proxy.choose(url).map(str::to_owned),
        };
        let mut agents = lock(&self.agents);
        if let Some(agent) = agents.get(&key) {
            return Ok(agent.clone());
        }
        // A client certificate is for the registry it was configured for, not for where it redirects to.
        let is_at_home = has_own_table || authority == endpoint.authority;
        let agent = self.new_agent(&key, is_at_home)?;
        agents.insert(key, agent.clone());
        Ok(agent)
    }

    fn new_agent(&self, key: &AgentKey, is_at_home: bool) -> Result<Agent, RegistryError> {
        let timeouts = &self.config.timeouts;
        let proxy = key.proxy.as_deref().map(proxy).transpose()?;
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(USER_AGENT)
            .proxy(proxy)
            .max_idle_connections(IDLE_CONNECTIONS_MAX)
            .max_idle_connections_per_host(IDLE_CONNECTIONS_MAX)
            .timeout_resolve(Some(timeouts.connect))
            .timeout_connect(Some(timeouts.connect))
            .timeout_per_read(Some(timeouts.silence))
            .timeout_per_write(Some(timeouts.silence))
            .timeout_recv_response(Some(timeouts.small));
        // Reading a hundred authorities takes milliseconds that plain HTTP need not spend.
        if key.scheme == Scheme::Https {
            let mut roots = lock(&self.roots);
            let common = match &mut *roots {
                Some(common) => common,
                empty => empty.insert(tls::common_roots(&self.config.extra_ca)?),
            };
            let tls = tls::settings(&self.config, &key.table, &key.authority, common, is_at_home)?;
            config = config.tls_config(tls);
        }
        Ok(config.build().new_agent())
    }
}

fn proxy(text: &str) -> Result<Proxy, RegistryError> {
    // The value is not repeated, as it may hold a password.
    let why = "the proxy URL is malformed or of a kind that is not supported".to_owned();
    Proxy::new(text).map_err(|_| RegistryError::Proxy { why })
}

/// A panic elsewhere leaves these maps whole: they are only inserted into.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Reply {
    fn new(url: Url, response: Response<Body>, small: Duration) -> Reply {
        let (parts, body) = response.into_parts();
        let deadline = Instant::now() + small;
        Reply { status: parts.status.as_u16(), url, headers: parts.headers, body, deadline }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(crate) fn headers(&self, name: &str) -> impl Iterator<Item = &str> {
        self.headers.get_all(name).iter().filter_map(|value| value.to_str().ok())
    }

    pub(crate) fn content_length(&self) -> Option<u64> {
        self.header("content-length")?.trim().parse().ok()
    }

    /// The status with its usual words.
    pub(crate) fn status_text(&self) -> String {
        match ureq::http::StatusCode::from_u16(self.status).ok().and_then(|status| status.canonical_reason())
        {
            Some(reason) => reason.to_lowercase(),
            None => "no reason given".to_owned(),
        }
    }

    /// The body of a small answer; `None` if it is larger than `limit`.
    pub(crate) fn small(&mut self, limit: u64) -> Result<Option<Vec<u8>>, Failure> {
        if self.content_length().is_some_and(|length| length > limit) {
            return Ok(None);
        }
        let bytes = self.bytes(limit + 1)?;
        Ok((bytes.len() as u64 <= limit).then_some(bytes))
    }

    /// At most `limit` bytes of the body.
    pub(crate) fn bytes(&mut self, limit: u64) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        let mut piece = [0; 8 << 10];
        let mut reader = self.body.with_config().limit(u64::MAX).reader().take(limit);
        loop {
            match reader.read(&mut piece) {
                Ok(0) => return Ok(bytes),
                Ok(_) if Instant::now() > self.deadline => {
                    return Err(Failure::broken(&self.url, "the answer takes too long"));
                }
                Ok(count) => bytes.extend_from_slice(&piece[..count]),
                Err(error) => return Err(Failure::new(&self.url, error.into())),
            }
        }
    }

    pub(crate) fn drain(&mut self) {
        // A connection that cannot be drained is merely not used again.
        let _ = self.bytes(DRAIN_BYTES_MAX);
    }

    pub(crate) fn into_reader(self) -> impl Read + Send + 'static {
        self.body.into_with_config().limit(u64::MAX).reader()
    }
}

impl Failure {
    fn new(url: &Url, error: ureq::Error) -> Failure {
        let (kind, why) = classify(&error);
        Failure { kind, host: url.authority().to_owned(), why: clean(&why) }
    }

    pub(crate) fn protocol(host: &str, why: impl ToString) -> Failure {
        Failure { kind: FailureKind::Protocol, host: host.to_owned(), why: why.to_string() }
    }

    /// Whether another try may fare better.
    pub(crate) fn is_passing(&self) -> bool {
        self.kind == FailureKind::Broken
    }

    pub(crate) fn broken(url: &Url, why: &str) -> Failure {
        Failure { kind: FailureKind::Broken, host: url.authority().to_owned(), why: why.to_owned() }
    }
}

fn classify(error: &ureq::Error) -> (FailureKind, String) {
    use FailureKind::{Broken, Protocol, Tls, Unreachable};
    match error {
        ureq::Error::Io(error) => classify_io(error),
        ureq::Error::HostNotFound => (Unreachable, "no such host".into()),
        ureq::Error::Timeout(Timeout::Resolve | Timeout::Connect) => {
            (Unreachable, "no answer in time while connecting".into())
        }
        ureq::Error::Timeout(_) => (Broken, "no answer in time".into()),
        ureq::Error::ConnectionFailed => (Unreachable, "connection failed".into()),
        ureq::Error::ConnectProxyFailed(why) => (Unreachable, format!("proxy: {why}")),
        ureq::Error::Rustls(error) => classify_tls(error),
        ureq::Error::Tls(why) => (Tls, (*why).to_owned()),
        ureq::Error::Protocol(error) => (Broken, format!("malformed answer: {error}")),
        ureq::Error::LargeResponseHeader(_, limit) => {
            (Protocol, format!("response header is larger than the limit of {limit} bytes"))
        }
        // BadUri prints the URL with its query.
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => (Protocol, "malformed URL or header".into()),
        other => (Protocol, other.to_string()),
    }
}

/// What to say of a body that could not be read to its end.
pub(crate) fn read_error_text(error: io::Error) -> String {
    classify(&error.into()).1
}

fn classify_io(error: &io::Error) -> (FailureKind, String) {
    use io::ErrorKind as Io;
    if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return classify_tls(tls);
    }
    let words = match error.kind() {
        Io::ConnectionRefused => "connection refused",
        Io::HostUnreachable => "host is unreachable",
        Io::NetworkUnreachable => "network is unreachable",
        Io::AddrNotAvailable => "address is not available",
        Io::UnexpectedEof => "connection closed before the end",
        Io::ConnectionReset | Io::BrokenPipe | Io::ConnectionAborted => "connection reset",
        Io::TimedOut | Io::WouldBlock => "no answer in time",
        _ => return (FailureKind::Broken, error.to_string()),
    };
    let no_connection = matches!(
        error.kind(),
        Io::ConnectionRefused | Io::HostUnreachable | Io::NetworkUnreachable | Io::AddrNotAvailable
    );
    let kind = if no_connection { FailureKind::Unreachable } else { FailureKind::Broken };
    (kind, words.to_owned())
}

fn classify_tls(error: &rustls::Error) -> (FailureKind, String) {
    let why = match error {
        rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer) => {
            "certificate is signed by an unknown authority".to_owned()
        }
        rustls::Error::InvalidMessage(_) => "the server does not speak HTTPS".to_owned(),
        other => other.to_string(),
    };
    (FailureKind::Tls, why)
}
