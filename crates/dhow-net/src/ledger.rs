//! Who is on a network: one file per endpoint, locked by its owner for as long as it lives.
//!
//! `<run_dir>/lock` and `<run_dir>/<network>/lock` serialise changes, `config.json` says what a network is to be
//! before anything of it is made, `network.json` remembers the bridge,
//! `endpoints/<container id>.json` is a [`Record`]. The kernel drops a dead owner's lock, so a record that
//! can be locked is a leftover: nothing has to be trusted to say goodbye. A network that was removed leaves the file
//! `removed`, so that a container that was about to join does not bring it back.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::network::{BoundPort, NetConfig, Network};
use crate::nft::{Family, Redirect};

const CONFIG: &str = "config.json";
const NETWORK: &str = "network.json";
const REMOVED: &str = "removed";

/// A record with a thousand published ports is far below.
const RECORD_BYTES_MAX: u64 = 1 << 20;

/// What must be known of an endpoint to find it by name and to remove it after its owner died.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) names: Vec<String>,
    pub(crate) ip: Option<Ipv4Addr>,
    #[serde(default)]
    pub(crate) ip6: Option<Ipv6Addr>,
    pub(crate) veth: String,
    pub(crate) ports: Vec<BoundPort>,
}

impl Record {
    /// What the kernel redirects for it to addresses of `family`.
    pub(crate) fn redirects(&self, family: Family) -> Vec<Redirect> {
        let Some(to) = self.addresses().find(|ip| Family::of(*ip) == family) else { return Vec::new() };
        let ports = self.ports.iter().filter(|bound| Family::of(bound.host_ip) == family);
        ports.map(|bound| Redirect { bound: *bound, to }).collect()
    }

    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.ip.map(IpAddr::V4).into_iter().chain(self.ip6.map(IpAddr::V6))
    }
}

/// A record that is ours until dropped. Dropping leaves the file, as dying does.
#[derive(Debug)]
pub(crate) struct Held {
    path: PathBuf,
    _lock: File,
}

impl Held {
    /// Removes the record. Its owner may have done so between our opening the file and finding it unlocked; no
    /// other can have its name meanwhile, since adding one takes the ledger.
    pub(crate) fn remove(self) -> io::Result<()> {
        ok_if_gone(fs::remove_file(&self.path))
    }
}

/// The records at one moment.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    pub(crate) live: Vec<Record>,
    /// Leftovers, held by us. One that cannot be read has nothing to undo but itself.
    pub(crate) dead: Vec<(Held, Option<Record>)>,
}

/// The turn to change the networks of a run-time folder. Others take it for some milliseconds, or die and let go.
#[derive(Debug)]
pub(crate) struct Turn {
    run_dir: PathBuf,
    _lock: File,
}

impl Turn {
    /// Waits for it.
    pub(crate) fn wait(run_dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(run_dir)?;
        Ok(Self { run_dir: run_dir.into(), _lock: lock(&run_dir.join("lock"))? })
    }

    /// The networks that were made here and not removed, also those that were only begun.
    pub(crate) fn networks(&self) -> Vec<NetConfig> {
        let entries = fs::read_dir(&self.run_dir).into_iter().flatten().flatten();
        entries.filter_map(|entry| read_config(&entry.path())).collect()
    }
}

/// The records of one network, for whoever may change them: there is one at a time.
#[derive(Debug)]
pub(crate) struct Ledger<'t> {
    dir: PathBuf,
    _lock: File,
    _turn: &'t Turn,
}

impl<'t> Ledger<'t> {
    pub(crate) fn open(config: &NetConfig, turn: &'t Turn) -> io::Result<Self> {
        let dir = config.run_dir.join(&config.id);
        fs::create_dir_all(endpoints_dir(&dir))?;
        Ok(Self { _lock: lock(&dir.join("lock"))?, dir, _turn: turn })
    }

