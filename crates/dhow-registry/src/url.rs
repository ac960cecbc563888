use std::fmt;
use std::net::IpAddr;

/// The two ways to speak HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// The word before `://`.
    pub fn name(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

/// An absolute `http` or `https` URL.
///
/// It never holds user info, and it is printed without its query, which is where registries and object
/// stores put signatures and tokens.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Url {
    scheme: Scheme,
    authority: String,
    /// Path and query; starts with a slash.
    target: String,
}

/// Why a text is not a URL that dhow can use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Neither `http://` nor `https://`.
    #[error("a URL starts with http:// or https://")]
    Scheme,
    /// No host, or a host or port that cannot be.
    #[error("the host or port of the URL is malformed")]
    Host,
    /// White space, control or non-ASCII characters.
    #[error("the URL has characters that must be escaped")]
    Characters,
}

impl Url {
    /// Reads an absolute URL. A user name and password in it are dropped.
    pub fn parse(text: &str) -> Result<Url, UrlError> {
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (Scheme::Http, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (Scheme::Https, rest),
            _ => return Err(UrlError::Scheme),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let authority = authority.rsplit('@').next().unwrap_or_default();
        Url::new(scheme, authority, target)
    }

    /// Puts a URL together from its parts.
    pub(crate) fn new(scheme: Scheme, authority: &str, target: &str) -> Result<Url, UrlError> {
        check_authority(authority)?;
        if !target.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(UrlError::Characters);
        }
        let slash = if target.starts_with('/') { "" } else { "/" };
        Ok(Url { scheme, authority: authority.to_ascii_lowercase(), target: format!("{slash}{target}") })
    }

    /// Follows a `Location` or `Link` as seen from this URL.
    pub(crate) fn join(&self, location: &str) -> Result<Url, UrlError> {
        let scheme = location.split_once("://").map(|(scheme, _)| scheme);
        if scheme.is_some_and(|scheme| scheme.bytes().all(|byte| byte.is_ascii_alphabetic())) {
            return Url::parse(location);
        }
        if let Some(rest) = location.strip_prefix("//") {
            return Url::parse(&format!("{}://{rest}", self.scheme.name()));
        }
        let location = location.split('#').next().unwrap_or_default();
        if location.starts_with('/') {
            return Url::new(self.scheme, &self.authority, location);
        }
        let path = self.path();
        let base = if location.starts_with('?') { path } else { &path[..=path.rfind('/').unwrap_or(0)] };
        Url::new(self.scheme, &self.authority, &format!("{base}{location}"))
    }

    /// The same URL with one more query parameter.
    pub(crate) fn with_query(mut self, key: &str, value: &str) -> Url {
        self.target.push(if self.target.contains('?') { '&' } else { '?' });
        self.target.push_str(key);
        self.target.push('=');
        push_escaped(&mut self.target, value);
        self
    }

    /// The scheme.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Host and, if written, port.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The path, without the query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// Path and query.
    pub(crate) fn target(&self) -> &str {
        &self.target
    }

    /// The host alone, without brackets.
    pub fn host(&self) -> &str {
        host_of(&self.authority)
    }

    pub(crate) fn port(&self) -> u16 {
        port_of(&self.authority).unwrap_or(self.scheme.default_port())
    }

    /// Whether credentials meant for one may go to the other.
    pub fn same_origin(&self, other: &Url) -> bool {
        self.scheme == other.scheme && self.host() == other.host() && self.port() == other.port()
    }

    /// The same place by HTTPS, if this is `home` by plain HTTP on the default port.
    pub(crate) fn secured_like(self, home: &Url) -> Url {
        let is_home = self.host() == home.host() && self.scheme == Scheme::Http && self.port() == 80;
        match home.scheme {
            Scheme::Https if is_home => Url { target: self.target, ..home.clone() },
            _ => self,
        }
    }

    /// The whole text, query and all: for the wire only.
    pub(crate) fn for_wire(&self) -> String {
        format!("{}://{}{}", self.scheme.name(), self.authority, self.target)
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme.name(), self.authority, self.path())
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whether a host (with or without port) is this very machine.
pub(crate) fn is_loopback(authority: &str) -> bool {
    let host = host_of(authority);
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

pub(crate) fn host_of(authority: &str) -> &str {
    match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, _)) => host,
        None => authority.split(':').next().unwrap_or_default(),
    }
}

pub(crate) fn port_of(authority: &str) -> Option<u16> {
    let after_host = authority.rsplit(']').next()?;
    after_host.rsplit_once(':')?.1.parse().ok()
}

fn check_authority(authority: &str) -> Result<(), UrlError> {
    let host = host_of(authority);
    let rest = match authority.strip_prefix('[') {
        Some(inner) => inner.strip_prefix(host).and_then(|rest| rest.strip_prefix(']')),
        None => authority.strip_prefix(host),
    };
    let port_fits = match rest {
        Some("") => true,
        Some(port) => port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok()),
        None => false,
    };
    let is_address = authority.starts_with('[');
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let host_fits = !host.is_empty()
        && if is_address { host.parse::<IpAddr>().is_ok() } else { host.bytes().all(is_word) };
    if host_fits && port_fits { Ok(()) } else { Err(UrlError::Host) }
}

/// Appends `text` as a query value or form field.
pub(crate) fn push_escaped(out: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_user_info_nor_query_is_printed() {
        let url = Url::parse("https://me:pw@Example.org:8443/v2/?token=x#y").expect("a URL");
        assert_eq!(format!("{url} {url:?}"), "https://example.org:8443/v2/ https://example.org:8443/v2/");
        assert_eq!(url.for_wire(), "https://example.org:8443/v2/?token=x");
    }

    #[test]
    fn locations_are_seen_from_the_url_that_gave_them() {
        let base = Url::parse("http://a:1/v2/x/blobs/uploads/?y=1").expect("a URL");
        for (location, joined) in [
            ("/p?q=1", "http://a:1/p?q=1"),
            ("https://b/p", "https://b/p"),
            ("//b/p", "http://b/p"),
            ("id?z=https://c/", "http://a:1/v2/x/blobs/uploads/id?z=https://c/"),
            ("?z=2", "http://a:1/v2/x/blobs/uploads/?z=2"),
        ] {
            assert_eq!(base.join(location).map(|url| url.for_wire()), Ok(joined.to_owned()), "{location}");
        }
    }

    #[test]
    fn a_server_that_forgets_its_tls_is_reminded() {
        let home = Url::parse("https://a:8443/v2/").expect("a URL");
        for (url, safe) in [
            ("http://a/x?y", "https://a:8443/x?y"),
            ("http://a:5000/x", "http://a:5000/x"),
            ("http://b/x", "http://b/x"),
        ] {
            let url = Url::parse(url).expect("a URL");
            assert_eq!(url.clone().secured_like(&home).for_wire(), safe);
            assert_eq!(url.clone().secured_like(&url), url);
        }
    }

    #[test]
    fn what_is_no_url_is_refused() {
        for text in
            ["ftp://a/", "a/b", "http://", "http://a:b/", "http://[::1/", "http://a b/", "http://a/\r\nx"]
        {
            assert!(Url::parse(text).is_err(), "{text:?}");
        }
        assert!(Url::parse("http://[::1]:5000/").is_ok());
    }

    #[test]
    fn loopback_is_recognised_with_and_without_a_port() {
        for (authority, expected) in [
            ("localhost:5000", true),
            ("127.0.0.2", true),
            ("[::1]:5000", true),
            ("localhost.example.org", false),
            ("10.0.0.1:5000", false),
        ] {
            assert_eq!(is_loopback(authority), expected, "{authority}");
        }
    }
}
