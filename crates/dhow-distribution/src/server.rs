use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use crate::auth::{Auth, Htpasswd, HtpasswdError, Rules, Tokens};
use crate::config::{Config, ConfigError};
use crate::error::chain;
use crate::http::{self, App};
use crate::patience::Patient;
use crate::registry::{GcOptions, GcReport, Limits, Registry};
use crate::storage::{Bucket, Folder, Storage, StorageError};
use crate::tls::{self, TlsError};

/// Waits after a failed accept: there are too many open files, and another try at once would fail as well.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The largest head of a request, and as much of a body as is read at once.
const HEAD_BYTES_MAX: usize = 128 << 10;
/// Threads for work on files. Each is busy for as long as it takes to write or hash a megabyte.
const BLOCKING_THREADS_MAX: usize = 64;

/// What happens while a server runs.
#[derive(Clone, Debug)]
pub enum Event {
    /// It listens there.
    Listening(SocketAddr),
    /// It answered a request.
    Request(String),
    /// Something of ours failed.
    Failure(String),
    /// It collected garbage.
    Collected(GcReport),
    /// It was told to stop, and finishes what is under way.
    Stopping,
}

/// Who is told.
pub(crate) type Log = Arc<dyn Fn(Event) + Send + Sync>;

/// Why a server does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// It is told to do what it must not.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is no place to keep anything.
    #[error("say where the registry is kept: a folder, or a [bucket] in the configuration")]
    NoStorage,
    /// Its storage.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Its users.
    #[error(transparent)]
    Users(#[from] HtpasswdError),
    /// Its certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// An address.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The machine.
    #[error("cannot start")]
    Start(#[from] std::io::Error),
}

/// A registry server, ready to run.
pub struct Server {
    config: Config,
    log: Log,
}

impl Server {
    /// Takes the configuration and whom to tell what happens.
    pub fn new(config: Config, log: impl Fn(Event) + Send + Sync + 'static) -> Server {
        Server { config, log: Arc::new(log) }
    }

    /// Serves until SIGTERM or SIGINT, and then finishes what is under way.
    pub fn run(self) -> Result<(), ServeError> {
        self.config.check()?;
        runtime()?.block_on(self.serve(stop_signal()?))
    }

    /// Serves until `stop` is done.
    async fn serve(self, stop: impl Future<Output = ()>) -> Result<(), ServeError> {
        let Server { config, log } = self;
        let storage = open(&config).await?;
        let registry = registry(&config, Arc::clone(&storage));
        let auth = auth(&config, storage.as_ref()).await?;
        let tls = config.tls.as_ref().map(tls::server_config).transpose()?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let public_url = config.auth.as_ref().and_then(|auth| auth.public_url.clone());
        let app =
            Arc::new(App { registry: registry.clone(), auth, scheme, public_url, log: Arc::clone(&log) });
        let front = Arc::new(Front {
            router: http::router(app),
            tls,
            room: Arc::new(Semaphore::new(config.limits.connections)),
            patience: config.limits.patience,
            log: Arc::clone(&log),
        });
        let (stopping, stopped) = watch::channel(false);
        let mut tasks = tokio::task::JoinSet::new();
        for address in &config.listen {
            let failed = |source| ServeError::Listen { address: *address, source };
            let listener = TcpListener::bind(address).await.map_err(failed)?;
            log(Event::Listening(listener.local_addr().map_err(failed)?));
            tasks.spawn(Arc::clone(&front).accept(listener, stopped.clone(), config.limits.stop));
        }
        let collecting = tokio::spawn(collect_at_times(registry, config.gc.clone(), log.clone()));
        stop.await;
        log(Event::Stopping);
        collecting.abort();
        // Nobody listens when there is no task any more, and then there is nothing to stop.
        let _ = stopping.send(true);
        while tasks.join_next().await.is_some() {}
        Ok(())
    }
}

/// Collects garbage, by any process, whether servers run or not.
pub fn collect(config: &Config, options: &GcOptions) -> Result<GcReport, ServeError> {
    runtime()?.block_on(async {
        let storage = open(config).await?;
        Ok(registry(config, storage).gc(options).await?)
    })
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.enable_all().max_blocking_threads(BLOCKING_THREADS_MAX).build()
}

/// Takes the signals now, so that none that comes early is lost.
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    Ok(async {
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
    })
}

