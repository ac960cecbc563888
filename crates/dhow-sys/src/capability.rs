//! Linux capabilities of the calling thread.

use std::io;
use std::str::FromStr;

use rustix::thread::CapabilitySet;

/// Names by number.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// One capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Capability(u8);

impl Capability {
    /// All capabilities dhow knows, in the kernel's order.
    pub fn all() -> impl Iterator<Item = Capability> {
        (0..NAMES.len() as u8).map(Capability)
    }

    /// The name without `CAP_`.
    pub fn name(self) -> &'static str {
        NAMES[usize::from(self.0)]
    }

    fn bit(self) -> u64 {
        1 << self.0
    }
}

impl FromStr for Capability {
    type Err = io::Error;

    /// Understands `CAP_CHOWN`, `CHOWN` and `chown`.
    fn from_str(text: &str) -> io::Result<Self> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        let number = NAMES.iter().position(|known| *known == name);
        let unknown = || io::Error::new(io::ErrorKind::InvalidInput, format!("unknown capability {text:?}"));
        number.map(|number| Capability(number as u8)).ok_or_else(unknown)
    }
}

/// A set of capabilities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(u64);

impl Capabilities {
    /// Whether `capability` is in the set.
    pub fn contains(self, capability: Capability) -> bool {
        self.0 & capability.bit() != 0
    }

    /// The bits as in `/proc/<pid>/status`.
    pub fn bits(self) -> u64 {
        self.0
    }

    fn set(self) -> CapabilitySet {
        CapabilitySet::from_bits_retain(self.0)
    }
}

impl FromIterator<Capability> for Capabilities {
    fn from_iter<I: IntoIterator<Item = Capability>>(capabilities: I) -> Self {
        Capabilities(capabilities.into_iter().fold(0, |bits, capability| bits | capability.bit()))
    }
}

/// The five sets of a thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadCapabilities {
    /// What can ever be gained.
    pub bounding: Capabilities,
    /// What counts now.
    pub effective: Capabilities,
    /// What can be made effective.
    pub permitted: Capabilities,
    /// What a file may pass on.
    pub inheritable: Capabilities,
    /// What survives `execve` without a file's help.
    pub ambient: Capabilities,
}

/// Drops everything outside `bounding` from the bounding set. Needs `CAP_SETPCAP`.
pub fn limit_bounding(bounding: Capabilities) -> io::Result<()> {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if bounding.0 & (1 << number) != 0 {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // Beyond the last capability of this kernel.
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Keeps the permitted capabilities over the next change of user.
pub fn keep_over_user_change(keep: bool) -> io::Result<()> {
    Ok(rustix::thread::set_keep_capabilities(keep)?)
}

/// Sets all but the bounding set, leaving out what the caller may not have itself.
pub fn apply(sets: &ThreadCapabilities) -> io::Result<()> {
    let have = rustix::thread::capabilities(None)?.permitted;
    rustix::thread::set_capabilities(
        None,
        rustix::thread::CapabilitySets {
            effective: sets.effective.set() & have,
            permitted: sets.permitted.set() & have,
            inheritable: sets.inheritable.set() & have,
        },
    )?;
    rustix::thread::clear_ambient_capability_set()?;
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if (sets.ambient.set() & have).contains(capability) {
            rustix::thread::configure_capability_in_ambient_set(capability, true)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_understood_with_and_without_prefix() {
        let parse = |text: &str| text.parse::<Capability>().map(Capability::name).ok();
        assert_eq!(parse("CAP_SYS_ADMIN"), Some("SYS_ADMIN"));
        assert_eq!(parse("net_raw"), Some("NET_RAW"));
        assert_eq!(parse("CAP_ALL"), None);
    }

    #[test]
    fn bits_are_the_kernels() {
        let set: Capabilities = ["CHOWN", "SETFCAP"].iter().flat_map(|name| name.parse()).collect();
        assert_eq!(set.bits(), 0x8000_0001);
    }
}
