//! Sockets, connections and limits.

use std::convert::Infallible;
use std::fs;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dhow_engine::Engine;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, UPGRADE};
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};

use super::body::{BodyReader, Out};
use super::error::{ApiError, chain};
use super::exchange::{Call, Reply};
use super::pending::Pending;
use super::query::Query;
use super::route::{self, Route};
use super::{API_VERSION, API_VERSION_MIN};

/// Connections there may be at once. Each may wait for a container for days.
const CONNECTIONS_MAX: usize = 4096;
/// Threads for endpoints, each of which may wait as long.
const THREADS_MAX: usize = 4096;
/// The largest head of a request.
const HEAD_BYTES_MAX: usize = 128 << 10;
/// How long a client may take for the head of a request.
const HEAD_PATIENCE: Duration = Duration::from_secs(60);
/// How long what is under way may take when the server is told to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// Waits after a failed accept: there are too many open files, and another try at once would fail as well.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Who may use the socket: its owner and its group.
const SOCKET_MODE: u32 = 0o660;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// At a path.
    Unix(PathBuf),
    /// On an address, for everybody who reaches it.
    Tcp(SocketAddr),
}

/// Why a text is no place to listen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid address {0:?}: expected unix://PATH or tcp://ADDRESS:PORT")]
pub struct ListenError(String);

impl std::str::FromStr for Listen {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Self, ListenError> {
        let invalid = || ListenError(text.to_owned());
        if let Some(path) = text.strip_prefix("unix://").filter(|path| path.starts_with('/')) {
            return Ok(Self::Unix(path.into()));
        }
        let address = text.strip_prefix("tcp://").ok_or_else(invalid)?;
        address.parse().map(Self::Tcp).map_err(|_| invalid())
    }
}

/// What a server is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen.
    pub listen: Vec<Listen>,
    /// Sockets that somebody else has opened.
    pub inherited: Vec<Arc<OwnedFd>>,
    /// The group that may use the sockets beside their owner.
    pub group: Option<u32>,
    /// What the server calls its version.
    pub version: &'static str,
}

/// What happens while a server runs.
#[derive(Clone, Debug)]
pub enum Notice {
    /// It listens there.
    Listening(String),
    /// Something of ours failed.
    Failure(String),
    /// It was told to stop, and finishes what is under way.
    Stopping,
}

/// Why a server does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A socket.
    #[error("cannot listen on {place}")]
    Listen {
        /// Where.
        place: String,
        /// Why.
        source: io::Error,
    },
    /// Somebody answers there.
    #[error("something listens on {} already", .0.display())]
    InUse(PathBuf),
    /// The machine.
    #[error("cannot start")]
    Start(#[from] io::Error),
}

/// A server, ready to run.
pub struct Server {
    config: Config,
    engine: Arc<Engine>,
    tell: Arc<dyn Fn(Notice) + Send + Sync>,
}

impl Server {
    /// Takes what to serve and whom to tell what happens.
    pub fn new(config: Config, engine: Engine, tell: impl Fn(Notice) + Send + Sync + 'static) -> Self {
        Self { config, engine: Arc::new(engine), tell: Arc::new(tell) }
    }

