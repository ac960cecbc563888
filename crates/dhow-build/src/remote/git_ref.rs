//! What a git source says: `https://host/repo.git#branch:folder`, `git@host:repo?tag=v1`, and so on.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use dhow_registry::Secret;

/// A repository, and what of it is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GitSource {
    /// What git is told, without user name and password of HTTP.
    pub url: String,
    /// `user:password` of an HTTP URL.
    pub user_info: Option<Secret>,
    pub protocol: Protocol,
    /// Branch, tag, commit or full name of a reference; `None` is what the repository is set to.
    pub reference: Option<String>,
    /// What the commit must begin with.
    pub checksum: Option<String>,
    /// The folder wanted; empty for all.
    pub subdir: PathBuf,
    pub keep_git_dir: Option<bool>,
    pub submodules: bool,
    pub times: Times,
}

/// How the repository is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http,
    Https,
    Ssh,
    Git,
    /// A folder of this machine: for who started the build to name, never for a Dockerfile.
    File,
}

impl Protocol {
    /// The word git knows it by.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Protocol::Http => "http",
            Protocol::Https => "https",
            Protocol::Ssh => "ssh",
            Protocol::Git => "git",
            Protocol::File => "file",
        }
    }
}

/// The times that files get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Times {
    /// That of the commit, so that equal commits give equal layers.
    #[default]
    Commit,
    /// That of the checkout.
    Checkout,
}

impl Times {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Times::Commit => "commit",
            Times::Checkout => "checkout",
        }
    }
}

/// Who wrote the source down, and so what it may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WrittenBy {
    /// A Dockerfile, which may be a stranger's.
    Dockerfile,
    /// Who started the build.
    User,
}

impl GitSource {
    /// Reads a source; `None` if it is something else than a repository.
    pub(crate) fn parse(text: &str, by: WrittenBy) -> Option<Result<GitSource, String>> {
        let (rest, fragment) = match text.split_once('#') {
            Some((rest, fragment)) => (rest, Some(fragment)),
            None => (text, None),
        };
        let (address, query) = match rest.split_once('?') {
            Some((address, query)) => (address, Some(query)),
            None => (rest, None),
        };
        let (url, user_info, protocol) = address_of(address, by)?;
        let mut source = GitSource {
            url,
            user_info,
            protocol,
            reference: None,
            checksum: None,
            subdir: PathBuf::new(),
            keep_git_dir: None,
            submodules: true,
            times: Times::default(),
        };
        let read = source
            .read_fragment(fragment.unwrap_or_default())
            .and_then(|()| source.read_query(query.unwrap_or_default()))
            .and_then(|()| source.check());
        let shown = source.to_string();
        Some(read.map(|()| source).map_err(|why| format!("{shown}: {why}")))
    }

    fn read_fragment(&mut self, fragment: &str) -> Result<(), String> {
        let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
        self.reference = (!reference.is_empty()).then(|| reference.to_owned());
        self.subdir = folder(subdir)?;
        Ok(())
    }

    fn read_query(&mut self, query: &str) -> Result<(), String> {
        let mut seen = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = unescape(value).ok_or_else(|| format!("query {key:?} is not text"))?;
            if seen.contains(&key) {
                return Err(format!("query {key:?} has multiple values"));
            }
            seen.push(key);
            if value.is_empty() && !matches!(key, "submodules" | "keep-git-dir" | "fetch-by-commit") {
                return Err(format!("query {key:?} has no value"));
            }
            match key {
                "ref" => self.set_reference(value)?,
                "tag" => self.set_reference(full_name("refs/tags/", &value))?,
                "branch" => self.set_reference(full_name("refs/heads/", &value))?,
                "commit" | "checksum" => self.checksum = Some(value.to_ascii_lowercase()),
                "subdir" => {
                    let subdir = folder(&value)?;
                    if !self.subdir.as_os_str().is_empty() && self.subdir != subdir {
                        return Err(format!("subdir conflicts: {:?} vs {subdir:?}", self.subdir));
                    }
                    self.subdir = subdir;
                }
                "keep-git-dir" => self.keep_git_dir = Some(switch(key, &value)?),
                "submodules" => self.submodules = switch(key, &value)?,
                "mtime" if value == "commit" => self.times = Times::Commit,
                "mtime" if value == "checkout" => self.times = Times::Checkout,
                "mtime" => return Err(format!("invalid mtime value: {value:?}")),
                // That is what is done anyway.
                "fetch-by-commit" if switch(key, &value)? => {}
                _ => return Err(format!("unexpected query {key:?}")),
            }
        }
        if self.reference.is_none() {
            // A commit in full is fetched as it is; the beginning of one is what the default branch must be at.
            self.reference = self.checksum.clone().filter(|commit| is_full_commit(commit));
        }
        Ok(())
    }

    fn set_reference(&mut self, reference: String) -> Result<(), String> {
        match &self.reference {
            Some(held) if *held != reference => Err(format!("ref conflicts: {held:?} vs {reference:?}")),
            _ => {
                self.reference = Some(reference);
                Ok(())
            }
        }
    }

    fn check(&self) -> Result<(), String> {
        if let Some(reference) = self.reference.as_deref().filter(|reference| !is_reference(reference)) {
            return Err(format!("{reference:?} cannot be the name of a branch, tag or commit"));
        }
        match &self.checksum {
            Some(checksum) => check_commit(checksum),
            None => Ok(()),
        }
    }

    /// The commit, if it is written in full and need not be asked for.
    pub(crate) fn commit(&self) -> Option<String> {
        self.reference.as_ref().filter(|text| is_full_commit(text)).map(|text| text.to_ascii_lowercase())
    }
}

