//! Finding containers and telling how they are.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use dhow_image::Images;
use dhow_net::Attached;
use dhow_runtime::{Bundle, ExitStatus, Health, HealthStatus, RunDir, RuntimeState, Started};
use dhow_snapshot::SnapshotKey;
use dhow_store::{Record, RecordStore, ResolveError, Store};
use serde::de::DeserializeOwned;

use crate::error::{DiskError, FindError, disk};
use crate::freeze;
use crate::record::{Container, ContainerRecord, State};
use crate::volume::Volumes;

/// The kind of containers' records.
pub(crate) const KIND: &str = "container";

/// Most of what is read of a note in a container's folder.
const NOTE_BYTES_MAX: u64 = 1 << 20;
/// What a container is said to have exited with whose shim was killed: the kernel killed it too.
const EXIT_CODE_KILLED: i32 = 137;
/// The same of one that ran when the host went down.
const EXIT_CODE_HOST: i32 = 255;

/// The containers of a store.
///
/// A container is a record in the store, a snapshot, a folder below `containers/` and, while it runs, one below the
/// run-time folder. The record comes last when it is made and goes first when it is removed: what has no record is
/// not a container but rubbish, which [`sweep`](Self::sweep) removes.
///
/// Who starts or removes a container holds the lock in its folder; who only looks at it holds nothing.
#[derive(Clone, Debug)]
pub struct Containers {
    pub(crate) images: Images,
    pub(crate) run: PathBuf,
    pub(crate) clock: fn() -> jiff::Timestamp,
}

/// The lock in a container's folder.
pub(crate) const LOCK: &str = "lock";
/// Begins the names of folders of containers whose lock is not held yet.
pub(crate) const UNNAMED: &str = ".new-";

/// Where the run-time folders of containers are.
pub(crate) fn run_dirs(run: &Path) -> PathBuf {
    run.join("containers")
}

/// The process ids of the inits of all containers that run, of the host whose run-time state is in `run`.
pub fn running_inits(run: &Path) -> Vec<i32> {
    // Where nothing can be read, nothing runs.
    let entries = fs::read_dir(run_dirs(run)).into_iter().flatten().flatten();
    entries.filter_map(|entry| dhow_runtime::init_of(&RunDir::new(entry.path())).ok()?).collect()
}

impl Containers {
    /// The containers whose images are `images` and whose run-time state is in `run`.
    pub fn new(images: Images, run: &Path, clock: fn() -> jiff::Timestamp) -> Containers {
        Containers { images, run: run.to_path_buf(), clock }
    }

    /// The container a user means: by id, by name, or by the beginning of an id.
    pub fn find(&self, text: &str) -> Result<Container, FindError> {
        self.look_at(self.resolve(text)?)
    }

    /// All containers, the latest first.
    pub fn list(&self) -> Result<Vec<Container>, FindError> {
        let mut containers = Vec::new();
        for record in self.records().list()? {
            containers.push(self.look_at(record)?);
        }
        containers.sort_by(|a, b| b.record.created.cmp(&a.record.created));
        Ok(containers)
    }

    /// The folder of a container.
    pub fn bundle(&self, id: &str) -> Bundle {
        Bundle::new(self.containers_dir().join(id))
    }

    /// The run-time folder of a container.
    pub fn run_dir(&self, id: &str) -> RunDir {
        RunDir::new(run_dirs(&self.run).join(id))
    }

    /// The file a container's output is logged in.
    pub fn log_path(&self, id: &str) -> PathBuf {
        self.bundle(id).dir().join(format!("{id}-json.log"))
    }

    /// The folder with a volume's files.
    pub fn volume_path(&self, name: &str) -> PathBuf {
        Volumes::new(self.store()).data_dir(name)
    }

    pub(crate) fn store(&self) -> &Store {
        self.images.store()
    }

