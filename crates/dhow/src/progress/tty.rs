use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::time::Instant;

use dhow_engine::{BuildEvent, MissReason, StepId, StepInfo};
use dhow_oci::{Digest, Reference};
use dhow_template::units::human_size;

use super::plain::{has_stages, title};
use super::screen::{cells, cut, plain};
use super::{Lines, Progress};

/// Last lines of output shown under a running step, where there is room.
const OUTPUT_LINES: usize = 6;
/// Lines kept of a step, to be shown whole if it fails.
const KEPT_LINES: usize = 2000;
/// Of a title at least this much is shown, whatever else is to be said on its line.
const TITLE_CELLS_MIN: usize = 24;
/// The size of a terminal that does not tell.
const SIZE_DEFAULT: Size = Size { columns: 80, rows: 24 };

/// A live display: finished steps stay as lines, running ones are redrawn below them with the time they
/// take and the last lines they printed.
pub(crate) struct Tty {
    has_colors: bool,
    titles: BTreeMap<StepId, String>,
    running: BTreeMap<StepId, Running>,
    /// Columns that each line of the live part on the screen takes.
    drawn: Vec<usize>,
}

struct Running {
    since: Instant,
    reason: Option<String>,
    lines: Lines,
    output: VecDeque<String>,
    is_cached: bool,
    /// The cache elsewhere that had its result.
    origin: Option<String>,
}

impl Running {
    fn new() -> Running {
        let (lines, output) = (Lines::default(), VecDeque::new());
        Running { since: Instant::now(), reason: None, lines, output, is_cached: false, origin: None }
    }

    fn seconds(&self) -> f64 {
        self.since.elapsed().as_secs_f64()
    }

    fn push(&mut self, bytes: &[u8]) {
        let Running { lines, output, .. } = self;
        lines.push(bytes, |line| output.push_back(line.to_owned()));
        output.drain(..output.len().saturating_sub(KEPT_LINES));
    }

    /// The last lines of output, the one that is being written among them.
    fn last_lines(&self, count: usize) -> Vec<String> {
        let unfinished = Some(self.lines.unfinished()).filter(|line| !line.trim().is_empty());
        let lines: Vec<String> =
            self.output.iter().rev().take(count).rev().cloned().chain(unfinished).collect();
        lines[lines.len().saturating_sub(count)..].to_vec()
    }
}

#[derive(Clone, Copy)]
struct Size {
    columns: usize,
    rows: usize,
}

fn size() -> Size {
    match rustix::termios::tcgetwinsize(std::io::stderr()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
            Size { columns: usize::from(size.ws_col).max(20), rows: usize::from(size.ws_row).max(4) }
        }
        _ => SIZE_DEFAULT,
    }
}

impl Tty {
    pub(crate) fn new(has_colors: bool) -> Tty {
        Tty { has_colors, titles: BTreeMap::new(), running: BTreeMap::new(), drawn: Vec::new() }
    }