impl fmt::Display for GitSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)?;
        if self.reference.is_some() || !self.subdir.as_os_str().is_empty() {
            write!(f, "#{}", self.reference.as_deref().unwrap_or_default())?;
        }
        if !self.subdir.as_os_str().is_empty() {
            write!(f, ":{}", self.subdir.display())?;
        }
        Ok(())
    }
}

/// The beginning of a commit's name.
pub(crate) fn check_commit(text: &str) -> Result<(), String> {
    let fits = (7..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if fits { Ok(()) } else { Err(format!("{text:?} cannot be the beginning of a commit's name")) }
}

/// The URL without secrets, the secrets, and the protocol.
fn address_of(address: &str, by: WrittenBy) -> Option<(String, Option<Secret>, Protocol)> {
    if let Some((scheme, rest)) = address.split_once("://") {
        let protocol = match scheme.to_ascii_lowercase().as_str() {
            "http" => Protocol::Http,
            "https" => Protocol::Https,
            "ssh" => Protocol::Ssh,
            "git" => Protocol::Git,
            "file" if by == WrittenBy::User => Protocol::File,
            _ => return None,
        };
        if !matches!(protocol, Protocol::Http | Protocol::Https) {
            return Some((format!("{}://{rest}", protocol.name()), None, protocol));
        }
        // A file by HTTP, but for the end of its name.
        if !rest.ends_with(".git") {
            return None;
        }
        let (authority, path) = rest.split_at(rest.find('/')?);
        let (user_info, host) = match authority.rsplit_once('@') {
            Some((user_info, host)) => (Some(Secret::new(user_info)), host),
            None => (None, authority),
        };
        return Some((format!("{}://{host}{path}", protocol.name()), user_info, protocol));
    }
    if by == WrittenBy::User && address.starts_with("github.com/") {
        return Some((format!("https://{address}"), None, Protocol::Https));
    }
    // user@host:path
    let (user, rest) = address.split_once('@')?;
    let (host, path) = rest.split_once(':')?;
    let is_word = |text: &str| {
        text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
            && text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
    };
    (is_word(user) && is_word(host) && !path.is_empty()).then(|| (address.to_owned(), None, Protocol::Ssh))
}

/// A folder inside the repository.
fn folder(text: &str) -> Result<PathBuf, String> {
    let mut path = PathBuf::new();
    for part in Path::new(text).components() {
        match part {
            Component::Normal(name) if name == ".git" => {
                return Err("the folder .git is not a part of the repository".to_owned());
            }
            Component::Normal(name) => path.push(name),
            Component::ParentDir if !path.pop() => {
                return Err(format!("the folder {text:?} is outside of the repository"));
            }
            _ => {}
        }
    }
    Ok(path)
}

fn full_name(prefix: &str, name: &str) -> String {
    if name.starts_with(prefix) { name.to_owned() } else { format!("{prefix}{name}") }
}

fn switch(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("invalid {key} value: {value:?}")),
    }
}

fn is_full_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What git itself would take for a name, and never for an option or a pattern.
fn is_reference(text: &str) -> bool {
    let forbidden = |c: char| c.is_control() || " ~^:?*[\\".contains(c);
    !text.starts_with(['-', '/', '.'])
        && !text.ends_with(['/', '.'])
        && !text.contains(forbidden)
        && !text.contains("..")
        && !text.contains("//")
        && !text.contains("@{")
}

