use std::net::IpAddr;

use crate::url::{Scheme, Url, host_of, is_loopback, port_of};

/// Which proxies to go through; the values of `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`.
#[derive(Clone, Default)]
pub struct ProxyConfig {
    /// For `http` URLs.
    pub http: Option<String>,
    /// For `https` URLs.
    pub https: Option<String>,
    /// Hosts, domains, addresses and networks to reach directly, separated by commas.
    pub no_proxy: String,
}

impl ProxyConfig {
    /// The proxy to use for a URL. Loopback is never proxied, as in Docker.
    pub(crate) fn choose(&self, url: &Url) -> Option<&str> {
        let proxy = match url.scheme() {
            Scheme::Http => self.http.as_deref(),
            Scheme::Https => self.https.as_deref(),
        };
        let direct = is_loopback(url.authority())
            || self.no_proxy.split(',').any(|rule| is_matched(rule.trim(), url.host(), url.port()));
        proxy.filter(|proxy| !proxy.is_empty() && !direct)
    }
}

impl std::fmt::Debug for ProxyConfig {
    /// Proxy URLs carry passwords.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProxyConfig")
            .field("http", &self.http.is_some())
            .field("https", &self.https.is_some())
            .field("no_proxy", &self.no_proxy)
            .finish()
    }
}

/// One rule of `NO_PROXY`: `*`, a network, an address, `.domain`, `*.domain` or `domain`, each with a port or
/// without. A plain domain stands for its subdomains too.
fn is_matched(rule: &str, host: &str, port: u16) -> bool {
    if rule.is_empty() {
        return false;
    }
    if rule == "*" {
        return true;
    }
    if let (Some((network, bits)), Ok(address)) = (rule.split_once('/'), host.parse::<IpAddr>()) {
        return is_in_network(address, network, bits);
    }
    let is_bare_v6 = rule.parse::<IpAddr>().is_ok();
    let (rule_host, rule_port) = if is_bare_v6 { (rule, None) } else { (host_of(rule), port_of(rule)) };
    if rule_port.is_some_and(|rule_port| rule_port != port) {
        return false;
    }
    let rule_host = rule_host.trim_start_matches('*').to_ascii_lowercase();
    let host = host.to_ascii_lowercase();
    match rule_host.strip_prefix('.') {
        Some(domain) => host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')),
        None => host.strip_suffix(&rule_host).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')),
    }
}

fn is_in_network(address: IpAddr, network: &str, bits: &str) -> bool {
    let (Ok(network), Ok(bits)) = (network.parse::<IpAddr>(), bits.parse::<u32>()) else { return false };
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) if bits <= 32 => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            address.to_bits() & mask == network.to_bits() & mask
        }
        (IpAddr::V6(address), IpAddr::V6(network)) if bits <= 128 => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            address.to_bits() & mask == network.to_bits() & mask
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_proxy_rules_match_as_in_go() {
        for (rules, url, direct) in [
            ("", "https://a.example/", false),
            ("*", "https://a.example/", true),
            ("example", "https://a.example/", true),
            (".example", "https://example/", false),
            ("*.example", "https://a.example/", true),
            ("ample", "https://a.example/", false),
            ("x, a.example:443", "https://a.example/", true),
            ("a.example:8443", "https://a.example/", false),
            ("10.0.0.0/8", "https://10.1.2.3/", true),
            ("10.0.0.0/8", "https://11.1.2.3/", false),
            ("0.0.0.0/0", "https://11.1.2.3/", true),
            ("fd00::/8", "https://[fd00::1]:5000/", true),
            ("", "https://127.0.0.1:5000/", true),
        ] {
            let proxy = ProxyConfig { http: None, https: Some("http://p:1".into()), no_proxy: rules.into() };
            let url = Url::parse(url).expect("a URL");
            assert_eq!(proxy.choose(&url).is_none(), direct, "{rules} {url}");
        }
    }
}