    /// Serves until SIGTERM or SIGINT, and then finishes what is under way.
    pub fn run(self) -> Result<(), ServeError> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.enable_all().max_blocking_threads(THREADS_MAX).build()?;
        let result = runtime.block_on(self.serve(stop_signal()));
        // Threads that wait for containers end with the process.
        runtime.shutdown_background();
        result
    }

    async fn serve(self, stop: impl Future<Output = ()>) -> Result<(), ServeError> {
        let Server { config, engine, tell } = self;
        let front = Arc::new(Front {
            engine,
            pending: Arc::default(),
            version: config.version,
            room: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            tell: Arc::clone(&tell),
        });
        let (stopping, stopped) = watch::channel(false);
        let mut tasks = tokio::task::JoinSet::new();
        let mut made = Vec::new();
        for listen in &config.listen {
            let (socket, place) = match listen {
                Listen::Unix(path) => {
                    made.push(Made(path.clone()));
                    (Socket::Unix(bind(path, config.group)?), format!("unix://{}", path.display()))
                }
                Listen::Tcp(address) => {
                    let failed = |source| ServeError::Listen { place: format!("tcp://{address}"), source };
                    let listener = TcpListener::bind(address).await.map_err(failed)?;
                    let place = format!("tcp://{}", listener.local_addr().map_err(failed)?);
                    (Socket::Tcp(listener), place)
                }
            };
            tell(Notice::Listening(place));
            tasks.spawn(Arc::clone(&front).accept(socket, stopped.clone()));
        }
        for fd in &config.inherited {
            let listener = std::os::unix::net::UnixListener::from(fd.try_clone()?);
            listener.set_nonblocking(true)?;
            tell(Notice::Listening("a socket that was handed over".to_owned()));
            let socket = Socket::Unix(UnixListener::from_std(listener)?);
            tasks.spawn(Arc::clone(&front).accept(socket, stopped.clone()));
        }
        stop.await;
        tell(Notice::Stopping);
        // Nobody listens when there is no task any more, and then there is nothing to stop.
        let _ = stopping.send(true);
        while tasks.join_next().await.is_some() {}
        Ok(())
    }
}

/// A socket of ours, which goes when the server does.
struct Made(PathBuf);

impl Drop for Made {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Makes a socket. One that a killed server left is replaced.
fn bind(path: &Path, group: Option<u32>) -> Result<UnixListener, ServeError> {
    let failed = |source| ServeError::Listen { place: format!("unix://{}", path.display()), source };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    if path.exists() {
        if StdUnixStream::connect(path).is_ok() {
            return Err(ServeError::InUse(path.to_owned()));
        }
        fs::remove_file(path).map_err(failed)?;
    }
    // Nobody gets in before mode and group are right.
    let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(path);
    rustix::process::umask(mask);
    let listener = listener.map_err(failed)?;
    std::os::unix::fs::chown(path, None, group).map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE)).map_err(failed)?;
    Ok(listener)
}

async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

enum Socket {
    Unix(UnixListener),
    Tcp(TcpListener),
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Socket {
    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Socket::Unix(listener) => Box::new(listener.accept().await?.0),
            Socket::Tcp(listener) => {
                let stream = listener.accept().await?.0;
                // Answers are small, and somebody waits for them.
                let _ = stream.set_nodelay(true);
                Box::new(stream)
            }
        })
    }
}

/// What stands between the sockets and the endpoints.
struct Front {
    engine: Arc<Engine>,
    pending: Arc<Pending>,
    version: &'static str,
    /// A permit for each connection there may be.
    room: Arc<Semaphore>,
    tell: Arc<dyn Fn(Notice) + Send + Sync>,
}

