//! Users and groups by the names a container gives them.

use std::io::Read;
use std::path::Path;

use dhow_sys::beneath::Root;

use crate::StartError;

/// The most that is read of `/etc/passwd` and `/etc/group`.
const BYTES_MAX: u64 = 8 << 20;

/// Whom a process runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Home directory, if the user is known.
    pub home: Option<String>,
}

/// Finds `user` (`name`, `uid`, either with `:group` or `:gid`; empty is root) and `extra` groups in the files
/// of the container, as Docker does.
pub(crate) fn resolve(root: &Root, user: &str, extra: &[&str]) -> Result<Identity, StartError> {
    find(&read(root, "/etc/passwd"), &read(root, "/etc/group"), user, extra)
}

/// A file that is missing or unreadable knows nobody, which is not an error: ids need no names.
fn read(root: &Root, path: &str) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = root.open_file(Path::new(path)) {
        // What was read before an error is as good as a shorter file.
        let _ = file.take(BYTES_MAX).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn find(passwd: &str, group: &str, user: &str, extra: &[&str]) -> Result<Identity, StartError> {
    let (name, group_name) = match user.split_once(':') {
        Some((name, group_name)) => (name, group_name),
        None => (user, ""),
    };
    let mut identity = find_user(passwd, if name.is_empty() { "0" } else { name })?;
    match group_name {
        "" => identity.groups = memberships(passwd, group, identity.uid),
        group_name => identity.gid = find_group(group, group_name)?,
    }
    // The group itself is among them, or a program could shed it and pass checks that deny it (CVE-2022-36109).
    let mut groups = vec![identity.gid];
    let extra = extra.iter().map(|name| find_group(group, name)).collect::<Result<Vec<u32>, _>>()?;
    for gid in identity.groups.into_iter().chain(extra) {
        if !groups.contains(&gid) {
            groups.push(gid);
        }
    }
    identity.groups = groups;
    Ok(identity)
}

fn find_user(passwd: &str, name: &str) -> Result<Identity, StartError> {
    let number = name.parse::<u32>().ok();
    let mut known = passwd.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let &[login, _, uid, gid, _, home, ..] = fields.as_slice() else { return None };
        Some((login, uid.parse::<u32>().ok()?, gid.parse().ok()?, home))
    });
    match known.find(|(login, uid, ..)| *login == name || Some(*uid) == number) {
        Some((_, uid, gid, home)) => Ok(Identity { uid, gid, groups: vec![], home: Some(home.to_string()) }),
        None => match number.filter(|uid| *uid <= i32::MAX as u32) {
            Some(uid) => Ok(Identity { uid, ..Identity::default() }),
            None => Err(StartError::Setup(format!(
                "unable to find user {name}: no matching entries in passwd file"
            ))),
        },
    }
}

fn find_group(group: &str, name: &str) -> Result<u32, StartError> {
    let number = name.parse::<u32>().ok();
    let by_name = group_lines(group).find(|(known, ..)| *known == name).map(|(_, gid, _)| gid);
    by_name.or(number.filter(|gid| *gid <= i32::MAX as u32)).ok_or_else(|| {
        StartError::Setup(format!("unable to find group {name}: no matching entries in group file"))
    })
}

/// The groups that list the user as a member, under any name of that id.
fn memberships(passwd: &str, group: &str, uid: u32) -> Vec<u32> {
    let names: Vec<&str> = passwd
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
        })
        .collect();
    let is_member = |members: &str| members.split(',').any(|member| names.contains(&member));
    group_lines(group).filter(|(_, _, members)| is_member(members)).map(|(_, gid, _)| gid).collect()
}

fn group_lines(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _, gid) = (fields.next()?, fields.next()?, fields.next()?);
        Some((name, gid.parse().ok()?, fields.next().unwrap_or_default()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nbob:x:1000:100::/home/bob:\nbroken\n1234:x:7:7::/n:\n";
    const GROUP: &str = "root:x:0:\nusers:x:100:\nstaff:x:50:alice,bob\nwheel:x:10:root\n";

    fn check(user: &str, extra: &[&str], expected: &str) {
        let found = match find(PASSWD, GROUP, user, extra) {
            Ok(Identity { uid, gid, groups, home }) => {
                format!("{uid}:{gid} {groups:?} {}", home.unwrap_or_else(|| "-".into()))
            }
            Err(error) => error.to_string(),
        };
        assert_eq!(found, expected, "{user}");
    }

    #[test]
    fn users_and_groups_are_found_as_docker_finds_them() {
        check("", &[], "0:0 [0, 10] /root");
        check("bob", &[], "1000:100 [100, 50] /home/bob");
        check("1000", &[], "1000:100 [100, 50] /home/bob");
        check("bob:staff", &[], "1000:50 [50] /home/bob");
        check("bob:7", &["wheel", "7"], "1000:7 [7, 10] /home/bob");
        check("4242", &[], "4242:0 [0] -");
        check("1234", &[], "7:7 [7] /n");
        check("eve", &[], "unable to find user eve: no matching entries in passwd file");
        check("bob:eve", &[], "unable to find group eve: no matching entries in group file");
        check("4294967295", &[], "unable to find user 4294967295: no matching entries in passwd file");
    }
}
