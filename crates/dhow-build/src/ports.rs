//! The words of `EXPOSE`.

use std::net::IpAddr;

/// `[ip:][host-port:]port[-port][/protocol]`. Only the last part says what the image listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PortSpec {
    /// As written.
    pub protocol: String,
    /// Whether it has an address or a port of the host, which mean nothing to an image.
    pub names_the_host: bool,
    first: u16,
    last: u16,
}

impl PortSpec {
    pub(crate) fn parse(word: &str) -> Result<PortSpec, String> {
        let mut parts = word.rsplitn(3, ':');
        let port = parts.next().unwrap_or_default();
        let (host_port, address) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let (ports, protocol) = port.split_once('/').unwrap_or((port, ""));
        if ports.is_empty() {
            return Err(format!("invalid port: {word:?}: no port specified"));
        }
        let protocol = if protocol.is_empty() { "tcp" } else { protocol };
        if !["tcp", "udp", "sctp"].contains(&protocol.to_ascii_lowercase().as_str()) {
            return Err(format!("invalid port: {word:?}: invalid proto: {protocol}"));
        }
        check_address(address)?;
        let (first, last) = range(ports).ok_or_else(|| format!("invalid containerPort: {ports}"))?;
        check_host_port(host_port, ports, last - first)?;
        let names_the_host = !host_port.is_empty() || !address.is_empty();
        Ok(PortSpec { protocol: protocol.to_owned(), names_the_host, first, last })
    }

    /// `80/tcp`, one for each port.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        let protocol = self.protocol.to_ascii_lowercase();
        (self.first..=self.last).map(move |port| format!("{port}/{protocol}"))
    }
}

fn check_address(address: &str) -> Result<(), String> {
    let inner = address.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(address);
    if inner.is_empty() || inner.parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    Err(format!("invalid IP address: {address}"))
}

/// As many ports of the host as of the image, unless the image has but one.
fn check_host_port(host: &str, ports: &str, span: u16) -> Result<(), String> {
    if host.is_empty() {
        return Ok(());
    }
    let (first, last) = range(host).ok_or_else(|| format!("invalid hostPort: {host}"))?;
    if last - first == span || span == 0 {
        return Ok(());
    }
    Err(format!("invalid ranges specified for container and host Ports: {ports} and {host}"))
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_named_with_their_protocol() {
        let names = |word| PortSpec::parse(word).map(|spec| spec.names().collect::<Vec<_>>().join(" "));
        for (word, expected) in [
            ("80", "80/tcp"),
            ("80/", "80/tcp"),
            ("080", "80/tcp"),
            ("53/UDP", "53/udp"),
            ("8000-8002/sctp", "8000/sctp 8001/sctp 8002/sctp"),
            ("7-7", "7/tcp"),
            ("0.0.0.0:80:8080", "8080/tcp"),
            ("[::1]:80:8080", "8080/tcp"),
            ("::1:80:8080", "8080/tcp"),
            ("9000-9010:80", "80/tcp"),
            (":80", "80/tcp"),
            ("0", "0/tcp"),
        ] {
            assert_eq!(names(word).as_deref(), Ok(expected), "{word}");
        }
        for wrong in [
            "flask",
            "80/http",
            "9-8",
            "70000",
            "",
            "/tcp",
            "80:",
            "x:80",
            "1.2.3:80:80",
            "1-2:3-5",
            "-1",
            "8 0",
            "[::1:1:1",
        ] {
            assert!(names(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_address_or_a_port_of_the_host_is_noticed() {
        let names_the_host = |word| PortSpec::parse(word).unwrap().names_the_host;
        assert!(names_the_host("5000:80") && names_the_host("127.0.0.1::80"));
        assert!(!names_the_host("80") && !names_the_host("80-90/udp"));
    }
}
