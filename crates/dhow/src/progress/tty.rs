use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Instant;

use dhow_engine::{BuildEvent, MissReason, StepId, StepInfo};
use dhow_oci::{Digest, Reference};
use dhow_template::units::human_size;

use super::plain::{has_stages, title};
use super::{Lines, Progress};

/// Last lines of output shown under a running step.
const OUTPUT_LINES: usize = 6;
/// Lines kept of a step, to be shown whole if it fails.
const KEPT_LINES: usize = 2000;
const WIDTH_DEFAULT: usize = 100;

/// A live display: finished steps stay as lines, running ones are redrawn below them with the time they
/// take and the last lines they printed.
pub(crate) struct Tty {
    titles: BTreeMap<StepId, String>,
    running: BTreeMap<StepId, Running>,
    /// Lines of the live part on the screen.
    drawn: usize,
}

struct Running {
    since: Instant,
    reason: Option<String>,
    lines: Lines,
    output: VecDeque<String>,
    is_cached: bool,
}

impl Tty {
    pub(crate) fn new() -> Tty {
        Tty { titles: BTreeMap::new(), running: BTreeMap::new(), drawn: 0 }
    }

    /// Replaces the live part by `still`, which stays, and the live part as it is now.
    fn draw(&mut self, still: &str) {
        let mut screen = String::new();
        if self.drawn > 0 {
            // Up to the first live line, and clear from there.
            write!(screen, "\x1b[{}F\x1b[J", self.drawn).expect("a String takes all text");
        }
        screen.push_str(still);
        let live = self.live();
        self.drawn = live.len();
        for line in live {
            screen.push_str(&line);
            screen.push('\n');
        }
        // Standard error gone means that nobody is left to be told.
        let _ = std::io::stderr().write_all(screen.as_bytes());
    }

    fn live(&self) -> Vec<String> {
        let width = width();
        let mut lines = Vec::new();
        for (id, running) in &self.running {
            let seconds = running.since.elapsed().as_secs_f64();
            let reason = running.reason.as_ref().map(|reason| format!("  ({reason})")).unwrap_or_default();
            lines.push(cut(&format!(" {:5.1}s {}{reason}", seconds, self.titles[id]), width));
            let hidden = running.output.len().saturating_sub(OUTPUT_LINES);
            lines.extend(running.output.iter().skip(hidden).map(|line| cut(&format!("        {line}"), width)));
        }
        lines
    }

    fn planned(&mut self, steps: &[StepInfo]) {
        let has_stages = has_stages(steps);
        self.titles = steps.iter().map(|step| (step.id, title(step, has_stages))).collect();
    }

    fn running(&mut self, id: StepId, reason: &MissReason) {
        if let Some(running) = self.running.get_mut(&id) {
            running.reason = Some(reason.to_string());
        }
    }

    fn finished(&mut self, id: StepId, layer_bytes: Option<u64>) {
        let Some(running) = self.running.remove(&id) else { return };
        let title = &self.titles[&id];
        let line = if running.is_cached {
            format!("\x1b[2m CACHED {title}\x1b[0m\n")
        } else {
            let seconds = running.since.elapsed().as_secs_f64();
            let reason = running.reason.map(|reason| format!("  \x1b[2m({reason})\x1b[0m")).unwrap_or_default();
            format!(" {seconds:5.1}s {title}  {}{reason}\n", human_size(layer_bytes.unwrap_or(0)))
        };
        self.draw(&line);
    }

    fn failed(&mut self, id: StepId) {
        let Some(mut running) = self.running.remove(&id) else { return };
        running.lines.finish(|line| running.output.push_back(line.to_owned()));
        let mut text = format!("\x1b[31m FAILED {}\x1b[0m\n", self.titles[&id]);
        for line in &running.output {
            writeln!(text, "        {line}").expect("a String takes all text");
        }
        self.draw(&text);
    }
}

fn width() -> usize {
    rustix::termios::tcgetwinsize(std::io::stderr()).map_or(WIDTH_DEFAULT, |size| usize::from(size.ws_col).max(20))
}

/// A live line must not wrap, or the count of lines to go back is wrong.
fn cut(line: &str, width: usize) -> String {
    let clean = line.chars().filter(|c| !c.is_control());
    clean.take(width.saturating_sub(1)).collect()
}

impl Progress for Tty {
    fn event(&mut self, event: &BuildEvent<'_>) {
        match event {
            BuildEvent::Planned(steps) => self.planned(steps),
            BuildEvent::Started(id) => {
                let running = Running {
                    since: Instant::now(),
                    reason: None,
                    lines: Lines::default(),
                    output: VecDeque::new(),
                    is_cached: false,
                };
                self.running.insert(*id, running);
            }
            BuildEvent::Cached(id) => {
                self.running.entry(*id).and_modify(|running| running.is_cached = true);
            }
            BuildEvent::Running(id, reason) => self.running(*id, reason),
            BuildEvent::Output(id, _, bytes) => {
                if let Some(Running { lines, output, .. }) = self.running.get_mut(id) {
                    lines.push(bytes, |line| output.push_back(line.to_owned()));
                    output.drain(..output.len().saturating_sub(KEPT_LINES));
                }
            }
            BuildEvent::Finished(id, result) => self.finished(*id, result.layer_bytes),
            BuildEvent::Failed(id) => self.failed(*id),
            BuildEvent::Warning { file, source, diagnostic } if diagnostic.rule.is_none() => {
                let text = dhow_engine::render(diagnostic, file, source);
                self.draw(&text);
            }
            BuildEvent::Pulling(reference, dhow_engine::PullEvent::Started) => {
                self.draw(&format!(" pulling {}\n", reference.familiar()));
            }
            _ => {}
        }
    }

    fn tick(&mut self) {
        if !self.running.is_empty() || self.drawn > 0 {
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