    fn dim(&self, text: &str) -> String {
        if self.has_colors { format!("\x1b[2m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn red(&self, text: &str) -> String {
        if self.has_colors { format!("\x1b[31m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Replaces the live part by `still`, which stays, and the live part as it is now.
    fn draw(&mut self, still: &str) {
        let size = size();
        let mut screen = String::new();
        // Lines drawn on a wider terminal have been wrapped since.
        let rows: usize = self.drawn.iter().map(|cells| cells.div_ceil(size.columns).max(1)).sum();
        match rows.min(size.rows - 1) {
            0 => {}
            rows => write!(screen, "\x1b[{rows}F").expect("a String takes all text"),
        }
        let live = self.live(size);
        self.drawn = live.iter().map(|line| cells(line)).collect();
        // Line by line, as clearing all from the first row on makes some terminals keep what is cleared.
        for line in still.lines().map(str::to_owned).chain(live) {
            screen.push_str(&line);
            screen.push_str("\x1b[K\n");
        }
        screen.push_str("\x1b[J");
        super::complain(&screen);
    }

    /// `title` with what is said before and after it, short enough for one line if that can be.
    fn line(&self, before: &str, id: StepId, after: &str) -> String {
        let title = &self.titles[&id];
        let room = (size().columns - 1).saturating_sub(cells(before) + cells(after)).max(TITLE_CELLS_MIN);
        let title = match cells(title) > room {
            true => format!("{}…", cut(title, room - 1)),
            false => title.clone(),
        };
        format!("{before}{title}{after}")
    }

    /// The live part; it is never higher than the screen, as what has left it cannot be redrawn.
    fn live(&self, size: Size) -> Vec<String> {
        let width = size.columns - 1;
        let rows = size.rows - 2;
        let hidden = self.running.len().saturating_sub(rows);
        let shown = self.running.len() - hidden;
        let output = rows.saturating_sub(shown).checked_div(shown).unwrap_or(0).min(OUTPUT_LINES);
        let mut lines = Vec::new();
        for (id, running) in self.running.iter().take(shown) {
            let reason = running.reason.as_ref().map(|reason| format!("  ({reason})")).unwrap_or_default();
            lines.push(cut(&format!(" {:5.1}s {}{reason}", running.seconds(), self.titles[id]), width));
            let output = running.last_lines(output);
            lines.extend(output.iter().map(|line| self.dim(&cut(&format!("        {line}"), width))));
        }
        if hidden > 0 {
            lines.push(format!("        and {hidden} more"));
        }
        lines
    }

    fn planned(&mut self, steps: &[StepInfo]) {
        let has_stages = has_stages(steps);
        self.titles = steps.iter().map(|step| (step.id, plain(&title(step, has_stages)))).collect();
    }

    fn running(&mut self, id: StepId, reason: &MissReason) {
        if let Some(running) = self.running.get_mut(&id) {
            running.reason = Some(plain(&reason.to_string()));
        }
    }

    fn finished(&mut self, id: StepId, layer_bytes: Option<u64>) {
        let Some(running) = self.running.remove(&id) else { return };
        let line = if running.is_cached {
            let origin = running.origin.as_ref().map(|origin| format!("  (from {origin})"));
            self.dim(&self.line(" CACHED ", id, &origin.unwrap_or_default()))
        } else {
            let size = layer_bytes.map(|bytes| format!("  {}", human_size(bytes))).unwrap_or_default();
            let reason = running.reason.as_ref().map(|reason| self.dim(&format!("  ({reason})")));
            let after = format!("{size}{}", reason.unwrap_or_default());
            self.line(&format!(" {:5.1}s ", running.seconds()), id, &after)
        };
        self.draw(&line);
    }

    /// A failed step leaves all its output on the screen, in front of the error.
    fn failed(&mut self, id: StepId) {
        let Some(mut running) = self.running.remove(&id) else { return };
        running.lines.finish(|line| running.output.push_back(line.to_owned()));
        let mut text = format!("{}\n", self.red(&self.line(" FAILED ", id, "")));
        for line in &running.output {
            writeln!(text, "        {line}").expect("a String takes all text");
        }
        if self.has_colors {
            // The program may have died in the middle of something red.
            text.push_str("\x1b[0m");
        }
        self.draw(&text);
    }

    fn given_up(&mut self, id: StepId) {
        if self.running.remove(&id).is_some() {
            let line = self.dim(&self.line(" CANCELED ", id, ""));
            self.draw(&line);
        }
    }
}

impl Progress for Tty {
    fn event(&mut self, event: &BuildEvent<'_>) {
        match event {
            BuildEvent::Planned(steps) => self.planned(steps),
            BuildEvent::Started(id) => drop(self.running.insert(*id, Running::new())),
            BuildEvent::Cached(id) => {
                self.running.entry(*id).and_modify(|running| running.is_cached = true);
            }
            BuildEvent::CachedFrom(id, cache) => {
                let origin = plain(cache);
                self.running.entry(*id).and_modify(|running| {
                    running.is_cached = true;
                    running.origin = Some(origin);
                });
            }
            BuildEvent::Importing(cache) => self.draw(&format!(" importing the cache {}\n", plain(cache))),
            BuildEvent::ExportingCache(cache) => {
                self.draw(&format!(" exporting the cache to {}\n", plain(cache)))
            }
            BuildEvent::CacheUnusable(cache, why) => self.draw(&super::cache_warning(cache, why)),
            BuildEvent::Running(id, reason) => self.running(*id, reason),
            BuildEvent::Output(id, _, bytes) => {
                if let Some(running) = self.running.get_mut(id) {
                    running.push(bytes);
                }
            }
            BuildEvent::Finished(id, result) => self.finished(*id, result.layer_bytes),
            BuildEvent::Failed(id) => self.failed(*id),
            BuildEvent::GivenUp(id) => self.given_up(*id),
            BuildEvent::Warning { file, source, diagnostic } if diagnostic.rule.is_none() => {
                let text = dhow_engine::render(diagnostic, file, source);
                self.draw(&text);
            }
            BuildEvent::Note(text) => self.draw(&format!("WARNING: {text}\n")),
            BuildEvent::Pulling(_, dhow_engine::PullEvent::Warning(text)) => {
                self.draw(&format!("WARNING: {text}\n"));
            }
            BuildEvent::Pulling(reference, dhow_engine::PullEvent::Started) => {
                self.draw(&format!(" pulling {}\n", reference.familiar()));
            }
            BuildEvent::Exporting(text) => self.draw(&format!(" {text}\n")),
            BuildEvent::Pushing(name, dhow_engine::PushEvent::LayerPushed { diff_id }) => {
                self.draw(&format!(" pushed {} to {}\n", diff_id.digest().short(), name.familiar()));
            }
            _ => {}
        }
    }

    fn tick(&mut self) {
        if !self.running.is_empty() || !self.drawn.is_empty() {
            self.draw("");
        }
    }

    fn built(&mut self, image: &Digest, names: &[Reference]) {
        let mut text = format!(" built {}\n", image.short());
        for name in names {
            writeln!(text, " named {}", name.familiar()).expect("a String takes all text");
        }
        self.draw(&text);
    }

    fn close(&mut self) {
        self.running.clear();
        self.draw("");
    }
}