    /// Whether the network was removed for good.
    pub(crate) fn is_removed(&self) -> bool {
        self.tombstone().exists()
    }

    /// Remembers that it was.
    pub(crate) fn set_removed(&self) -> io::Result<()> {
        File::create(self.tombstone()).map(drop)
    }

    fn tombstone(&self) -> PathBuf {
        self.dir.join(REMOVED)
    }

    /// Remembers what the network is to be: whoever is killed while it is made leaves what can be found.
    pub(crate) fn set_config(&self, config: &NetConfig) -> io::Result<()> {
        if read_config(&self.dir).as_ref() == Some(config) {
            return Ok(());
        }
        let temporary = self.dir.join("config.tmp");
        fs::write(&temporary, serde_json::to_vec(config)?)?;
        fs::rename(temporary, self.dir.join(CONFIG))
    }

    /// The network as it was when its bridge was made.
    pub(crate) fn network(&self) -> Option<Network> {
        read_network(&self.dir)
    }

    pub(crate) fn set_network(&self, network: &Network) -> io::Result<()> {
        let temporary = self.dir.join("network.tmp");
        fs::write(&temporary, serde_json::to_vec(network)?)?;
        fs::rename(temporary, self.network_path())
    }

    pub(crate) fn forget_network(&self) -> io::Result<()> {
        ok_if_gone(fs::remove_file(self.network_path()))?;
        ok_if_gone(fs::remove_file(self.dir.join(CONFIG)))
    }

    fn network_path(&self) -> PathBuf {
        self.dir.join(NETWORK)
    }

    /// Reads all records and takes over those whose owner died.
    pub(crate) fn survey(&self) -> io::Result<Survey> {
        let mut survey = Survey::default();
        for path in record_paths(&self.dir)? {
            let Ok(mut file) = File::open(&path) else { continue };
            let record = read_record(&mut file);
            match file.try_lock() {
                Ok(()) => survey.dead.push((Held { path, _lock: file }, record.ok())),
                Err(TryLockError::WouldBlock) => survey.live.extend(record.ok()),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        Ok(survey)
    }

    /// Whether a container has a record.
    pub(crate) fn contains(&self, container_id: &str) -> bool {
        self.record_path(container_id).exists()
    }

    /// Adds a record, whole and locked from its first moment on.
    pub(crate) fn add(&self, container_id: &str, record: &Record) -> io::Result<Held> {
        let path = self.record_path(container_id);
        let lock = self.write(&path, record)?;
        Ok(Held { path, _lock: lock })
    }

    /// Puts another record in the place of one that is ours.
    pub(crate) fn replace(&self, held: &mut Held, record: &Record) -> io::Result<()> {
        held._lock = self.write(&held.path, record)?;
        Ok(())
    }

    fn write(&self, path: &Path, record: &Record) -> io::Result<File> {
        let temporary = self.dir.join("endpoint.tmp");
        fs::write(&temporary, serde_json::to_vec(record)?)?;
        let lock = File::open(&temporary)?;
        lock.lock()?;
        fs::rename(temporary, path)?;
        Ok(lock)
    }

    fn record_path(&self, container_id: &str) -> PathBuf {
        endpoints_dir(&self.dir).join(format!("{container_id}.json"))
    }
}

/// The records of one network for whoever only reads: the name server.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    dir: PathBuf,
}

impl Reader {
    pub(crate) fn new(config: &NetConfig) -> Self {
        Self { dir: config.run_dir.join(&config.id) }
    }

    /// The records with a living owner.
    pub(crate) fn live(&self) -> Vec<Record> {
        let live = |path: PathBuf| {
            let mut file = File::open(path).ok()?;
            let owned = matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock));
            if owned { read_record(&mut file).ok() } else { None }
        };
        record_paths(&self.dir).unwrap_or_default().into_iter().filter_map(live).collect()
    }
}

