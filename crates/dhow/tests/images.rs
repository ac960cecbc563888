//! Pulling, listing and searching images.

use crate::rig::Rig;
use crate::shown::{cells, inspect, is_id, is_size};

#[test]
fn a01_a02_images_are_listed_in_the_classic_table() {
    let Some(rig) = Rig::start() else { return };
    rig.ok("docker pull hello-world");
    let table = rig.ok("docker images");
    let (header, rows) = table.split_once('\n').expect("a header and an image");
    assert_eq!(cells(header), ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"]);
    let row = cells(rows);
    assert_eq!((row[0], row[1]), ("hello-world", "latest"));
    assert!(is_id(row[2], 12), "{row:?}");
    assert!(row[3].ends_with(" ago"), "{row:?}");
    assert!(is_size(row[4]), "{row:?}");
    for other in ["docker image ls", "docker image list", "dhow images", "docker images hello-world:latest"] {
        assert_eq!(rig.ok(other), table, "{other}");
    }
    assert_eq!(rig.ok("docker images -q"), row[2]);
    assert_eq!(cells(&rig.ok("docker images no-such-image")), cells(header));
}

#[test]
fn a03_pull_fetches_a_tag() {
    let Some(rig) = Rig::start() else { return };
    let said = rig.ok("docker pull python:2.7-slim");
    assert!(said.starts_with("2.7-slim: Pulling from library/python\n"), "{said}");
    assert!(!said.contains("default tag"), "{said}");
    let digest = said.lines().find_map(|line| line.strip_prefix("Digest: ")).expect("the digest is shown");
    assert!(is_id(digest.trim_start_matches("sha256:"), 64), "{digest}");
    assert!(said.contains("Status: Downloaded newer image for python:2.7-slim"), "{said}");
    assert!(said.ends_with("docker.io/library/python:2.7-slim"), "{said}");
    let again = rig.ok("docker pull python:2.7-slim");
    assert!(again.contains("Status: Image is up to date for python:2.7-slim"), "{again}");
    // Nothing but the name of the image, for scripts.
    assert_eq!(rig.ok("docker pull -q python:2.7-slim"), "docker.io/library/python:2.7-slim");
    // What was pulled is what the registry named so.
    let by_digest = format!("python@{digest}");
    assert_eq!(inspect(&rig, "python:2.7-slim")["RepoDigests"][0], by_digest.as_str());
    rig.ok(&format!("docker pull {by_digest}"));
}

#[test]
fn a04_pull_without_a_tag_says_which_it_takes() {
    let Some(rig) = Rig::start() else { return };
    let said = rig.ok("docker pull mongo");
    assert!(said.starts_with("Using default tag: latest\nlatest: Pulling from library/mongo\n"), "{said}");
}

#[test]
fn a05_two_tags_of_one_image_are_listed_twice_with_one_id() {
    let Some(rig) = Rig::start() else { return };
    rig.ok("docker pull ubuntu:20.04");
    rig.ok("docker pull ubuntu");
    let table = rig.ok("docker images ubuntu");
    let rows: Vec<_> = table.lines().skip(1).map(cells).collect();
    let mut tags: Vec<_> = rows.iter().map(|row| row[1]).collect();
    tags.sort_unstable();
    assert_eq!(tags, ["20.04", "latest"]);
    assert_eq!(rows[0][2], rows[1][2]);
    assert_eq!(rig.ok("docker images -q ubuntu").lines().count(), 2);
}

#[test]
fn a06_search_shows_a_table() {
    let Some(rig) = Rig::start() else { return };
    let table = rig.ok("docker search mysql");
    let mut lines = table.lines();
    assert!(cells(lines.next().unwrap_or_default()).starts_with(&[
        "NAME",
        "DESCRIPTION",
        "STARS",
        "OFFICIAL"
    ]));
    let mysql = cells(lines.next().expect("mysql is found"));
    assert_eq!(mysql, ["mysql", "MySQL is a widely used, open-source relation…", "13077", "[OK]"]);
    assert_eq!(mysql[1].chars().count(), 45);
    assert_eq!(lines.count(), 3);
    assert_eq!(rig.ok("docker search --limit 1 mysql").lines().count(), 2);
    assert!(rig.ok("docker search --no-trunc mysql").contains("relational database management system."));
}

#[test]
fn b12_a_name_without_a_slash_is_an_official_image_of_docker_io() {
    let Some(rig) = Rig::start() else { return };
    rig.ok("docker pull docker.io/library/hello-world:latest");
    let id = rig.ok("docker images -q --no-trunc hello-world");
    assert_eq!(inspect(&rig, "hello-world")["RepoTags"][0], "hello-world:latest");
    for name in [
        "hello-world:latest",
        "library/hello-world",
        "docker.io/hello-world",
        "index.docker.io/library/hello-world",
    ] {
        assert_eq!(inspect(&rig, name)["Id"], id.as_str(), "{name}");
    }
    rig.ok("docker tag hello-world you/hello");
    assert!(rig.ok("docker images you/hello").contains("you/hello "));
    let complaint = rig.fails("docker inspect you/nothing", 1);
    assert!(complaint.contains("you/nothing"), "{complaint}");
}

#[test]
fn an_image_is_removed_when_its_last_name_goes() {
    let Some(rig) = Rig::start() else { return };
    rig.ok("docker pull hello-world");
    let id = rig.ok("docker images -q --no-trunc");
    rig.ok("docker tag hello-world greeting");
    assert_eq!(rig.ok("docker rmi greeting"), "Untagged: greeting:latest");
    let said = rig.ok("docker rmi hello-world");
    assert!(said.contains("Untagged: hello-world:latest"), "{said}");
    assert!(said.contains(&format!("Deleted: {id}")), "{said}");
    assert_eq!(rig.ok("docker images -q"), "");
    let complaint = rig.fails("docker rmi hello-world", 1);
    assert!(complaint.contains("No such image: hello-world"), "{complaint}");
}