/// `%41` is `A`, `+` is a space.
fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    loop {
        match rest {
            [] => return String::from_utf8(bytes).ok(),
            [b'%', tail @ ..] => {
                let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
                rest = &tail[2..];
            }
            [byte, tail @ ..] => {
                bytes.push(if *byte == b'+' { b' ' } else { *byte });
                rest = tail;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(text: &str, by: WrittenBy) -> String {
        match GitSource::parse(text, by) {
            None => "-".to_owned(),
            Some(Err(why)) => format!("error {why}"),
            Some(Ok(source)) => {
                let more = [
                    source.user_info.as_ref().map(|_| "with user info".to_owned()),
                    source.checksum.as_ref().map(|checksum| format!("at {checksum}")),
                    source.keep_git_dir.map(|keep| format!("keep {keep}")),
                    (!source.submodules).then(|| "no submodules".to_owned()),
                    (source.times == Times::Checkout).then(|| "times of checkout".to_owned()),
                ];
                let more: Vec<String> = more.into_iter().flatten().collect();
                format!("{} {source} {}", source.protocol.name(), more.join(", ")).trim_end().to_owned()
            }
        }
    }

    #[test]
    fn repositories_are_told_from_files() {
        const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
        for (text, expected) in [
            ("a.txt", "-"),
            ("./git@host:x", "-"),
            ("dir/user@x", "-"),
            ("https://host/file.tar.gz", "-"),
            ("https://host/x.git/file", "-"),
            ("file:///x.git", "-"),
            ("github.com/a/b", "-"),
            ("https://host/a/b.git", "https https://host/a/b.git"),
            ("https://host/b.git#main", "https https://host/b.git#main"),
            ("http://host:1/b.git#v1:sub/./dir/", "http http://host:1/b.git#v1:sub/dir"),
            ("https://host/b.git#:sub", "https https://host/b.git#:sub"),
            ("https://me:pw@host/b.git", "https https://host/b.git with user info"),
            ("git@host:a/b.git#x", "ssh git@host:a/b.git#x"),
            ("ssh://git@host:22/a/b", "ssh ssh://git@host:22/a/b"),
            ("git://host/a", "git git://host/a"),
            ("https://h/b.git?branch=x&subdir=s", "https https://h/b.git#refs/heads/x:s"),
            ("https://h/b.git?tag=v%2B1", "https https://h/b.git#refs/tags/v+1"),
            (
                "https://h/b.git?ref=x&keep-git-dir&submodules=0",
                "https https://h/b.git#x keep true, no submodules",
            ),
            ("https://h/b.git?mtime=checkout", "https https://h/b.git times of checkout"),
            ("https://h/b.git?commit=0123456", "https https://h/b.git at 0123456"),
            ("https://h/b.git?ref=a#b", "error https://h/b.git#b: ref conflicts: \"b\" vs \"a\""),
            (
                "https://h/b.git?tag=a&branch=a",
                "error https://h/b.git#refs/tags/a: ref conflicts: \"refs/tags/a\" vs \"refs/heads/a\"",
            ),
            ("https://h/b.git?what=1", "error https://h/b.git: unexpected query \"what\""),
            ("https://h/b.git?ref=", "error https://h/b.git: query \"ref\" has no value"),
            ("https://h/b.git?ref=a&ref=a", "error https://h/b.git#a: query \"ref\" has multiple values"),
            (
                "https://h/b.git#--upload-pack=x",
                "error https://h/b.git#--upload-pack=x: \"--upload-pack=x\" cannot be the name of a branch, tag or commit",
            ),
            (
                "https://h/b.git#:../x",
                "error https://h/b.git: the folder \"../x\" is outside of the repository",
            ),
            (
                "https://h/b.git#:.git",
                "error https://h/b.git: the folder .git is not a part of the repository",
            ),
            (
                "https://h/b.git?commit=xyz",
                "error https://h/b.git: \"xyz\" cannot be the beginning of a commit's name",
            ),
        ] {
            assert_eq!(show(text, WrittenBy::Dockerfile), expected, "{text}");
        }
        let full = GitSource::parse(&format!("https://h/b.git#{COMMIT}"), WrittenBy::Dockerfile);
        assert_eq!(full.expect("git").expect("a source").commit().as_deref(), Some(COMMIT));
    }

    #[test]
    fn who_starts_a_build_may_name_repositories_of_the_machine() {
        for (text, expected) in [
            ("file:///x/y.git#b", "file file:///x/y.git#b"),
            ("github.com/a/b#c", "https https://github.com/a/b#c"),
            ("/x/y.git", "-"),
        ] {
            assert_eq!(show(text, WrittenBy::User), expected, "{text}");
        }
    }
}
