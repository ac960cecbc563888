//! Reading what containers wrote.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader};
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use dhow_runtime::OutputStream;
use serde::Deserialize;

use crate::containers::Containers;
use crate::error::{DiskError, LogsError, disk};
use crate::log_config::LogConfig;

/// How often a growing log is looked at.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(50);
/// The longest line of a log; the shim writes lines of 16 KiB, which JSON may make six times as long.
const LINE_BYTES_MAX: usize = 256 * 1024;
/// How much of a file is read at once when its last lines are looked for.
const BLOCK_BYTES: u64 = 64 * 1024;

/// What of a log is wanted.
#[derive(Clone, Debug, Default)]
pub struct LogsOptions {
    /// Go on until the container ends.
    pub follow: bool,
    /// Only this many lines from the end.
    pub tail: Option<usize>,
    /// Only what was written at this time or later.
    pub since: Option<jiff::Timestamp>,
    /// Only what was written at this time or earlier.
    pub until: Option<jiff::Timestamp>,
}

/// One line of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Where the program wrote it.
    pub stream: OutputStream,
    /// When, RFC 3339 with nanoseconds.
    pub time: String,
    /// What, with its line end unless it was cut.
    pub text: String,
    /// What was said with it.
    pub attributes: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Entry {
    log: String,
    stream: String,
    time: String,
    #[serde(default)]
    attrs: BTreeMap<String, String>,
}

impl Containers {
    /// Hands the lines of a container's log to `each`, oldest first, until it breaks off.
    pub fn logs(
        &self,
        text: &str,
        options: &LogsOptions,
        each: &mut dyn FnMut(LogLine) -> ControlFlow<()>,
    ) -> Result<(), LogsError> {
        self.logs_while(text, options, &|| true, each)
    }

    /// The same, with somebody who is asked while nothing is written whether it shall go on.
    pub fn logs_while(
        &self,
        text: &str,
        options: &LogsOptions,
        wants_more: &dyn Fn() -> bool,
        each: &mut dyn FnMut(LogLine) -> ControlFlow<()>,
    ) -> Result<(), LogsError> {
        let container = self.find(text)?;
        let LogConfig::JsonFile(config) = &container.record.host.log else {
            return Err(LogsError::NotKept);
        };
        let files_max = config.files_max;
        let path = self.log_path(&container.id);
        let mut filtered = |line: LogLine| match options.admits(&line) {
            Admission::Yes => each(line),
            Admission::TooEarly => ControlFlow::Continue(()),
            Admission::TooLate => ControlFlow::Break(()),
        };
        let mut reader = Reader::open(&path, files_max, options.tail)?;
        loop {
            // Asked before reading: what an ended container wrote is all there.
            let goes_on =
                options.follow && dhow_runtime::is_alive(&self.run_dir(&container.id)).unwrap_or(false);
            if reader.read(&mut filtered)?.is_break() || !goes_on || !wants_more() {
                return Ok(());
            }
            thread::sleep(FOLLOW_INTERVAL);
        }
    }
}

enum Admission {
    Yes,
    TooEarly,
    TooLate,
}

impl LogsOptions {
    fn admits(&self, line: &LogLine) -> Admission {
        if self.since.is_none() && self.until.is_none() {
            return Admission::Yes;
        }
        // A line without a readable time was not written by dhow; it is shown rather than lost.
        let Ok(time) = line.time.parse::<jiff::Timestamp>() else { return Admission::Yes };
        match (self.since, self.until) {
            (Some(since), _) if time < since => Admission::TooEarly,
            (_, Some(until)) if time > until => Admission::TooLate,
            _ => Admission::Yes,
        }
    }
}

/// Reads a log and those it was rotated out of the way for.
struct Reader {
    path: PathBuf,
    /// Files still to be read, oldest first.
    waiting: Vec<File>,
    current: Option<Current>,
}

struct Current {
    input: BufReader<File>,
    inode: u64,
    /// A line whose end was not written yet.
    partial: Vec<u8>,
}