/// Whether a living container on any network has a port that overlaps `wanted`.
pub(crate) fn is_port_allocated(run_dir: &Path, wanted: &BoundPort) -> bool {
    let Ok(networks) = fs::read_dir(run_dir) else { return false };
    let readers = networks.flatten().map(|network| Reader { dir: network.path() });
    readers
        .flat_map(|reader| reader.live())
        .any(|record| record.ports.iter().any(|port| port.overlaps(wanted)))
}

/// Whether the network of a folder was removed, or given up before it was begun, before `time`.
pub(crate) fn is_removed_before(dir: &Path, time: SystemTime) -> bool {
    let is_before = |path: &Path| {
        let changed = fs::metadata(path).and_then(|metadata| metadata.modified());
        changed.is_ok_and(|changed| changed < time)
    };
    let is_begun = [CONFIG, NETWORK, REMOVED].iter().any(|name| dir.join(name).exists());
    is_before(&dir.join(REMOVED)) || dir.join("lock").exists() && !is_begun && is_before(dir)
}

fn lock(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
    file.lock()?;
    Ok(file)
}

fn read_config(dir: &Path) -> Option<NetConfig> {
    let bytes = fs::read(dir.join(CONFIG)).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// The network of a folder as it was when its bridge was made.
pub(crate) fn read_network(dir: &Path) -> Option<Network> {
    let bytes = fs::read(dir.join(NETWORK)).ok()?;
    serde_json::from_slice(&bytes).ok()
}

fn endpoints_dir(dir: &Path) -> PathBuf {
    dir.join("endpoints")
}

fn record_paths(dir: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(endpoints_dir(dir))?.map(|entry| entry.map(|entry| entry.path())).collect()
}

fn read_record(file: &mut File) -> io::Result<Record> {
    let mut bytes = Vec::new();
    file.take(RECORD_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

fn ok_if_gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(run_dir: &Path) -> NetConfig {
        NetConfig::default_bridge(run_dir)
    }

    fn record(last: u8) -> Record {
        let ip = Some(Ipv4Addr::new(10, 0, 0, last));
        Record { names: vec!["redis".into()], ip, ip6: None, veth: "veth1".into(), ports: Vec::new() }
    }

    #[test]
    fn a_record_lives_as_long_as_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let turn = Turn::wait(dir.path()).unwrap();
        let ledger = Ledger::open(&config(dir.path()), &turn).unwrap();
        let held = ledger.add("a", &record(2)).unwrap();
        assert_eq!(ledger.survey().unwrap().live, [record(2)]);
        assert_eq!(Reader::new(&config(dir.path())).live(), [record(2)]);

        drop(held);
        let survey = ledger.survey().unwrap();
        assert!(survey.live.is_empty());
        assert_eq!(survey.dead[0].1, Some(record(2)));
        for (held, _) in survey.dead {
            held.remove().unwrap();
        }
        assert!(!ledger.contains("a"));
    }

    #[test]
    fn a_record_that_its_owner_removes_while_it_is_looked_at_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let turn = Turn::wait(dir.path()).unwrap();
        let ledger = Ledger::open(&config(dir.path()), &turn).unwrap();
        drop(ledger.add("a", &record(2)).unwrap());
        let (held, _) = ledger.survey().unwrap().dead.pop().unwrap();
        fs::remove_file(&held.path).unwrap();
        held.remove().unwrap();
    }

    #[test]
    fn an_unreadable_leftover_can_be_removed() {
        let dir = tempfile::tempdir().unwrap();
        let turn = Turn::wait(dir.path()).unwrap();
        let ledger = Ledger::open(&config(dir.path()), &turn).unwrap();
        fs::write(endpoints_dir(&ledger.dir).join("torn.json"), "{").unwrap();
        let survey = ledger.survey().unwrap();
        assert_eq!(survey.dead.len(), 1);
        assert_eq!(survey.dead[0].1, None);
    }
}
