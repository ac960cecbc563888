//! `cargo xtask setup`: installs what this machine lacks.
//!
//! Something counts as present when its program or file is there, however it came: an own build of runc is as good as Debian's.

use std::fs::OpenOptions;
use std::path::Path;
use std::process::Command;

use anyhow::bail;

use crate::{command, s3};

/// What packages are needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    /// Making the test images.
    Images,
    /// Running the tests.
    Test,
    /// The demonstration.
    Demo,
    /// Comparing speed with rivals.
    Bench,
    /// Comparing results with docker.
    Differential,
}

impl Group {
    /// Reads a group's name.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        match word {
            "images" => Some(Self::Images),
            "test" => Some(Self::Test),
            "demo" => Some(Self::Demo),
            "bench" => Some(Self::Bench),
            "differential" => Some(Self::Differential),
            _ => None,
        }
    }
}

/// A Debian package, how to see that it is here, and what for.
struct Package {
    name: &'static str,
    /// A program on the path, or a file if it starts with a slash.
    sign: &'static str,
    groups: &'static [Group],
}

const fn package(name: &'static str, sign: &'static str, groups: &'static [Group]) -> Package {
    Package { name, sign, groups }
}

use Group::{Bench, Demo, Differential, Images, Test};

/// Everything any chore runs that is not part of a minimal Debian with Rust, gcc, python3 and git.
const PACKAGES: &[Package] = &[
    package("ca-certificates", "/etc/ssl/certs/ca-certificates.crt", &[Images, Test, Demo]),
    // Containers get their network from these two.
    package("nftables", "nft", &[Test, Demo, Bench]),
    package("iproute2", "ip", &[Test, Demo, Bench]),
    // Roots for images, and the registry that holds them.
    package("busybox-static", "busybox", &[Images]),
    package("mmdebstrap", "mmdebstrap", &[Images]),
    package("docker-registry", "docker-registry", &[Images, Test, Demo]),
    // Others must accept what dhow writes, and dhow what they write.
    package("skopeo", "skopeo", &[Test, Bench]),
    package("umoci", "umoci", &[Test]),
    package("oci-image-tool", "oci-image-tool", &[Test]),
    package("buildah", "buildah", &[Test, Bench]),
    package("podman", "podman", &[Test, Bench]),
    package("crun", "crun", &[Test, Bench]),
    package("strace", "strace", &[Test]),
    package("runc", "runc", &[Test, Bench]),
    package("crun", "crun", &[Test]),
    // One test reads the tutorials' pages as a person would.
    package("chromium", "chromium", &[Test]),
    package("curl", "curl", &[Test, Demo]),
    // Repositories come by SSH, and agents hold keys.
    package("openssh-client", "ssh-agent", &[Test]),
    package("openssh-server", "/usr/sbin/sshd", &[Test]),
    // Tests start a daemon of their own; it comes with the BuildKit that results are compared with.
    package("docker.io", "/usr/sbin/dockerd", &[Test, Bench, Differential]),
    package("docker-compose", "docker-compose", &[Test]),
    package("python3-docker", "/usr/lib/python3/dist-packages/docker", &[Test]),
    package("time", "/usr/bin/time", &[Bench]),
];

/// Installs what `groups` need and this machine lacks.
pub(crate) fn run(groups: &[Group]) -> anyhow::Result<()> {
    packages(groups)?;
    if groups.contains(&Test) {
        s3::setup();
    }
    Ok(())
}

fn packages(groups: &[Group]) -> anyhow::Result<()> {
    let missing = missing(groups, is_present);
    if missing.is_empty() {
        println!("setup: nothing is missing");
        return Ok(());
    }
    println!("setup: installing {}", missing.join(" "));
    if command::find("apt-get").is_none() {
        bail!("there is no apt-get here; install the equivalents of: {}", missing.join(" "));
    }
    if !command::is_root() {
        bail!("installing packages needs root; run this as root: apt-get install {}", missing.join(" "));
    }
    command::run(apt_get().arg("update"))?;
    let _quiet = NoServices::declare();
    command::run(apt_get().args(["install", "--yes", "--no-install-recommends"]).args(&missing))
}

/// While it lives, packages that are installed start no services: tests start their own, and a daemon on its own account would
/// change the machine's firewall.
struct NoServices {
    ours: bool,
}

impl NoServices {
    /// What Debian's maintainer scripts ask before they start anything.
    const POLICY: &str = "/usr/sbin/policy-rc.d";

    /// A policy that is here already stays as it is.
    fn declare() -> Self {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;
        let file = OpenOptions::new().write(true).create_new(true).mode(0o755).open(Self::POLICY);
        let written = file.and_then(|mut file| file.write_all(b"#!/bin/sh\nexit 101\n"));
        Self { ours: written.is_ok() }
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours {
            let _ = std::fs::remove_file(Self::POLICY);
        }
    }
}

/// The packages of `groups` whose sign is absent, in the order of the table.
fn missing(groups: &[Group], is_present: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let needed = PACKAGES.iter().filter(|package| package.groups.iter().any(|group| groups.contains(group)));
    needed.filter(|package| !is_present(package.sign)).map(|package| package.name).collect()
}

fn is_present(sign: &str) -> bool {
    if sign.starts_with('/') { Path::new(sign).exists() } else { command::find(sign).is_some() }
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.arg("--quiet").env("DEBIAN_FRONTEND", "noninteractive").stdin(std::process::Stdio::null());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_group_needs_is_missing() {
        let all = missing(&[Images], |_| false);
        assert_eq!(all, ["ca-certificates", "busybox-static", "mmdebstrap", "docker-registry"]);
        assert!(!missing(&[Images, Demo], |_| false).contains(&"chromium"));
        assert!(missing(&[Test], |_| false).contains(&"chromium"));
    }

    #[test]
    fn what_is_present_is_left_alone() {
        assert_eq!(missing(&[Images], |sign| sign != "mmdebstrap"), ["mmdebstrap"]);
        assert!(missing(&[Images, Test, Demo, Bench], |_| true).is_empty());
    }
}
