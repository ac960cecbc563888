//! Secrets that are for the servers sources come from, under the names BuildKit knows them by.
//!
//! A secret that names a host goes to that host. `GIT_AUTH_TOKEN` and `GIT_AUTH_HEADER` name none: whoever gives
//! them gives them to every server that the Dockerfile fetches a repository from.

use std::path::Path;

use dhow_registry::{Secret, Url};

use super::SourceError;
use super::git_ref::{GitSource, Protocol};
use crate::run_options::RunOptions;

const HTTP_HEADER: &str = "HTTP_AUTH_HEADER_";
const HTTP_TOKEN: &str = "HTTP_AUTH_TOKEN_";
const GIT_HEADER: &str = "GIT_AUTH_HEADER";
const GIT_TOKEN: &str = "GIT_AUTH_TOKEN";
/// Who the owner of a token is to a server of repositories.
const TOKEN_USER: &str = "x-access-token";
/// The agent for repositories.
const AGENT: &str = "default";
/// Servers whose repositories are all of one house.
const SHARED: [&str; 2] = ["https://github.com/", "https://www.github.com/"];

/// What whoever builds has given for servers.
#[derive(Clone, Copy)]
pub(crate) struct Credentials<'a>(pub &'a RunOptions);

/// What a repository's server is told.
pub(crate) struct GitCredential {
    /// The value of an `Authorization` header.
    pub authorization: Secret,
    /// The URLs that it is for begin with this.
    pub scope: String,
}

impl<'a> Credentials<'a> {
    /// For a file by HTTP. The URL's own user name and password are another matter.
    pub(crate) fn of_file(self, url: &Url) -> Result<Option<Secret>, SourceError> {
        let shown = url.to_string();
        if let Some((id, token)) = self.find(HTTP_TOKEN, url.host(), &shown)? {
            return header(format!("Bearer {token}"), &id, &shown).map(Some);
        }
        match self.find(HTTP_HEADER, url.host(), &shown)? {
            Some((id, value)) => header(value, &id, &shown).map(Some),
            None => Ok(None),
        }
    }

    /// For a repository by HTTP: a secret, else what its URL says.
    pub(crate) fn of_repository(self, source: &GitSource) -> Result<Option<GitCredential>, SourceError> {
        if !matches!(source.protocol, Protocol::Http | Protocol::Https) {
            return Ok(None);
        }
        let (_, rest) = source.url.split_once("://").unwrap_or_default();
        let host = rest.split('/').next().unwrap_or_default();
        let whole_host = format!("{}://{host}/", source.protocol.name());
        let is_shared = SHARED.contains(&whole_host.as_str());
        // Who names a host means its other repositories as well, which submodules may be in.
        let scopes = [(format!(".{host}"), true), (String::new(), is_shared)];
        for (name, is_for_host) in scopes {
            let scope = if is_for_host { &whole_host } else { &source.url }.clone();
            if let Some((id, value)) = self.find(GIT_HEADER, &name, &source.url)? {
                let authorization = header(value, &id, &source.url)?;
                return Ok(Some(GitCredential { authorization, scope }));
            }
            if let Some((_, token)) = self.find(GIT_TOKEN, &name, &source.url)? {
                let authorization = Secret::basic(&format!("{TOKEN_USER}:{token}"));
                return Ok(Some(GitCredential { authorization, scope }));
            }
        }
        Ok(source.user_info.as_ref().map(|user_info| GitCredential {
            authorization: Secret::of_user_info(user_info.expose()),
            scope: whole_host,
        }))
    }

    /// The socket of the agent for repositories by SSH, if it is to be another than the user's own.
    pub(crate) fn agent(self) -> Option<&'a Path> {
        self.0.agent(AGENT)
    }

    /// A secret by its name and the host it is for, whose case is of no account.
    fn find(self, name: &str, host: &str, url: &str) -> Result<Option<(String, String)>, SourceError> {
        let is_it = |id: &str| id.strip_prefix(name).is_some_and(|rest| rest.eq_ignore_ascii_case(host));
        let Some((id, source)) = self.0.secrets.iter().find(|(id, _)| is_it(id)) else { return Ok(None) };
        let invalid = |why: String| SourceError::Credential { id: id.clone(), url: url.to_owned(), why };
        let value = source.read(id).map_err(|error| invalid(crate::error::chain(&error)))?;
        let text = String::from_utf8(value).map_err(|_| invalid("it is not text".to_owned()))?;
        // Editors and `echo` end a file with a line's end that nobody means.
        Ok(Some((id.clone(), text.trim_end_matches(['\n', '\r']).to_owned())))
    }
}

