//! The three text files that tell a container who and where it is.
//!
//! Text in, text out: the caller reads the host's files and writes the container's.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

/// Where the embedded server listens inside every container.
pub const DNS_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// The port of DNS.
const DNS_PORT: u16 = 53;

/// glibc uses three at most, so asking more would only prolong a failure.
const NAMESERVERS_MAX: usize = 3;

/// How a container's names are looked up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsConfig {
    /// Who is asked for names the embedded server does not know, as seen from the host's network.
    pub servers: Vec<SocketAddr>,
    /// Domains tried after a short name failed.
    pub search: Vec<String>,
    /// Further resolver options; `ndots` is set unless it is among them.
    pub options: Vec<String>,
}

impl DnsConfig {
    /// Reads a resolv.conf. What is not understood is skipped, as resolvers do.
    pub fn parse(resolv_conf: &str) -> Self {
        let mut config = Self::default();
        for line in resolv_conf.lines() {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => config.servers.extend(words.next().and_then(parse_server)),
                Some("search") => config.search = words.map(String::from).collect(),
                Some("options") => config.options.extend(words.map(String::from)),
                _ => {}
            }
        }
        config.servers.truncate(NAMESERVERS_MAX);
        config
    }
}

fn parse_server(text: &str) -> Option<SocketAddr> {
    text.parse().map(|address: IpAddr| SocketAddr::new(address, DNS_PORT)).ok()
}

/// `/etc/resolv.conf` of a container: the embedded server and the given search domains.
pub fn resolv_conf(dns: &DnsConfig) -> String {
    let mut text = format!("nameserver {DNS_ADDRESS}\n");
    // A lone dot is how `--dns-search .` says "none".
    let search: Vec<&str> = dns.search.iter().map(String::as_str).filter(|domain| *domain != ".").collect();
    if !search.is_empty() {
        text += &format!("search {}\n", search.join(" "));
    }
    let mut options = dns.options.clone();
    if !options.iter().any(|option| option.starts_with("ndots:")) {
        options.push("ndots:0".into());
    }
    text + &format!("options {}\n", options.join(" "))
}

/// `/etc/hosts` of a container. `own` lists its addresses, all of which get `hostname`; `extra` is `--add-host`.
pub fn hosts(hostname: &str, own: &[IpAddr], extra: &[(String, IpAddr)]) -> String {
    let mut text = String::from(HOSTS_HEAD);
    for (name, address) in extra {
        writeln!(text, "{address}\t{name}").expect("writing to a string does not fail");
    }
    for address in own {
        writeln!(text, "{address}\t{hostname}").expect("writing to a string does not fail");
    }
    text
}

const HOSTS_HEAD: &str = "\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
";

/// `/etc/hostname` of a container.
pub fn hostname(hostname: &str) -> String {
    format!("{hostname}\n")
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn the_hosts_resolvers_are_kept_also_on_loopback() {
        let text = "# made by hand\nnameserver 127.0.0.53\nsearch a.example b.example\noptions edns0 trust-ad\nnameserver bad\nnameserver ::1\n";
        let config = DnsConfig::parse(text);
        assert_eq!(config.servers, ["127.0.0.53:53".parse().unwrap(), "[::1]:53".parse().unwrap()]);
        expect![[r#"
            nameserver 127.0.0.11
            search a.example b.example
            options edns0 trust-ad ndots:0
        "#]]
        .assert_eq(&resolv_conf(&config));
    }

    #[test]
    fn nothing_known_still_names_the_embedded_server() {
        let config =
            DnsConfig { search: vec![".".into()], options: vec!["ndots:2".into()], ..Default::default() };
        expect![[r#"
            nameserver 127.0.0.11
            options ndots:2
        "#]]
        .assert_eq(&resolv_conf(&config));
    }

    #[test]
    fn hosts_names_the_container_last() {
        let extra = [("db".to_owned(), "10.0.0.9".parse().unwrap())];
        expect![[r#"
            127.0.0.1	localhost
            ::1	localhost ip6-localhost ip6-loopback
            fe00::	ip6-localnet
            ff00::	ip6-mcastprefix
            ff02::1	ip6-allnodes
            ff02::2	ip6-allrouters
            10.0.0.9	db
            172.17.0.2	8fc990912a14
        "#]]
        .assert_eq(&hosts("8fc990912a14", &["172.17.0.2".parse().unwrap()], &extra));
    }
}
