//! Pages in `transcripts/` are documentation and test at once.
//!
//! A `console` block holds lines to run, each after `$ `, and what they say. A block whose fence names a file, as in
//! `` ```dockerfile app/Dockerfile ``, is written there first. Lines are run by a shell. IDs are replaced by made-up ones
//! that stay the same; everything else has to be as it is written. `UPDATE_EXPECT=1` writes what was said into the pages.

use std::fs;
use std::path::Path;

use expect_test::expect_file;

use crate::rig::{Normal, Rig};

const FENCE: &str = "```";

/// Runs a page and returns it with what was really said.
fn play(rig: &Rig, page: &str) -> String {
    let mut normal = Normal::default().replace(rig.registry(), "localhost:5000");
    let mut result = String::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        result += line;
        result.push('\n');
        let Some(info) = line.strip_prefix(FENCE) else { continue };
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != FENCE).collect();
        result += &match info.split_once(' ') {
            Some((_, path)) => write(rig, path, &block),
            None if info == "console" => run(rig, &mut normal, &block),
            None => block.iter().map(|line| format!("{line}\n")).collect(),
        };
        result += FENCE;
        result.push('\n');
    }
    result
}

fn write(rig: &Rig, path: &str, block: &[&str]) -> String {
    let text: String = block.iter().map(|line| format!("{line}\n")).collect();
    rig.at("").write(path, &text);
    text
}

fn run(rig: &Rig, normal: &mut Normal, block: &[&str]) -> String {
    let mut said = String::new();
    for line in block.iter().filter_map(|line| line.strip_prefix("$ ")) {
        rig.at("")
            .write("../line", &format!("exec 2>&1\n{}\n", line.replace("localhost:5000", rig.registry())));
        let finished = rig.run("sh ../line");
        said += &format!("$ {line}\n{}", normal.text(&finished.stdout));
        if finished.status != 0 {
            said += &format!("[exit status: {}]\n", finished.status);
        }
    }
    said
}

fn check(name: &str) {
    let Some(rig) = Rig::start() else { return };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts").join(name);
    let page = fs::read_to_string(&path).expect("a page");
    expect_file![path].assert_eq(&play(&rig, &page));
}

#[test]
fn images() {
    check("images.md");
}

#[test]
fn build() {
    check("build.md");
}

#[test]
fn containers() {
    check("containers.md");
}

#[test]
fn inside() {
    check("inside.md");
}

#[test]
fn mistakes() {
    check("mistakes.md");
}

#[test]
fn networks() {
    check("networks.md");
}

#[test]
fn registries() {
    check("registries.md");
}
