//! Who is on a network: one file per endpoint, locked by its owner for as long as it lives.
//!
//! `<run_dir>/<network>/lock` serialises changes, `network.json` remembers the bridge,
//! `endpoints/<container id>.json` is a [`Record`]. The kernel drops a dead owner's lock, so a record that
//! can be locked is a leftover: nothing has to be trusted to say goodbye.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::network::{BoundPort, NetConfig, Network};
use crate::nft::Redirect;

/// A record with a thousand published ports is far below.
const RECORD_BYTES_MAX: u64 = 1 << 20;

/// What must be known of an endpoint to find it by name and to remove it after its owner died.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) names: Vec<String>,
    pub(crate) ip: Ipv4Addr,
    pub(crate) veth: String,
    pub(crate) ports: Vec<BoundPort>,
}

impl Record {
    /// What the kernel redirects for it.
    pub(crate) fn redirects(&self) -> Vec<Redirect> {
        let ipv4 = self.ports.iter().filter(|bound| bound.host_ip.is_ipv4());
        ipv4.map(|bound| Redirect { bound: *bound, to: self.ip }).collect()
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

/// The records of one network, for whoever may change them: there is one at a time.
#[derive(Debug)]
pub(crate) struct Ledger {
    dir: PathBuf,
    _lock: File,
}

impl Ledger {
    /// Waits for its turn. Others hold the ledger for some milliseconds, or die and let go.
    pub(crate) fn open(config: &NetConfig) -> io::Result<Self> {
        let dir = config.run_dir.join(&config.name);
        fs::create_dir_all(endpoints_dir(&dir))?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(dir.join("lock"))?;
        lock.lock()?;
        Ok(Self { dir, _lock: lock })
    }

    /// The network as it was when its bridge was made.
    pub(crate) fn network(&self) -> Option<Network> {
        let bytes = fs::read(self.network_path()).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    pub(crate) fn set_network(&self, network: &Network) -> io::Result<()> {
        let temporary = self.dir.join("network.tmp");
        fs::write(&temporary, serde_json::to_vec(network)?)?;
        fs::rename(temporary, self.network_path())
    }

    pub(crate) fn forget_network(&self) -> io::Result<()> {
        ok_if_gone(fs::remove_file(self.network_path()))
    }

    fn network_path(&self) -> PathBuf {
        self.dir.join("network.json")
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
        let temporary = self.dir.join("endpoint.tmp");
        fs::write(&temporary, serde_json::to_vec(record)?)?;
        let lock = File::open(&temporary)?;
        lock.lock()?;
        let path = self.record_path(container_id);
        fs::rename(temporary, &path)?;
        Ok(Held { path, _lock: lock })
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
        Self { dir: config.run_dir.join(&config.name) }
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
        let ip = Ipv4Addr::new(10, 0, 0, last);
        Record { names: vec!["redis".into()], ip, veth: "veth1".into(), ports: Vec::new() }
    }

    #[test]
    fn a_record_lives_as_long_as_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&config(dir.path())).unwrap();
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
        let ledger = Ledger::open(&config(dir.path())).unwrap();
        drop(ledger.add("a", &record(2)).unwrap());
        let (held, _) = ledger.survey().unwrap().dead.pop().unwrap();
        fs::remove_file(&held.path).unwrap();
        held.remove().unwrap();
    }

    #[test]
    fn an_unreadable_leftover_can_be_removed() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&config(dir.path())).unwrap();
        fs::write(endpoints_dir(&ledger.dir).join("torn.json"), "{").unwrap();
        let survey = ledger.survey().unwrap();
        assert_eq!(survey.dead.len(), 1);
        assert_eq!(survey.dead[0].1, None);
    }
}
