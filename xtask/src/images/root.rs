//! Files of images that no package brings.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

use super::recipes::File;
use crate::command;

/// Where Debian, and most others, keep the CAs a machine trusts, in one file.
pub(crate) const CA_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

const BUSYBOX_FILES: &[File] = &[
    File {
        path: "etc/passwd",
        mode: 0o644,
        text: "root:x:0:0:root:/root:/bin/sh\n\
               bin:x:1:1:bin:/bin:/bin/false\n\
               daemon:x:2:2:daemon:/sbin:/bin/false\n\
               mail:x:8:12:mail:/var/mail:/bin/false\n\
               www-data:x:82:82:www-data:/var/www:/bin/false\n\
               guest:x:405:100:guest:/dev/null:/bin/false\n\
               nobody:x:65534:65534:nobody:/:/bin/false\n",
    },
    File {
        path: "etc/group",
        mode: 0o644,
        text: "root:x:0:root\nbin:x:1:\ndaemon:x:2:\nadm:x:4:\ntty:x:5:\nwheel:x:10:root\nmail:x:12:\n\
               www-data:x:82:\nusers:x:100:guest\nnobody:x:65534:\n",
    },
    File { path: "etc/shadow", mode: 0o640, text: "root:*::0:::::\nnobody:!::0:::::\n" },
    File { path: "etc/nsswitch.conf", mode: 0o644, text: "hosts: files dns\n" },
    File { path: "etc/hosts", mode: 0o644, text: "" },
    File { path: "etc/resolv.conf", mode: 0o644, text: "" },
];

/// Writes `files` into `tree`.
pub(crate) fn lay(tree: &Path, files: &[File]) -> anyhow::Result<()> {
    for file in files {
        let path = tree.join(file.path);
        fs::create_dir_all(path.parent().expect("a file in a tree has a folder"))?;
        fs::write(&path, file.text).with_context(|| format!("cannot write {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(file.mode))?;
    }
    Ok(())
}

/// Fills the empty `tree` with busybox and what a shell expects around it.
pub(crate) fn busybox(tree: &Path, ca_bundle: &[u8]) -> anyhow::Result<()> {
    let folders = "bin dev etc home lib media mnt opt proc run sbin srv sys usr/bin usr/lib usr/local/bin usr/sbin var/www";
    for folder in folders.split_whitespace() {
        fs::create_dir_all(tree.join(folder))?;
    }
    for (folder, mode) in [("root", 0o700), ("tmp", 0o1777), ("var/tmp", 0o1777)] {
        fs::create_dir_all(tree.join(folder))?;
        fs::set_permissions(tree.join(folder), fs::Permissions::from_mode(mode))?;
    }
    let program = command::find("busybox").context("busybox is not here: run `cargo xtask setup`")?;
    fs::copy(&program, tree.join("bin/busybox"))
        .with_context(|| format!("cannot copy {}", program.display()))?;
    for applet in
        command::output(Command::new(&program).arg("--list"))?.lines().filter(|name| *name != "busybox")
    {
        symlink("busybox", tree.join("bin").join(applet))?;
    }
    symlink("../../bin/busybox", tree.join("usr/bin/env"))?;
    lay(tree, BUSYBOX_FILES)?;
    write_bundle(tree, ca_bundle)?;
    symlink("certs/ca-certificates.crt", tree.join("etc/ssl/cert.pem"))?;
    let mut try_out = Command::new("chroot");
    command::output(try_out.arg(tree).args(["/bin/sh", "-c", "true"]))
        .context("this busybox does not run alone: apt-get install busybox-static")?;
    Ok(())
}

/// Makes the Debian in `tree` trust whom this machine trusts, so that it works behind the same proxies.
pub(crate) fn trust(tree: &Path, ca_bundle: &[u8]) -> anyhow::Result<()> {
    write_bundle(tree, ca_bundle)?;
    // The file OpenSSL, and with it Python's ssl, reads by default; Debian 11 leaves it to its folder of single certificates.
    let default_file = tree.join("usr/lib/ssl/cert.pem");
    if default_file.symlink_metadata().is_err() {
        symlink(CA_BUNDLE, &default_file)
            .with_context(|| format!("cannot create {}", default_file.display()))?;
    }
    let pip = format!("[global]\ncert = {CA_BUNDLE}\n");
    fs::write(tree.join("etc/pip.conf"), pip)?;
    for (path, text) in [("etc/resolv.conf", ""), ("etc/hostname", "")] {
        fs::write(tree.join(path), text)?;
    }
    Ok(())
}

fn write_bundle(tree: &Path, ca_bundle: &[u8]) -> anyhow::Result<()> {
    let path = tree.join(CA_BUNDLE.trim_start_matches('/'));
    fs::create_dir_all(path.parent().expect("the bundle is in a folder"))?;
    fs::write(&path, ca_bundle).with_context(|| format!("cannot write {}", path.display()))
}

/// Removes what only the making needed.
pub(crate) fn tidy(tree: &Path) -> anyhow::Result<()> {
    for folder in ["dev", "run", "tmp", "var/cache/apt", "var/cache/ldconfig", "var/lib/apt/lists", "var/log"]
    {
        empty(&tree.join(folder))?;
    }
    for file in
        ["var/lib/dpkg/status-old", "var/cache/debconf/config.dat-old", "var/cache/debconf/templates.dat-old"]
    {
        match fs::remove_file(tree.join(file)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                bail!("cannot remove {file}: {error}")
            }
            _ => {}
        }
    }
    Ok(())
}

/// Removes everything in a folder, if that is there.
fn empty(folder: &Path) -> anyhow::Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        let removed =
            if entry.file_type()?.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}
