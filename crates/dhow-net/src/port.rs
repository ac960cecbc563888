//! Ports as people write them: `-p 127.0.0.1:8080:80/udp`, `EXPOSE 80/tcp`.
//!
//! The grammar and the error texts are Docker's, because they are what scripts and search engines know.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A transport protocol with ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP, the default.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// The number IP knows it by.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl FromStr for Protocol {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, PortError> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            _ => Err(PortError::Protocol(text.into())),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// Why a port specification was not understood.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum PortError {
    /// The part after the last colon is not a port or a range of ports.
    #[error("invalid containerPort: {0}")]
    ContainerPort(String),
    /// The part before it is not a port or a range of ports.
    #[error("invalid hostPort: {0}")]
    HostPort(String),
    /// The part after the slash is not tcp, udp or sctp.
    #[error("invalid proto: {0}")]
    Protocol(String),
    /// The part in front is not an address.
    #[error("invalid IP address: {0}")]
    Address(String),
    /// There is no container port at all.
    #[error("no port specified: {0}<empty>")]
    Missing(String),
    /// Two ranges of different length.
    #[error("invalid ranges specified for container and host Ports: {container} and {host}")]
    Ranges {
        /// The container's range as written.
        container: String,
        /// The host's range as written.
        host: String,
    },
}

/// A port inside a container, as `80/tcp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerPort {
    /// The number.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
}

impl ContainerPort {
    /// Parses what `EXPOSE` and `--expose` take: `80`, `80/udp`, `8000-8010/tcp`; a range is many ports.
    pub fn parse_range(text: &str) -> Result<Vec<Self>, PortError> {
        let (ports, protocol) = split_protocol(text);
        let range = PortRange::parse(ports).ok_or_else(|| PortError::ContainerPort(ports.into()))?;
        let protocol = protocol.parse()?;
        Ok(range.ports().map(|port| Self { port, protocol }).collect())
    }
}

impl FromStr for ContainerPort {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, PortError> {
        match *Self::parse_range(text)? {
            [single] => Ok(single),
            _ => Err(PortError::ContainerPort(text.into())),
        }
    }
}

impl TryFrom<String> for ContainerPort {
    type Error = PortError;

    fn try_from(text: String) -> Result<Self, PortError> {
        text.parse()
    }
}

impl From<ContainerPort> for String {
    fn from(port: ContainerPort) -> Self {
        port.to_string()
    }
}

impl fmt::Display for ContainerPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.port, self.protocol)
    }
}

/// Which port of the host a container port is published on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostPort {
    /// Any free one of the ephemeral range.
    Ephemeral,
    /// This one.
    Fixed(u16),
    /// Any free one from the first to the second.
    Within(u16, u16),
}

/// One container port to be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PortMapping {
    /// The only host address it is published on; `None` is all of them, IPv4 and IPv6.
    pub host_ip: Option<IpAddr>,
    /// The host's port.
    pub host_port: HostPort,
    /// The container's port.
    pub container_port: ContainerPort,
}

impl PortMapping {
    /// Publishes `container_port` on an ephemeral port of all addresses, as `-P` does.
    pub fn ephemeral(container_port: ContainerPort) -> Self {
        Self { host_ip: None, host_port: HostPort::Ephemeral, container_port }
    }

    /// Parses what `-p` takes: `[ip:][host]:container[/protocol]`. Ranges give one mapping per port.
    pub fn parse(text: &str) -> Result<Vec<Self>, PortError> {
        let parts = split_parts(text);
        let (container, protocol) = split_protocol(parts.container);
        let host_ip = parse_address(parts.address)?;
        if container.is_empty() {
            return Err(PortError::Missing(text.into()));
        }
        let range = PortRange::parse(container).ok_or_else(|| PortError::ContainerPort(container.into()))?;
        let host = parse_host_range(parts.host)?;
        if host.is_some_and(|host| host.len() != range.len() && range.len() != 1) {
            return Err(PortError::Ranges { container: container.into(), host: parts.host.into() });
        }
        let protocol = protocol.parse()?;
        let mapping = |(index, port)| Self {
            host_ip,
            host_port: nth_host_port(host, range, index),
            container_port: ContainerPort { port, protocol },
        };
        Ok((0..).zip(range.ports()).map(mapping).collect())
    }
}

/// Port 0 means "any", as it does to `bind`.
fn nth_host_port(host: Option<PortRange>, container: PortRange, index: u16) -> HostPort {
    match host {
        None | Some(PortRange { first: 0, .. }) => HostPort::Ephemeral,
        Some(host) if host.len() == container.len() => HostPort::Fixed(host.first + index),
        Some(host) => HostPort::Within(host.first, host.last),
    }
}

struct Parts<'a> {
    address: &'a str,
    host: &'a str,
    container: &'a str,
}