impl Reader {
    fn open(path: &Path, files_max: u32, tail: Option<usize>) -> Result<Reader, DiskError> {
        let numbered = |number: u32| match number {
            0 => path.to_path_buf(),
            number => PathBuf::from(format!("{}.{number}", path.display())),
        };
        // Newest first; a file more may appear while we look, and is then the one we have.
        let mut files = Vec::new();
        for number in 0..files_max.max(1) {
            match File::open(numbered(number)) {
                Ok(file) => files.push(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(disk("read", path)(error)),
            }
        }
        if let Some(lines) = tail {
            seek_to_tail(&mut files, lines).map_err(disk("read", path))?;
        }
        Ok(Reader { path: path.to_path_buf(), waiting: files, current: None })
    }

    /// Hands on all complete lines there are now.
    fn read(
        &mut self,
        each: &mut dyn FnMut(LogLine) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, DiskError> {
        let path = self.path.clone();
        loop {
            if let Some(current) = &mut self.current
                && current.read(each).map_err(disk("read", &path))?.is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
            if !self.next_file().map_err(disk("read", &path))? {
                return Ok(ControlFlow::Continue(()));
            }
        }
    }

    /// Goes on to the next file, if there is one.
    fn next_file(&mut self) -> io::Result<bool> {
        if let Some(file) = self.waiting.pop() {
            self.current = Some(Current::new(file)?);
            return Ok(true);
        }
        let inode = self.current.as_ref().map(|current| current.inode);
        match fs::metadata(&self.path) {
            Ok(metadata) if Some(metadata.ino()) != inode => {
                self.current = Some(Current::new(File::open(&self.path)?)?);
                Ok(true)
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(false),
        }
    }
}

impl Current {
    fn new(file: File) -> io::Result<Current> {
        let inode = file.metadata()?.ino();
        Ok(Current { input: BufReader::new(file), inode, partial: Vec::new() })
    }

    fn read(&mut self, each: &mut dyn FnMut(LogLine) -> ControlFlow<()>) -> io::Result<ControlFlow<()>> {
        loop {
            let buffer = self.input.fill_buf()?;
            if buffer.is_empty() {
                return Ok(ControlFlow::Continue(()));
            }
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let taken = end.map_or(buffer.len(), |end| end + 1);
            if self.partial.len() + taken <= LINE_BYTES_MAX {
                self.partial.extend_from_slice(&buffer[..taken]);
            }
            self.input.consume(taken);
            if end.is_some() {
                let line = parse(&self.partial);
                self.partial.clear();
                if let Some(line) = line
                    && each(line).is_break()
                {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
    }
}

/// A line that is no entry was torn by a full disk or a crash, and is left out.
fn parse(line: &[u8]) -> Option<LogLine> {
    let Entry { log, stream, time, attrs } = serde_json::from_slice(line).ok()?;
    let stream = if stream == "stderr" { OutputStream::Stderr } else { OutputStream::Stdout };
    Some(LogLine { stream, time, text: log, attributes: attrs })
}

/// Drops what is before the last `lines` lines: files (newest first) from the list, the rest by seeking.
fn seek_to_tail(files: &mut Vec<File>, lines: usize) -> io::Result<()> {
    let mut left = lines;
    for index in 0..files.len() {
        left = seek_back(&mut files[index], left)?;
        if left == 0 {
            files.truncate(index + 1);
            break;
        }
    }
    Ok(())
}

/// Places a file at its last `lines` lines, or at its start; returns how many lines it lacked.
fn seek_back(file: &mut File, lines: usize) -> io::Result<usize> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let mut end = file.metadata()?.len();
    if lines == 0 {
        file.seek(SeekFrom::Start(end))?;
        return Ok(0);
    }
    // The end of the last line is not the beginning of one.
    let (mut found, size) = (0, end);
    while end > 0 {
        let start = end.saturating_sub(BLOCK_BYTES);
        let mut block = Vec::new();
        file.seek(SeekFrom::Start(start))?;
        file.by_ref().take(end - start).read_to_end(&mut block)?;
        for (offset, _) in block.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let line_start = start + offset as u64 + 1;
            if line_start == size {
                continue;
            }
            found += 1;
            if found == lines {
                file.seek(SeekFrom::Start(line_start))?;
                return Ok(0);
            }
        }
        end = start;
    }
    file.seek(SeekFrom::Start(0))?;
    let first = usize::from(size > 0);
    Ok(lines - found - first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, numbers: std::ops::Range<u32>) {
        let line = |number| {
            format!(
                "{{\"log\":\"{number}\\n\",\"stream\":\"stdout\",\"time\":\"2026-01-01T00:00:{number:02}Z\"}}\n"
            )
        };
        fs::write(path, numbers.map(line).collect::<String>()).unwrap();
    }

    fn read(dir: &Path, tail: Option<usize>) -> String {
        let mut text = String::new();
        let mut reader = Reader::open(&dir.join("log"), 3, tail).unwrap();
        let mut each = |line: LogLine| {
            text += &line.text;
            ControlFlow::Continue(())
        };
        assert!(reader.read(&mut each).unwrap().is_continue());
        text.replace('\n', " ").trim().to_owned()
    }

    #[test]
    fn rotated_files_are_read_in_order_and_the_tail_counts_across_them() {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("log.2"), 0..2);
        write(&dir.path().join("log.1"), 2..4);
        write(&dir.path().join("log"), 4..6);
        assert_eq!(read(dir.path(), None), "0 1 2 3 4 5");
        assert_eq!(read(dir.path(), Some(9)), "0 1 2 3 4 5");
        assert_eq!(read(dir.path(), Some(3)), "3 4 5");
        assert_eq!(read(dir.path(), Some(2)), "4 5");
        assert_eq!(read(dir.path(), Some(1)), "5");
        assert_eq!(read(dir.path(), Some(0)), "");
    }

    #[test]
    fn a_log_can_be_followed_through_a_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        write(&path, 0..1);
        let mut reader = Reader::open(&path, 2, None).unwrap();
        let mut texts = Vec::new();
        let mut each = |line: LogLine| {
            texts.push(line.text);
            ControlFlow::Continue(())
        };
        assert!(reader.read(&mut each).unwrap().is_continue());
        fs::rename(&path, dir.path().join("log.1")).unwrap();
        write(&path, 1..3);
        assert!(reader.read(&mut each).unwrap().is_continue());
        assert_eq!(texts, ["0\n", "1\n", "2\n"]);
    }

    #[test]
    fn times_bound_what_is_shown() {
        let at = |second: u32| format!("2026-01-01T00:00:{second:02}Z").parse().ok();
        let options = LogsOptions { since: at(2), until: at(4), ..LogsOptions::default() };
        let line = |second| LogLine {
            stream: OutputStream::Stdout,
            time: format!("2026-01-01T00:00:{second:02}Z"),
            text: String::new(),
            attributes: BTreeMap::new(),
        };
        let verdicts: String = (1..6)
            .map(|second| match options.admits(&line(second)) {
                Admission::TooEarly => '<',
                Admission::Yes => '=',
                Admission::TooLate => '>',
            })
            .collect();
        assert_eq!(verdicts, "<===>");
    }
}
