//! The life of a network on this host: made, cleaned up after, removed.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::bridge;
use crate::endpoint::{bury, open, survey_and_bury, turn};
use crate::error::{ConnectError, While};
use crate::ledger::{Turn, is_removed_before, read_network};
use crate::netlink::RouteSocket;
use crate::network::{NetConfig, Network, Pool};
use crate::subnet::Subnet;

/// How long it is remembered that a network was removed: nobody takes as long to start a container.
const REMOVAL_REMEMBERED: Duration = Duration::from_secs(3600);

/// The right to make networks. As long as it is held, what is free stays free.
#[derive(Debug)]
pub struct Planning {
    turn: Turn,
}

impl Planning {
    /// Waits until nobody else changes the networks in `run_dir`.
    pub fn start(run_dir: &Path) -> Result<Self, ConnectError> {
        let turn = Turn::wait(run_dir).while_doing(|| format!("lock {}", run_dir.display()))?;
        Ok(Self { turn })
    }

    /// A subnet that collides neither with what this host can reach nor with `taken`.
    pub fn free_pool(&self, taken: &[Subnet]) -> Result<Pool, ConnectError> {
        let mut route = RouteSocket::open().while_doing(|| "open a netlink socket".into())?;
        let known = self.turn.networks().into_iter().flat_map(|network| network.pools);
        let known: Vec<Subnet> = known.map(|pool| pool.subnet).chain(taken.iter().copied()).collect();
        bridge::free_pool(&mut route, &known)
    }

    /// Makes the network's bridge and rules. A device that has its name is somebody else's.
    pub fn raise(&self, config: &NetConfig) -> Result<(), ConnectError> {
        if bridge::exists(&config.bridge)? {
            return Err(ConnectError::BridgeTaken(config.bridge.clone()));
        }
        let ledger = open(config, &self.turn)?;
        let raised = bridge::ensure(config, &ledger, &Default::default());
        if raised.is_err() {
            // The error to be told is the other one.
            let _ = bridge::remove(config, &ledger);
        }
        raised.map(drop)
    }
}

/// The network as it stands on this host, or stood before whatever took its bridge.
pub fn standing(config: &NetConfig) -> Option<Network> {
    read_network(&config.run_dir.join(&config.id))
}

/// Removes what dead owners left on the networks of `run_dir` and says how many they were. Networks of `owner` that
/// `is_known` does not know are removed with all they have, unless somebody is on them.
pub fn reconcile(
    run_dir: &Path,
    owner: Option<&Path>,
    is_known: &dyn Fn(&str) -> bool,
    now: SystemTime,
) -> Result<usize, ConnectError> {
    if !run_dir.exists() {
        return Ok(0);
    }
    let turn = Turn::wait(run_dir).while_doing(|| format!("lock {}", run_dir.display()))?;
    let mut networks = turn.networks();
    networks.push(NetConfig::default_bridge(run_dir));
    let mut count = 0;
    for mut config in networks {
        // The folder may have been reached by another path when it was written down.
        config.run_dir = run_dir.into();
        let ledger = open(&config, &turn)?;
        let survey = ledger.survey().while_doing(|| "read the network's records".into())?;
        count += survey.dead.len();
        bury(&config, survey.dead)?;
        let is_ours = owner.is_some() && config.owner.as_deref() == owner;
        if is_ours && survey.live.is_empty() && !is_known(&config.id) {
            bridge::remove(&config, &ledger)?;
            ledger.set_removed().while_doing(|| format!("forget network {}", config.name))?;
        }
    }
    forget_removed(run_dir, now);
    Ok(count)
}

/// Removes a network from the host: leftovers, rules, bridge. Containers still on it lose it.
pub fn remove_network(config: &NetConfig) -> Result<(), ConnectError> {
    let turn = turn(config)?;
    let ledger = open(config, &turn)?;
    survey_and_bury(config, &ledger)?;
    bridge::remove(config, &ledger)
}

/// Removes a network that nobody is on, for good: first from the host, then by `forget` from wherever it is recorded.
/// Who wants to join it later is told that it is gone.
pub fn retire_network<E: From<ConnectError>>(
    config: &NetConfig,
    forget: impl FnOnce() -> Result<(), E>,
) -> Result<(), E> {
    let turn = turn(config)?;
    let ledger = open(config, &turn)?;
    let survey = survey_and_bury(config, &ledger)?;
    if !survey.live.is_empty() {
        let first = |names: Vec<String>| names.into_iter().next().unwrap_or_default();
        let names = survey.live.into_iter().map(|record| first(record.names)).collect();
        return Err(ConnectError::ActiveEndpoints { name: config.name.clone(), names }.into());
    }
    bridge::remove(config, &ledger)?;
    forget()?;
    Ok(ledger.set_removed().while_doing(|| format!("forget network {}", config.name))?)
}

/// Removes the folders of networks that were removed long ago. What cannot be removed is in nobody's way.
fn forget_removed(run_dir: &Path, now: SystemTime) {
    let Some(long_ago) = now.checked_sub(REMOVAL_REMEMBERED) else { return };
    for entry in fs::read_dir(run_dir).into_iter().flatten().flatten() {
        if is_removed_before(&entry.path(), long_ago) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