/// Cuts at the last two colons, so that an IPv6 address keeps its own.
fn split_parts(text: &str) -> Parts<'_> {
    let Some((rest, container)) = text.rsplit_once(':') else {
        return Parts { address: "", host: "", container: text };
    };
    let (address, host) = rest.rsplit_once(':').unwrap_or(("", rest));
    Parts { address, host, container }
}

fn split_protocol(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        Some((ports, protocol)) if !protocol.is_empty() => (ports, protocol),
        Some((ports, _)) => (ports, "tcp"),
        None => (text, "tcp"),
    }
}

fn parse_address(text: &str) -> Result<Option<IpAddr>, PortError> {
    if text.is_empty() {
        return Ok(None);
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().map(Some).map_err(|_| PortError::Address(bare.into()))
}

fn parse_host_range(text: &str) -> Result<Option<PortRange>, PortError> {
    if text.is_empty() {
        return Ok(None);
    }
    PortRange::parse(text).map(Some).ok_or_else(|| PortError::HostPort(text.into()))
}

/// `first-last`, both included, not descending.
#[derive(Clone, Copy)]
struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let range = Self { first: parse_port(first)?, last: parse_port(last)? };
        (range.first <= range.last).then_some(range)
    }

    fn len(self) -> usize {
        usize::from(self.last - self.first) + 1
    }

    fn ports(self) -> impl Iterator<Item = u16> {
        self.first..=self.last
    }
}

/// Digits only: `u16::from_str` would also take a plus sign.
fn parse_port(text: &str) -> Option<u16> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(text: &str, expected: Expect) {
        let shown = match PortMapping::parse(text) {
            Ok(mappings) => mappings.iter().map(show).collect::<Vec<_>>().join(" "),
            Err(error) => format!("error: {error}"),
        };
        expected.assert_eq(&shown);
    }

    fn show(mapping: &PortMapping) -> String {
        let address = mapping.host_ip.map_or("*".into(), |address| address.to_string());
        let host = match mapping.host_port {
            HostPort::Ephemeral => "any".into(),
            HostPort::Fixed(port) => port.to_string(),
            HostPort::Within(first, last) => format!("{first}..{last}"),
        };
        format!("{address},{host}->{}", mapping.container_port)
    }

    #[test]
    fn publish_takes_every_form_of_docker() {
        check("80", expect!["*,any->80/tcp"]);
        check("8080:80", expect!["*,8080->80/tcp"]);
        check("0:80", expect!["*,any->80/tcp"]);
        check("127.0.0.1:8080:80/udp", expect!["127.0.0.1,8080->80/udp"]);
        check("127.0.0.1::80/SCTP", expect!["127.0.0.1,any->80/sctp"]);
        check("[::1]:81:80", expect!["::1,81->80/tcp"]);
        check("::1:81:80", expect!["::1,81->80/tcp"]);
        check(":80", expect!["*,any->80/tcp"]);
    }

    #[test]
    fn ranges_pair_up_or_offer_a_choice() {
        check("8000-8001:90-91", expect!["*,8000->90/tcp *,8001->91/tcp"]);
        check("90-91/udp", expect!["*,any->90/udp *,any->91/udp"]);
        check("8000-8010:80", expect!["*,8000..8010->80/tcp"]);
        check("65534-65535:65534-65535", expect!["*,65534->65534/tcp *,65535->65535/tcp"]);
    }

    #[test]
    fn mistakes_are_named_as_docker_names_them() {
        check("8080:flask", expect!["error: invalid containerPort: flask"]);
        check("flask:80", expect!["error: invalid hostPort: flask"]);
        check("70000:80", expect!["error: invalid hostPort: 70000"]);
        check("+1:80", expect!["error: invalid hostPort: +1"]);
        check("80:81-80", expect!["error: invalid containerPort: 81-80"]);
        check("8080:", expect!["error: no port specified: 8080:<empty>"]);
        check("", expect!["error: no port specified: <empty>"]);
        check("localhost:80:80", expect!["error: invalid IP address: localhost"]);
        check("80/icmp", expect!["error: invalid proto: icmp"]);
        check(
            "80-81:90-95",
            expect!["error: invalid ranges specified for container and host Ports: 90-95 and 80-81"],
        );
    }

    #[test]
    fn expose_takes_ranges_and_prints_them_apart() {
        let ports = ContainerPort::parse_range("8000-8002/udp").unwrap();
        let shown: Vec<_> = ports.iter().map(ContainerPort::to_string).collect();
        assert_eq!(shown, ["8000/udp", "8001/udp", "8002/udp"]);
        assert_eq!("80".parse(), Ok(ContainerPort { port: 80, protocol: Protocol::Tcp }));
        assert!("80-81".parse::<ContainerPort>().is_err());
        assert!(ContainerPort::parse_range("").is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in r"[0-9:./\[\]a-z-]{0,24}") {
            // Parsing must not panic, and what it accepts has as many mappings as container ports.
            if let Ok(mappings) = PortMapping::parse(&text) {
                proptest::prop_assert!((1..=65536).contains(&mappings.len()));
            }
        }
    }
}
