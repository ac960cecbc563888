//! Logging in, and pushing to where only members may.

use std::fs;

use crate::rig::{PASSWORD, ProtectedRegistry, Rig, USER};
use crate::shown::is_id;

const FILES: &[(&str, &str)] =
    &[("Dockerfile", "FROM scratch\nCOPY one /\nCOPY two /\n"), ("one", "1\n"), ("two", "2\n")];

#[test]
fn a20_a21_login_asks_for_name_and_password_and_push_needs_them() {
    let Some(rig) = Rig::start() else { return };
    let Some(registry) = ProtectedRegistry::start(&rig) else { return };
    rig.configure(&registry.address, "127.0.0.1:9");
    rig.context("app", FILES).ok("docker build -t you/myfirstapp .");
    let complaint = rig.fails("docker push you/myfirstapp", 1);
    assert!(complaint.contains("unauthorized") || complaint.contains("denied"), "{complaint}");

    login(&rig);
    let config = fs::read_to_string(rig.path("docker/config.json"))
        .expect("credentials are kept where docker keeps them");
    assert!(config.contains("https://index.docker.io/v1/"), "{config}");
    pushed(&rig);

    rig.ok("docker rmi you/myfirstapp");
    assert!(
        rig.ok("docker pull you/myfirstapp").contains("Downloaded newer image for you/myfirstapp:latest")
    );
    assert!(rig.ok("docker logout").contains("Removing login credentials"));
    rig.fails("docker push you/myfirstapp", 1);
}

fn login(rig: &Rig) {
    let mut terminal = rig.terminal("docker login");
    terminal.wait_for("Username:");
    terminal.type_in(&format!("{USER}\r"));
    terminal.wait_for("Password:");
    terminal.type_in(&format!("{PASSWORD}\r"));
    let (status, screen) = terminal.finish();
    assert_eq!(status, 0, "{screen}");
    assert!(screen.contains("Login Succeeded"), "{screen}");
    assert!(!screen.contains(PASSWORD), "a password is not shown");
}

fn pushed(rig: &Rig) {
    let said = rig.ok("docker push you/myfirstapp");
    assert!(
        said.starts_with(
            "Using default tag: latest\nThe push refers to repository [docker.io/you/myfirstapp]\n"
        ),
        "{said}"
    );
    assert_eq!(said.matches(": Pushed").count(), 2, "{said}");
    let last = said.lines().last().unwrap_or_default();
    let rest = last.strip_prefix("latest: digest: sha256:").unwrap_or_else(|| panic!("{said}"));
    let (digest, size) = rest.split_once(" size: ").expect("a size");
    assert!(is_id(digest, 64) && size.parse::<u64>().is_ok(), "{last}");
    let again = rig.ok("docker push you/myfirstapp");
    assert_eq!(again.matches(": Layer already exists").count(), 2, "{again}");
    assert_eq!(again.lines().last().unwrap_or_default(), last);
    rig.ok("docker tag you/myfirstapp you/other:1.0");
    let other = rig.ok("docker push you/other:1.0");
    assert_eq!(other.matches(": Mounted from you/myfirstapp").count(), 2, "{other}");
    assert!(other.ends_with(&format!("1.0: digest: sha256:{digest} size: {size}")), "{other}");
}

#[test]
fn a_wrong_password_is_refused_and_not_kept() {
    let Some(rig) = Rig::start() else { return };
    let Some(registry) = ProtectedRegistry::start(&rig) else { return };
    let server = &registry.address;
    let complaint = rig.fails(&format!("docker login -u {USER} -p wrong {server}"), 1);
    assert!(complaint.contains("unauthorized"), "{complaint}");
    assert!(!rig.path("docker/config.json").exists());
    let piped =
        rig.run(&format!("sh -c \"echo '{PASSWORD}' | docker login -u {USER} --password-stdin {server}\""));
    assert_eq!(piped.status, 0);
    assert!(piped.both().contains("Login Succeeded"), "{}", piped.both());
    rig.context("app", FILES).ok(&format!("docker build -t {server}/app ."));
    rig.ok(&format!("docker push {server}/app"));
}
