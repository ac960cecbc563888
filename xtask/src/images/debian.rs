//! Where to get Debian from.

use std::process::Command;

use crate::command;
use crate::http::Request;

use super::recipes::DEBIAN_SUITE;

/// A suite on a mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) suite: &'static str,
    mirror: String,
    security_mirror: String,
}

impl Source {
    /// The suite the recipes are written for, from this machine's mirror or from Debian's archive; when it is in neither, the
    /// current one. What is not the first choice is said aloud.
    pub(crate) fn choose() -> anyhow::Result<Self> {
        let candidates = Self::candidates(&apt_repositories());
        let chosen = candidates.iter().position(Self::is_served);
        let source =
            candidates.into_iter().nth(chosen.unwrap_or_default()).expect("there are always candidates");
        match chosen {
            Some(0) => {}
            Some(_) => println!("    Debian {DEBIAN_SUITE} is not on the usual mirror: taking {source:?}"),
            // mmdebstrap knows ways to a mirror that we do not, and says what is wrong if it fails too.
            None => println!("    no mirror could be looked at: trying {source:?}"),
        }
        Ok(source)
    }

    fn candidates(repositories: &[String]) -> [Self; 3] {
        let known = |end: &str, default: &str| {
            let found =
                repositories.iter().map(|uri| uri.trim_end_matches('/')).find(|uri| uri.ends_with(end));
            found.unwrap_or(default).to_owned()
        };
        let mirror = known("/debian", "http://deb.debian.org/debian");
        let security_mirror = known("/debian-security", "http://deb.debian.org/debian-security");
        let archive = "http://archive.debian.org/debian";
        [
            Self { suite: DEBIAN_SUITE, mirror: mirror.clone(), security_mirror: security_mirror.clone() },
            Self {
                suite: DEBIAN_SUITE,
                mirror: archive.to_owned(),
                security_mirror: format!("{archive}-security"),
            },
            Self { suite: "stable", mirror, security_mirror },
        ]
    }

    /// The source in the words of sources.list.
    pub(crate) fn lines(&self) -> [String; 2] {
        let Self { suite, mirror, security_mirror } = self;
        [format!("deb {mirror} {suite} main"), format!("deb {security_mirror} {suite}-security main")]
    }

    fn is_served(&self) -> bool {
        let Some((host, path)) = self.mirror.strip_prefix("http://").and_then(|rest| rest.split_once('/'))
        else {
            return true; // Not HTTP, so it cannot be asked by us.
        };
        let target = format!("/{path}/dists/{}/Release", self.suite);
        let host_and_port = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
        Request::new("HEAD", &target).send(&host_and_port).is_ok_and(|response| response.status < 400)
    }
}

/// The addresses this machine's apt takes packages from. None are known on a machine without apt.
fn apt_repositories() -> Vec<String> {
    let mut command = Command::new("apt-get");
    command.args(["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]);
    command::output(&mut command).map(|text| text.lines().map(str::to_owned).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_this_machine_uses_comes_first() {
        let repositories = [
            "http://mirror.example/debian-security/",
            "https://other.example/",
            "http://mirror.example/debian/",
        ];
        let [first, archive, last] = Source::candidates(&repositories.map(str::to_owned));
        assert_eq!(
            first.lines(),
            [
                "deb http://mirror.example/debian bullseye main",
                "deb http://mirror.example/debian-security bullseye-security main",
            ]
        );
        assert_eq!(archive.lines()[0], "deb http://archive.debian.org/debian bullseye main");
        assert_eq!(last.lines()[0], "deb http://mirror.example/debian stable main");
    }

    #[test]
    fn without_apt_it_is_the_mirror_of_debian() {
        let [first, ..] = Source::candidates(&[]);
        assert_eq!(first.lines()[0], "deb http://deb.debian.org/debian bullseye main");
    }
}
