//! The container's log: one JSON object a line, in the format of Docker's json-file driver.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;

use serde::Serialize;

use crate::LogFile;
use crate::once::OutputStream;

/// A line longer than this is logged in pieces, as Docker does.
pub(super) const LINE_BYTES_MAX: usize = 16 * 1024;

#[derive(Serialize)]
struct Entry<'a> {
    log: &'a str,
    stream: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    attrs: &'a BTreeMap<String, String>,
    time: &'a str,
}

/// Cuts output into lines and appends them to the log.
#[derive(Debug)]
pub(super) struct Log {
    file: Option<File>,
    place: LogFile,
    bytes: u64,
    partial: [Vec<u8>; 2],
}

impl Log {
    /// Opens the log, which may exist.
    pub(super) fn open(place: &LogFile) -> io::Result<Self> {
        let file = File::options().append(true).create(true).open(&place.path)?;
        let bytes = file.metadata()?.len();
        Ok(Log { file: Some(file), place: place.clone(), bytes, partial: [Vec::new(), Vec::new()] })
    }

    /// Logs the lines that `data` completes, and keeps the rest.
    pub(super) fn write(&mut self, stream: OutputStream, data: &[u8], time: &str) -> io::Result<()> {
        let mut text = Vec::new();
        let mut partial = std::mem::take(&mut self.partial[index(stream)]);
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            partial.extend_from_slice(piece);
            while partial.len() >= LINE_BYTES_MAX {
                let rest = partial.split_off(LINE_BYTES_MAX);
                append(&mut text, stream, &partial, &self.place.attributes, time)?;
                partial = rest;
            }
            if partial.ends_with(b"\n") {
                append(&mut text, stream, &partial, &self.place.attributes, time)?;
                partial.clear();
            }
        }
        self.partial[index(stream)] = partial;
        self.store(&text)
    }

    /// Logs what came after the last line break.
    pub(super) fn finish(&mut self, time: &str) -> io::Result<()> {
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            let partial = std::mem::take(&mut self.partial[index(stream)]);
            if !partial.is_empty() {
                let mut text = Vec::new();
                append(&mut text, stream, &partial, &self.place.attributes, time)?;
                self.store(&text)?;
            }
        }
        Ok(())
    }

    /// Writes whole entries, each into a file that has room for it.
    fn store(&mut self, mut text: &[u8]) -> io::Result<()> {
        while !text.is_empty() {
            let room = self.place.bytes_max.map_or(u64::MAX, |max| max.saturating_sub(self.bytes));
            let mut bytes = entries_within(text, room);
            if bytes == 0 && self.bytes > 0 {
                self.rotate()?;
                continue;
            }
            if bytes == 0 {
                // No file has room for it.
                bytes = text.iter().position(|byte| *byte == b'\n').map_or(text.len(), |end| end + 1);
            }
            let (now, later) = text.split_at(bytes);
            self.append(now)?;
            text = later;
        }
        Ok(())
    }

    fn append(&mut self, text: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            // A rotation came to grief half-way, on a disk that was full.
            let file = File::options().append(true).create(true).open(&self.place.path)?;
            self.bytes = file.metadata()?.len();
            self.file = Some(file);
        }
        let file = self.file.as_mut().expect("just opened");
        if let Err(error) = file.write_all(text) {
            // Half a line would spoil the next one.
            file.set_len(self.bytes)?;
            return Err(error);
        }
        self.bytes += text.len() as u64;
        Ok(())
    }

    /// `log` becomes `log.1`, that `log.2`, and so on; the last one goes.
    fn rotate(&mut self) -> io::Result<()> {
        self.file = None;
        let numbered = |number: u32| {
            let mut name = self.place.path.clone().into_os_string();
            if number > 0 {
                name.push(format!(".{number}"));
            }
            PathBuf::from(name)
        };
        for number in (1..self.place.files_max).rev() {
            match fs::rename(numbered(number - 1), numbered(number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let fresh = File::options().append(true).create(true).truncate(false).open(&self.place.path)?;
        // With one file only, that is it.
        fresh.set_len(0)?;
        self.file = Some(fresh);
        self.bytes = 0;
        Ok(())
    }
}

/// How many bytes of `text` are whole entries that fit into `room`.
fn entries_within(text: &[u8], room: u64) -> usize {
    let room = usize::try_from(room).unwrap_or(usize::MAX).min(text.len());
    text[..room].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1)
}

fn index(stream: OutputStream) -> usize {
    match stream {
        OutputStream::Stdout => 0,
        OutputStream::Stderr => 1,
    }
}

fn append(
    text: &mut Vec<u8>,
    stream: OutputStream,
    line: &[u8],
    attrs: &BTreeMap<String, String>,
    time: &str,
) -> io::Result<()> {
    let log = String::from_utf8_lossy(line);
    let stream = ["stdout", "stderr"][index(stream)];
    serde_json::to_writer(&mut *text, &Entry { log: &log, stream, attrs, time })?;
    text.push(b'\n');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(bytes_max: Option<u64>) -> (tempfile::TempDir, Log) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let log = Log::open(&LogFile { path, bytes_max, files_max: 2, attributes: BTreeMap::new() }).unwrap();
        (dir, log)
    }

    #[test]
    fn lines_are_logged_when_they_are_complete() {
        let (dir, mut log) = log(None);
        log.write(OutputStream::Stdout, b"one\ntw", "T").unwrap();
        log.write(OutputStream::Stderr, b"err\xff\n", "T").unwrap();
        log.write(OutputStream::Stdout, b"o\nend", "U").unwrap();
        log.finish("V").unwrap();
        let text = fs::read_to_string(dir.path().join("log")).unwrap();
        let expected = r#"{"log":"one\n","stream":"stdout","time":"T"}
{"log":"err�\n","stream":"stderr","time":"T"}
{"log":"two\n","stream":"stdout","time":"U"}
{"log":"end","stream":"stdout","time":"V"}
"#;
        assert_eq!(text, expected);
    }

    #[test]
    fn a_long_line_is_cut() {
        let (dir, mut log) = log(None);
        log.write(OutputStream::Stdout, &[b'x'; LINE_BYTES_MAX + 5], "T").unwrap();
        log.write(OutputStream::Stdout, b"\n", "T").unwrap();
        let text = fs::read_to_string(dir.path().join("log")).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["log"].as_str().unwrap().len(), LINE_BYTES_MAX);
        assert_eq!(lines[1]["log"], "xxxxx\n");
    }

    #[test]
    fn much_at_once_is_spread_over_the_files() {
        let (dir, mut log) = log(Some(200));
        log.write(OutputStream::Stdout, "0123456789\n".repeat(20).as_bytes(), "T").unwrap();
        let texts = ["log.1", "log"].map(|name| fs::read_to_string(dir.path().join(name)).unwrap());
        assert!(texts.iter().all(|text| text.len() <= 200 && text.ends_with("}\n")), "{texts:?}");
        assert!(!dir.path().join("log.2").exists());
    }

    #[test]
    fn attributes_are_said_with_each_line() {
        let (dir, mut log) = log(None);
        log.place.attributes.insert("a".into(), "b".into());
        log.write(OutputStream::Stdout, b"x\n", "T").unwrap();
        let text = fs::read_to_string(dir.path().join("log")).unwrap();
        assert_eq!(text, "{\"log\":\"x\\n\",\"stream\":\"stdout\",\"attrs\":{\"a\":\"b\"},\"time\":\"T\"}\n");
    }

    #[test]
    fn a_full_log_is_put_aside() {
        let (dir, mut log) = log(Some(100));
        for _ in 0..5 {
            log.write(OutputStream::Stdout, b"0123456789\n", "T").unwrap();
        }
        let lines = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap().lines().count();
        assert_eq!((lines("log.1"), lines("log")), (1, 1), "two files of one line each are all that fits");
    }
}