/// A value that cannot become a second header.
fn header(value: String, id: &str, url: &str) -> Result<Secret, SourceError> {
    match value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
        true => Ok(Secret::new(value)),
        false => Err(SourceError::Credential {
            id: id.to_owned(),
            url: url.to_owned(),
            why: "it has characters that cannot be in a header".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::WrittenBy;
    use crate::run_options::SecretSource;

    fn given(secrets: &[(&str, &str)]) -> RunOptions {
        let secrets = secrets
            .iter()
            .map(|(id, value)| ((*id).to_owned(), SecretSource::Value(value.as_bytes().to_vec())));
        RunOptions { secrets: secrets.collect(), ..RunOptions::default() }
    }

    fn of_file(secrets: &[(&str, &str)], url: &str) -> String {
        let options = given(secrets);
        let url = Url::parse(url).expect("a URL");
        match Credentials(&options).of_file(&url) {
            Ok(secret) => secret.map_or_else(|| "-".to_owned(), |secret| secret.expose().to_owned()),
            Err(error) => error.to_string(),
        }
    }

    fn of_repository(secrets: &[(&str, &str)], url: &str) -> String {
        let options = given(secrets);
        let source = GitSource::parse(url, WrittenBy::Dockerfile).expect("git").expect("a source");
        match Credentials(&options).of_repository(&source) {
            Ok(None) => "-".to_owned(),
            Ok(Some(found)) => format!("{} for {}", found.authorization.expose(), found.scope),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_file_is_asked_for_with_the_secret_of_its_host() {
        let both = [("HTTP_AUTH_HEADER_h", "Custom v"), ("HTTP_AUTH_TOKEN_a.b", "t\n")];
        for (url, expected) in [
            ("http://h/x", "Custom v"),
            ("https://h:8443/x", "Custom v"),
            ("http://A.B:1/x?q", "Bearer t"),
            ("http://x.a.b/", "-"),
            ("http://a.b.evil/", "-"),
            ("http://me@evil/h", "-"),
        ] {
            assert_eq!(of_file(&both, url), expected, "{url}");
        }
        // As BuildKit has it, the token wins.
        assert_eq!(
            of_file(&[("HTTP_AUTH_HEADER_h", "v"), ("HTTP_AUTH_TOKEN_h", "t")], "http://h"),
            "Bearer t"
        );
        let said = of_file(&[("HTTP_AUTH_HEADER_h", "v\nx: y")], "http://me:pw@h/?hush");
        assert_eq!(
            said,
            "cannot use secret HTTP_AUTH_HEADER_h for http://h/: it has characters that cannot be in a header"
        );
    }

    #[test]
    fn a_repository_is_asked_for_with_the_secret_of_its_host_or_that_of_all() {
        let all = [
            ("GIT_AUTH_TOKEN", "t"),
            ("GIT_AUTH_TOKEN.h:1", "t-of-h"),
            ("GIT_AUTH_HEADER.both", "of-both"),
            ("GIT_AUTH_TOKEN.both", "t-of-both"),
        ];
        let basic = |user_info: &str| Secret::basic(user_info).expose().to_owned();
        for (url, expected) in [
            ("https://x/a.git", format!("{} for https://x/a.git", basic("x-access-token:t"))),
            ("http://h:1/a.git", format!("{} for http://h:1/", basic("x-access-token:t-of-h"))),
            ("http://h/a.git", format!("{} for http://h/a.git", basic("x-access-token:t"))),
            ("https://both/a.git#b", "of-both for https://both/".to_owned()),
            ("https://github.com/a/b.git", format!("{} for https://github.com/", basic("x-access-token:t"))),
            ("git@h:a.git", "-".to_owned()),
            ("ssh://git@h/a.git", "-".to_owned()),
            ("git://h/a.git", "-".to_owned()),
        ] {
            assert_eq!(of_repository(&all, url), expected, "{url}");
        }
        assert_eq!(
            of_repository(&[("GIT_AUTH_HEADER", "v"), ("GIT_AUTH_TOKEN", "t")], "http://h/a.git"),
            "v for http://h/a.git"
        );
        let expected = format!("{} for https://h/", basic("me:p w"));
        assert_eq!(of_repository(&[], "https://me:p%20w@h/a.git"), expected);
        assert_eq!(of_repository(&[("GIT_AUTH_TOKEN.i", "t")], "https://h/a.git"), "-");
    }
}
