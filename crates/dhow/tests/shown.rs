//! Reading what dhow shows.

use serde_json::Value;

use crate::rig::{Finished, Rig};

/// The cells of a line of a table. Columns are three spaces apart, cells hold single ones.
pub(crate) fn cells(line: &str) -> Vec<&str> {
    line.split("   ").map(str::trim).filter(|cell| !cell.is_empty()).collect()
}

/// Whether `text` is what docker shows for a size: `5.54MB`, `13.3kB`, `0B`.
pub(crate) fn is_size(text: &str) -> bool {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    ["B", "kB", "MB", "GB"].contains(&&text[number.len()..]) && number.parse::<f64>().is_ok()
}

/// Whether `text` is `length` digits of an ID.
pub(crate) fn is_id(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// The instructions of a `--progress=plain` build that had to be executed, by their text.
pub(crate) fn executed(build: &Finished) -> Vec<String> {
    let mut titles = Vec::new();
    let mut executed = Vec::new();
    for line in build.stderr.lines().filter_map(|line| line.strip_prefix('#')) {
        let Some((number, said)) = line.split_once(' ') else { continue };
        if let Some((_, text)) = said.strip_prefix('[').and_then(|said| said.split_once("] ")) {
            titles.push((number.to_owned(), text.to_owned()));
        } else if said.starts_with("not cached: ") {
            let title = titles.iter().find(|(known, _)| known == number);
            executed.push(title.expect("a step begins before it is executed").1.clone());
        }
    }
    executed
}

/// What `dhow inspect` knows about one thing.
#[track_caller]
pub(crate) fn inspect(rig: &Rig, name: &str) -> Value {
    let json = rig.ok(&format!("docker inspect {name}"));
    let Value::Array(mut things) = serde_json::from_str(&json).expect("inspect prints JSON") else {
        panic!("inspect prints an array, not {json}");
    };
    assert_eq!(things.len(), 1, "one thing was asked for");
    things.remove(0)
}

/// The layers of an image, as digests.
#[track_caller]
pub(crate) fn layers(rig: &Rig, image: &str) -> Vec<String> {
    let layers = inspect(rig, image)["RootFS"]["Layers"].clone();
    serde_json::from_value(layers).expect("an image has layers")
}

/// The host port that a container's port is published at.
#[track_caller]
pub(crate) fn published(rig: &Rig, container: &str, port: u16) -> u16 {
    let listed = rig.ok(&format!("docker port {container} {port}"));
    let first = listed.lines().next().expect("the port is published");
    first.rsplit(':').next().and_then(|port| port.parse().ok()).expect("ADDRESS:PORT")
}