    pub(crate) fn records(&self) -> RecordStore<'_> {
        self.store().records(KIND)
    }

    pub(crate) fn containers_dir(&self) -> PathBuf {
        self.store().root().join("containers")
    }

    /// Where the shim writes down what the container got of the network.
    pub(crate) fn attached_path(&self, id: &str) -> PathBuf {
        self.run_dir(id).dir().join("network.json")
    }

    pub(crate) fn resolve(&self, text: &str) -> Result<Record, FindError> {
        // Docker shows names with a slash in places, and takes them so.
        let name = text.strip_prefix('/').unwrap_or(text);
        self.records().resolve(name).map_err(|error| match error {
            ResolveError::NotFound { .. } => FindError::NotFound(text.into()),
            ResolveError::Ambiguous { .. } => FindError::Ambiguous(text.into()),
            ResolveError::Database(error) => error.into(),
        })
    }

    /// The container of a record.
    pub(crate) fn look_at(&self, record: Record) -> Result<Container, FindError> {
        let Record { key: id, name, body } = record;
        let record: ContainerRecord =
            serde_json::from_str(&body).map_err(|source| FindError::Damaged { id: id.clone(), source })?;
        let state = self.state(&id)?;
        let attached = match state.is_running() {
            true => read_note::<Vec<Attached>>(&self.attached_path(&id))?.unwrap_or_default(),
            false => Vec::new(),
        };
        let (health, restart_count) = (self.health(&id, &record, &state)?, self.restart_count(&id)?);
        Ok(Container { name: name.unwrap_or_default(), record, state, attached, health, restart_count, id })
    }

    /// How a container is doing. If its shim was killed, what that left is cleaned up first.
    pub(crate) fn state(&self, id: &str) -> Result<State, DiskError> {
        match self.runtime_state(id)? {
            RuntimeState::Dead => self.settle(id),
            state => self.translate(id, state),
        }
    }

    pub(crate) fn runtime_state(&self, id: &str) -> Result<RuntimeState, DiskError> {
        let bundle = self.bundle(id);
        dhow_runtime::state(&self.run_dir(id), &bundle).map_err(disk("read the state in", bundle.dir()))
    }

    fn translate(&self, id: &str, state: RuntimeState) -> Result<State, DiskError> {
        Ok(match state {
            RuntimeState::Created => State::Created,
            RuntimeState::Starting => State::Starting,
            RuntimeState::Running { pid, started_at } => {
                State::Running { pid, started_at, paused: freeze::is_frozen(&self.bundle(id)) }
            }
            RuntimeState::Restarting(status) => {
                State::Restarting { status, started_at: self.started_at(id)? }
            }
            RuntimeState::Exited(status) => State::Exited { status, started_at: self.started_at(id)? },
            RuntimeState::Dead => State::Exited { status: self.killed(id), started_at: self.started_at(id)? },
        })
    }

    fn started_at(&self, id: &str) -> Result<Option<String>, DiskError> {
        Ok(read_note::<Started>(&self.bundle(id).started())?.map(|started| started.started_at))
    }

    /// The health of a container that is asked for it. Who does not run is not well.
    fn health(&self, id: &str, record: &ContainerRecord, state: &State) -> Result<Option<Health>, DiskError> {
        if crate::health::check(record).is_none() {
            return Ok(None);
        }
        let path = self.bundle(id);
        let health = dhow_runtime::health(&path).map_err(disk("read", &path.health()))?;
        Ok(health.map(|health| match state.is_running() {
            true => health,
            false => Health { status: HealthStatus::Unhealthy, ..health },
        }))
    }

    fn restart_count(&self, id: &str) -> Result<u32, DiskError> {
        let bundle = self.bundle(id);
        dhow_runtime::restart_count(&bundle).map_err(disk("read", &bundle.restarts()))
    }

    /// How a container ended whose shim is gone. With its run-time folder, the host has gone down.
    fn killed(&self, id: &str) -> ExitStatus {
        let (exit_code, error) = match self.run_dir(id).dir().exists() {
            true => (EXIT_CODE_KILLED, "the process that looked after the container was killed"),
            false => (EXIT_CODE_HOST, "the host went down while the container ran"),
        };
        let finished_at = (self.clock)().to_string();
        ExitStatus { exit_code, finished_at, oom_killed: false, error: Some(error.into()) }
    }

    /// Writes down that the shim is gone, and gives back what it held. Whoever is busy with the container, or was
    /// faster, does it instead.
    fn settle(&self, id: &str) -> Result<State, DiskError> {
        let Some(_lock) = self.try_lock(id)? else { return self.translate(id, RuntimeState::Dead) };
        match self.runtime_state(id)? {
            RuntimeState::Dead => {}
            state => return self.translate(id, state),
        }
        self.reconcile_networks();
        // Nobody is left who would tell of what still runs.
        freeze::remove_group(&self.bundle(id))
            .map_err(disk("remove the control group of", self.bundle(id).dir()))?;
        let (status, path) = (self.killed(id), self.bundle(id).exit());
        write_note(&path, &status)?;
        self.tell_end(id);
        Ok(State::Exited { status, started_at: self.started_at(id)? })
    }

    /// Takes back what dead shims had on the networks.
    pub(crate) fn reconcile_networks(&self) {
        // What cannot be looked up is kept.
        let is_known = |id: &str| self.network_records().get(id).map_or(true, |record| record.is_some());
        let root = self.store().root();
        let now = (self.clock)().into();
        // Otherwise the next container on the network does it.
        let _ = dhow_net::reconcile(&crate::network::networks_dir(&self.run), Some(root), &is_known, now);
    }

    fn lock_path(&self, id: &str) -> PathBuf {
        self.bundle(id).dir().join(LOCK)
    }

    /// Makes the folder of a container that is being made. It gets its name when its lock is held: one that has
    /// neither a lock that is held nor a record is rubbish.
    pub(crate) fn create_dir(&self, id: &str) -> Result<File, DiskError> {
        let unnamed = self.containers_dir().join(format!("{UNNAMED}{id}"));
        fs::create_dir_all(&unnamed).map_err(disk("create", &unnamed))?;
        let path = unnamed.join(LOCK);
        let file = File::create(&path).map_err(disk("create", &path))?;
        file.lock().map_err(disk("lock", &path))?;
        let bundle = self.bundle(id);
        fs::rename(&unnamed, bundle.dir()).map_err(disk("create", bundle.dir()))?;
        Ok(file)
    }

    /// Waits until nobody else starts or removes the container. `None`: it is gone.
    pub(crate) fn lock(&self, id: &str) -> Result<Option<File>, DiskError> {
        let path = self.lock_path(id);
        let Some(file) = open_if_there(&path)? else { return Ok(None) };
        file.lock().map_err(disk("lock", &path))?;
        Ok(Some(file))
    }

    /// The same without waiting. `None`: somebody is at it, or it is gone.
    pub(crate) fn try_lock(&self, id: &str) -> Result<Option<File>, DiskError> {
        let path = self.lock_path(id);
        let Some(file) = open_if_there(&path)? else { return Ok(None) };
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(disk("lock", &path)(error)),
        }
    }
}

/// The key of a container's snapshot.
pub(crate) fn snapshot_key(id: &str) -> SnapshotKey {
    id.parse().expect("an id of hexadecimal digits is a snapshot key")
}

fn open_if_there(path: &Path) -> Result<Option<File>, DiskError> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some).map_err(disk("open", path)),
    }
}

/// Reads a note. `None`: there is none.
pub(crate) fn read_note<N: DeserializeOwned>(path: &Path) -> Result<Option<N>, DiskError> {
    let Some(file) = open_if_there(path)? else { return Ok(None) };
    let mut json = Vec::new();
    file.take(NOTE_BYTES_MAX).read_to_end(&mut json).map_err(disk("read", path))?;
    serde_json::from_slice(&json).map(Some).map_err(|error| disk("read", path)(error.into()))
}

fn write_note(path: &Path, note: &impl serde::Serialize) -> Result<(), DiskError> {
    let temporary = path.with_extension("tmp");
    let json = serde_json::to_vec(note).expect("plain data serializes");
    fs::write(&temporary, json).map_err(disk("write", &temporary))?;
    fs::rename(&temporary, path).map_err(disk("write", path))
}