async fn open(config: &Config) -> Result<Arc<dyn Storage>, ServeError> {
    if let Some(options) = &config.bucket {
        return Ok(Arc::new(Bucket::open(options).await?));
    }
    let folder: &Path = config.folder.as_deref().ok_or(ServeError::NoStorage)?;
    Ok(Arc::new(Folder::open(folder)?))
}

fn registry(config: &Config, storage: Arc<dyn Storage>) -> Registry {
    let limits = Limits {
        manifest_bytes_max: config.limits.manifest_bytes,
        blob_bytes_max: config.limits.blob_bytes,
        patience: config.limits.patience,
    };
    Registry::new(storage, limits)
}

async fn auth(config: &Config, storage: &dyn Storage) -> Result<Auth, ServeError> {
    let Some(auth) = &config.auth else { return Ok(Auth::None) };
    let users = Arc::new(Htpasswd::open(&auth.users)?);
    let rules = Arc::new(Rules::new(config.rules().map_err(ConfigError::Refused)?));
    if !auth.tokens {
        return Ok(Auth::Basic { users, rules });
    }
    let tokens = Arc::new(Tokens::open(storage, &auth.service, auth.token_life).await?);
    Ok(Auth::Token { users, rules, tokens })
}

async fn collect_at_times(registry: Registry, config: crate::config::GcConfig, log: Log) {
    if config.every.is_zero() {
        return;
    }
    let options = GcOptions { grace: config.grace, upload_expiry: config.upload_expiry, dry_run: false };
    loop {
        tokio::time::sleep(config.every).await;
        log(match registry.gc(&options).await {
            Ok(report) => Event::Collected(report),
            Err(error) => Event::Failure(format!("gc: {}", chain(&error))),
        });
    }
}

/// What stands between the network and the router.
struct Front {
    router: Router,
    tls: Option<Arc<ServerConfig>>,
    /// A permit for each connection there may be.
    room: Arc<Semaphore>,
    patience: Duration,
    log: Log,
}

impl Front {
    async fn accept(
        self: Arc<Self>,
        listener: TcpListener,
        mut stopped: watch::Receiver<bool>,
        stop: Duration,
    ) {
        let graceful = GracefulShutdown::new();
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let permit = tokio::select! {
                permit = Arc::clone(&self.room).acquire_owned() => permit.expect("it is never closed"),
                _ = stopped.changed() => break,
            };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stopped.changed() => break,
            };
            // Those that ended.
            while connections.try_join_next().is_some() {}
            match accepted {
                Ok((stream, _)) => {
                    let (front, watcher) = (Arc::clone(&self), graceful.watcher());
                    connections.spawn(async move {
                        front.serve(stream, watcher).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    (self.log)(Event::Failure(format!("cannot accept a connection: {error}")));
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(listener);
        let finish = async {
            // Connections that wait for a request end at once, the others after their answer.
            graceful.shutdown().await;
            while connections.join_next().await.is_some() {}
        };
        // Those that take longer are cut off with the process; what they sent stays until it expires.
        let _ = tokio::time::timeout(stop, finish).await;
    }

    /// A connection that fails is its client's trouble, who is told by its failing.
    async fn serve(&self, stream: TcpStream, watcher: Watcher) {
        // Answers are small, and somebody waits for them.
        let _ = stream.set_nodelay(true);
        let stream = Patient::new(stream, self.patience);
        match &self.tls {
            None => self.talk(stream, watcher).await,
            Some(config) => {
                let handshake = TlsAcceptor::from(Arc::clone(config)).accept(stream);
                if let Ok(Ok(stream)) = tokio::time::timeout(self.patience, handshake).await {
                    self.talk(stream, watcher).await;
                }
            }
        }
    }

    async fn talk<T>(&self, stream: T, watcher: Watcher)
    where
        T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.patience)
            .max_buf_size(HEAD_BYTES_MAX)
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(self.patience)
            .keep_alive_timeout(self.patience)
            .max_header_list_size(HEAD_BYTES_MAX as u32);
        let service = TowerToHyperService::new(self.router.clone());
        let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        let _ = watcher.watch(connection).await;
    }
}