impl Front {
    async fn accept(self: Arc<Self>, socket: Socket, mut stopped: watch::Receiver<bool>) {
        let graceful = GracefulShutdown::new();
        loop {
            let permit = tokio::select! {
                permit = Arc::clone(&self.room).acquire_owned() => permit.expect("it is never closed"),
                _ = stopped.changed() => break,
            };
            let accepted = tokio::select! {
                accepted = socket.accept() => accepted,
                _ = stopped.changed() => break,
            };
            match accepted {
                Ok(stream) => {
                    let (front, watcher) = (Arc::clone(&self), graceful.watcher());
                    tokio::spawn(async move {
                        front.talk(stream, watcher).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    (self.tell)(Notice::Failure(format!("cannot accept a connection: {error}")));
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(socket);
        // What takes longer, such as a log that is followed, is cut off with the process.
        let _ = tokio::time::timeout(STOP_PATIENCE, graceful.shutdown()).await;
    }

    /// A connection that fails is its client's trouble, who is told by its failing.
    async fn talk(self: Arc<Self>, stream: Box<dyn Stream>, watcher: Watcher) {
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_PATIENCE)
            .max_buf_size(HEAD_BYTES_MAX)
            // Clients that attach close their side when their input ends, and still read.
            .half_close(true)
            .http2()
            .timer(TokioTimer::new())
            .max_header_list_size(HEAD_BYTES_MAX as u32);
        let service = service_fn(move |request| {
            let front = Arc::clone(&self);
            async move { Ok::<_, Infallible>(front.answer(request).await) }
        });
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
        let _ = watcher.watch(connection).await;
    }

    async fn answer(&self, mut request: Request<Incoming>) -> Response<Body> {
        let wants_upgrade = request.headers().contains_key(UPGRADE);
        let upgrade = wants_upgrade.then(|| hyper::upgrade::on(&mut request));
        let is_head = request.method() == Method::HEAD;
        let reply = match find(request.method(), request.uri().path()) {
            Ok((route, name)) => self.call(route, name, request).await,
            Err(error) => Err(error),
        };
        let mut response = match reply {
            Ok(reply) => response(reply, upgrade),
            Err(error) => refusal(&error),
        };
        let headers = response.headers_mut();
        let version = format!("{}.{}", API_VERSION.0, API_VERSION.1);
        put(headers, "api-version", &version);
        put(headers, "docker-experimental", "false");
        put(headers, "ostype", "linux");
        put(headers, "server", &format!("dhow/{} (linux)", self.version));
        match is_head {
            true => response.map(|_| empty()),
            false => response,
        }
    }

    async fn call(
        &self,
        route: &'static Route,
        name: String,
        request: Request<Incoming>,
    ) -> Result<Reply, ApiError> {
        let (parts, body) = request.into_parts();
        let call = Call {
            engine: Arc::clone(&self.engine),
            pending: Arc::clone(&self.pending),
            version: self.version,
            name,
            query: Query::parse(parts.uri.query().unwrap_or_default()),
            headers: parts.headers,
            body: BodyReader::of(body),
        };
        let task = tokio::task::spawn_blocking(move || (route.handler)(call));
        match task.await {
            Ok(reply) => reply,
            Err(_) => {
                (self.tell)(Notice::Failure(format!("{} {} panicked", route.method, route.path)));
                Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "dhow failed; please report it"))
            }
        }
    }
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

fn empty() -> Body {
    Empty::new().boxed_unsync()
}

fn put(headers: &mut hyper::HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(HeaderName::from_static(name), value);
    }
}

/// The route of a path, with or without a version before it, and what stands in its gap.
fn find(method: &Method, path: &str) -> Result<(&'static Route, String), ApiError> {
    let path = match version_of(path) {
        Some((asked, rest)) => {
            check_version(asked)?;
            rest
        }
        None => path,
    };
    let lost = || ApiError::not_found("page not found");
    let mut is_path = false;
    for route in route::ROUTES {
        if let Some(name) = route.matches(path) {
            is_path = true;
            if route.method == method || (route.method == "GET" && method == Method::HEAD) {
                return Ok((route, super::query::decode(name).ok_or_else(lost)?));
            }
        }
    }
    match is_path {
        true => Err(ApiError::new(StatusCode::METHOD_NOT_ALLOWED, format!("{method} is not for {path}"))),
        false => Err(lost()),
    }
}

/// `/v1.41/info` is 1.41 and `/info`.
fn version_of(path: &str) -> Option<((u32, u32), &str)> {
    let (version, _) = path.strip_prefix("/v")?.split_once('/')?;
    let (major, minor) = version.split_once('.')?;
    let rest = &path["/v".len() + version.len()..];
    Some(((major.parse().ok()?, minor.parse().ok()?), rest))
}

fn check_version(asked: (u32, u32)) -> Result<(), ApiError> {
    let text = |(major, minor): (u32, u32)| format!("{major}.{minor}");
    if asked > API_VERSION {
        return Err(ApiError::bad(format!(
            "client version {} is too new. Maximum supported API version is {}",
            text(asked),
            text(API_VERSION)
        )));
    }
    if asked < API_VERSION_MIN {
        return Err(ApiError::bad(format!(
            "client version {} is too old. Minimum supported API version is {}, please upgrade your client to a newer \
             version",
            text(asked),
            text(API_VERSION_MIN)
        )));
    }
    Ok(())
}

fn refusal(error: &ApiError) -> Response<Body> {
    json(error.status, &serde_json::json!({ "message": error.message }))
}

fn json(status: StatusCode, value: &serde_json::Value) -> Response<Body> {
    let mut text = value.to_string();
    text.push('\n');
    typed(status, "application/json", Full::from(text).boxed_unsync())
}

fn typed(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn response(reply: Reply, upgrade: Option<OnUpgrade>) -> Response<Body> {
    match reply {
        Reply::Json(status, value) => json(status, &value),
        Reply::Empty(status) => {
            let mut response = Response::new(empty());
            *response.status_mut() = status;
            response
        }
        Reply::Stream { content_type, headers, write } => {
            let (mut out, body) = Out::new();
            tokio::task::spawn_blocking(move || write(&mut out));
            let mut response = typed(StatusCode::OK, content_type, body.boxed_unsync());
            headers.iter().for_each(|(name, value)| put(response.headers_mut(), name, value));
            response
        }
        Reply::Hijack { content_type, talk } => hijack(content_type, talk, upgrade),
    }
}

/// Hands the connection over, as it is if the client asked for that, or as a body that goes on.
fn hijack(
    content_type: &'static str,
    talk: Box<dyn FnOnce(StdUnixStream) + Send>,
    upgrade: Option<OnUpgrade>,
) -> Response<Body> {
    let failed = |error: &io::Error| {
        refusal(&ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("cannot make a stream: {}", chain(error)),
        ))
    };
    let (ours, theirs) = match StdUnixStream::pair() {
        Ok(pair) => pair,
        Err(error) => return failed(&error),
    };
    let theirs = match theirs.set_nonblocking(true).and_then(|()| UnixStream::from_std(theirs)) {
        Ok(theirs) => theirs,
        Err(error) => return failed(&error),
    };
    tokio::task::spawn_blocking(move || talk(ours));
    let Some(upgrade) = upgrade else {
        return typed(
            StatusCode::OK,
            content_type,
            http_body_util::StreamBody::new(Pieces(theirs)).boxed_unsync(),
        );
    };
    tokio::spawn(relay(upgrade, theirs));
    let mut response = typed(StatusCode::SWITCHING_PROTOCOLS, content_type, empty());
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static("tcp"));
    response
}

async fn relay(upgrade: OnUpgrade, mut ours: UnixStream) {
    if let Ok(upgraded) = upgrade.await {
        // Whoever goes first ends it; the other side sees its stream end.
        let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(upgraded), &mut ours).await;
    }
}

