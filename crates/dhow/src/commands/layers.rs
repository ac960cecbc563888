//! What the commands that look inside images share.

use std::path::Path;

use dhow_engine::FileMeta;
use dhow_template::units::{ellipsis, human_size};
use serde_json::{Value, json};

/// As much of an instruction as is shown unless all is wanted.
const INSTRUCTION_WIDTH: usize = 60;

/// How something is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Shape {
    /// For people
    Text,
    /// For programs
    Json,
}

/// An instruction on one line, without what docker's older builder puts before it.
pub(crate) fn instruction(created_by: &str, whole: bool) -> String {
    let text = created_by.strip_prefix("/bin/sh -c #(nop) ").unwrap_or(created_by).trim();
    let text =
        text.strip_suffix("# buildkit").unwrap_or(text).trim_end().replacen("RUN /bin/sh -c ", "RUN ", 1);
    let line = printable(&text.split_whitespace().collect::<Vec<_>>().join(" "));
    if whole { line } else { ellipsis(&line, INSTRUCTION_WIDTH) }
}

/// Text out of an image, with what could upset a terminal escaped.
pub(crate) fn printable(text: &str) -> String {
    let escaped = |c: char| if c.is_control() { c.escape_debug().to_string() } else { c.to_string() };
    text.chars().map(escaped).collect()
}

/// A path out of an image, the same way.
pub(crate) fn shown(path: &Path) -> String {
    printable(&path.to_string_lossy())
}

/// An entry in a few words: `file 0755 0:0 147kB`, `link to usr/bin`.
pub(crate) fn describe(file: &FileMeta) -> String {
    if let Some(target) = &file.target {
        return format!("link to {}", shown(target));
    }
    let size = match file.kind {
        dhow_engine::FileKind::File => format!(" {}", human_size(file.size_bytes)),
        _ => String::new(),
    };
    format!("{} {:04o} {}:{}{size}", file.kind.words(), file.mode, file.uid, file.gid)
}

/// An entry for programs.
pub(crate) fn file_json(file: &FileMeta) -> Value {
    json!({
        "Type": file.kind.words(),
        "Size": file.size_bytes,
        "Mode": format!("{:04o}", file.mode),
        "Uid": file.uid,
        "Gid": file.gid,
        "Target": file.target.as_ref().map(|target| target.display().to_string()),
    })
}
