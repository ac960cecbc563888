//! What `-o` and `driver-opt=` say, in Docker's words.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// The longest name of a device.
const DEVICE_BYTES_MAX: usize = 15;

/// How a bridge network behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeOptions {
    /// The bridge device; `None` is named after the network's id.
    pub bridge: Option<String>,
    /// Containers may talk to each other.
    pub neighbours: bool,
    /// What leaves does so under the host's address.
    pub masquerade: bool,
    /// The largest packet.
    pub mtu: Option<u32>,
    /// The host address that ports are published on.
    pub host_binding: Option<IpAddr>,
    /// Begins the names of devices in containers.
    pub device_prefix: Option<String>,
}

impl Default for BridgeOptions {
    fn default() -> Self {
        BridgeOptions {
            bridge: None,
            neighbours: true,
            masquerade: true,
            mtu: None,
            host_binding: None,
            device_prefix: None,
        }
    }
}

/// An option that cannot be honoured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkOptionError {
    /// Nothing goes by the name.
    #[error("network option {0} is not known or not supported")]
    Unknown(String),
    /// The value makes no sense.
    #[error("invalid value for network option {name}: {value:?}")]
    Value {
        /// The option.
        name: String,
        /// What it was to be.
        value: String,
    },
}

impl BridgeOptions {
    /// Reads all options of a network.
    pub fn parse(options: &BTreeMap<String, String>) -> Result<BridgeOptions, NetworkOptionError> {
        let mut parsed = BridgeOptions::default();
        for (name, value) in options {
            let invalid = || NetworkOptionError::Value { name: name.clone(), value: value.clone() };
            let truth = || truth(value).ok_or_else(invalid);
            let device = || device_name(value).ok_or_else(invalid);
            match name.as_str() {
                "com.docker.network.bridge.name" => parsed.bridge = Some(device()?),
                "com.docker.network.bridge.enable_icc" => parsed.neighbours = truth()?,
                "com.docker.network.bridge.enable_ip_masquerade" => parsed.masquerade = truth()?,
                "com.docker.network.bridge.host_binding_ipv4" => {
                    parsed.host_binding = Some(value.parse().map_err(|_| invalid())?);
                }
                "com.docker.network.driver.mtu" | "mtu" => {
                    let mtu = value.parse().ok().filter(|mtu| (68..=65535).contains(mtu));
                    parsed.mtu = Some(mtu.ok_or_else(invalid)?);
                }
                "com.docker.network.container_iface_prefix" => parsed.device_prefix = Some(device()?),
                // What is so anyway.
                "com.docker.network.bridge.gateway_mode_ipv4"
                | "com.docker.network.bridge.gateway_mode_ipv6"
                    if value == "nat" => {}
                "com.docker.network.bridge.default_bridge" if value == "false" => {}
                "com.docker.network.enable_ipv4" | "com.docker.network.enable_ipv6" => {
                    // They are fields of their own; the flags say so with a better error.
                    return Err(invalid());
                }
                _ => return Err(NetworkOptionError::Unknown(name.clone())),
            }
        }
        Ok(parsed)
    }
}

fn truth(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn device_name(value: &str) -> Option<String> {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"/:%".contains(&byte);
    let is_name = !value.is_empty()
        && value.len() <= DEVICE_BYTES_MAX
        && value.bytes().all(is_plain)
        && ![".", "..", "lo", "all", "default"].contains(&value);
    is_name.then(|| value.to_owned())
}

/// How a container's device is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EndpointOptions {
    pub(crate) device: Option<String>,
    pub(crate) sysctls: Vec<(String, String)>,
}

/// An option of a container on a network that cannot be honoured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointOptionError {
    /// Nothing goes by the name.
    #[error("driver option {0} is not known or not supported")]
    Unknown(String),
    /// The value makes no sense.
    #[error("invalid value for driver option {name}: {value:?}")]
    Value {
        /// The option.
        name: String,
        /// What it was to be.
        value: String,
    },
}

impl EndpointOptions {
    pub(crate) fn parse(options: &BTreeMap<String, String>) -> Result<Self, EndpointOptionError> {
        let mut parsed = Self::default();
        for (name, value) in options {
            let invalid = || EndpointOptionError::Value { name: name.clone(), value: value.clone() };
            match name.as_str() {
                "com.docker.network.endpoint.ifname" => {
                    parsed.device = Some(device_name(value).ok_or_else(invalid)?);
                }
                "com.docker.network.endpoint.sysctls" => {
                    let settings = value.split(',').map(sysctl).collect::<Option<Vec<_>>>();
                    parsed.sysctls = settings.ok_or_else(invalid)?;
                }
                _ => return Err(EndpointOptionError::Unknown(name.clone())),
            }
        }
        Ok(parsed)
    }
}

/// `net.ipv4.conf.IFNAME.log_martians=1`, as a path below `/proc/sys/net` and a value. Only what belongs to the
/// device may be set.
fn sysctl(text: &str) -> Option<(String, String)> {
    let (name, value) = text.trim().split_once('=')?;
    let parts: Vec<&str> = name.split('.').collect();
    let is_plain = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
    };
    match parts[..] {
        ["net", family, group, "IFNAME", option]
            if [family, group, option].iter().all(|part| is_plain(part)) =>
        {
            Some((format!("{family}/{group}/IFNAME/{option}"), value.to_owned()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    #[test]
    fn options_are_dockers_and_others_are_named() {
        let options = map(&[
            ("com.docker.network.bridge.name", "br0"),
            ("com.docker.network.bridge.enable_icc", "false"),
            ("com.docker.network.driver.mtu", "1400"),
        ]);
        let parsed = BridgeOptions::parse(&options).unwrap();
        assert_eq!(
            (parsed.bridge.as_deref(), parsed.neighbours, parsed.mtu),
            (Some("br0"), false, Some(1400))
        );
        let error = |pairs| BridgeOptions::parse(&map(pairs)).unwrap_err().to_string();
        assert_eq!(error(&[("parent", "eth0")]), "network option parent is not known or not supported");
        assert_eq!(error(&[("mtu", "1")]), "invalid value for network option mtu: \"1\"");
        let long = ("com.docker.network.bridge.name", "a-name-much-too-long");
        assert!(error(&[long]).starts_with("invalid value"));
    }

    #[test]
    fn a_device_option_sets_nothing_but_the_device() {
        let parse = |value: &str| {
            EndpointOptions::parse(&map(&[("com.docker.network.endpoint.sysctls", value)])).map(|o| o.sysctls)
        };
        let known = parse("net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.IFNAME.accept_ra=2").unwrap();
        assert_eq!(known[0], ("ipv4/conf/IFNAME/log_martians".to_owned(), "1".to_owned()));
        assert_eq!(known.len(), 2);
        for bad in ["net.ipv4.ip_forward=1", "kernel.IFNAME.x=1", "net.ipv4.conf.IFNAME./../x=1", "x"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