/// What comes out of a stream, as a body.
struct Pieces(UnixStream);

/// As much is read at once.
const PIECE_BYTES: usize = 32 << 10;

impl futures_util::Stream for Pieces {
    type Item = Result<hyper::body::Frame<Bytes>, Infallible>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        let mut bytes = vec![0; PIECE_BYTES];
        let mut buffer = tokio::io::ReadBuf::new(&mut bytes);
        let poll = std::pin::Pin::new(&mut self.0).poll_read(context, &mut buffer);
        let count = buffer.filled().len();
        poll.map(|result| {
            bytes.truncate(result.map_or(0, |()| count));
            (!bytes.is_empty()).then(|| Ok(hyper::body::Frame::data(Bytes::from(bytes))))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_stands_before_the_path() {
        assert_eq!(version_of("/v1.41/info"), Some(((1, 41), "/info")));
        assert_eq!(version_of("/volumes/v1.41/x"), None);
        assert_eq!(version_of("/info"), None);
        assert!(check_version((1, 24)).is_ok() && check_version(API_VERSION).is_ok());
        let error = check_version((1, 99)).unwrap_err();
        assert_eq!(error.message, "client version 1.99 is too new. Maximum supported API version is 1.47");
        assert!(check_version((1, 12)).unwrap_err().message.contains("is too old"));
    }

    #[test]
    fn a_place_to_listen_is_a_path_or_an_address() {
        assert_eq!("unix:///run/x".parse(), Ok(Listen::Unix("/run/x".into())));
        assert_eq!("tcp://127.0.0.1:1".parse(), Ok(Listen::Tcp(([127, 0, 0, 1], 1).into())));
        for wrong in ["", "unix://x", "/run/x", "tcp://localhost", "fd://"] {
            assert!(wrong.parse::<Listen>().is_err(), "{wrong}");
        }
    }
}
