use std::collections::HashMap;
use std::io::Write as _;
use std::time::Instant;

use dhow_engine::{BuildEvent, StepId, StepInfo};
use dhow_oci::{Digest, Reference};
use dhow_template::units::human_size;

use super::{Lines, Progress};

/// One line per happening, each with the number of its step, for logs and pipes. Goes to standard error.
pub(crate) struct Plain {
    titles: HashMap<StepId, String>,
    running: HashMap<StepId, Running>,
}

struct Running {
    since: Instant,
    lines: Lines,
    is_cached: bool,
}

impl Plain {
    pub(crate) fn new() -> Plain {
        Plain { titles: HashMap::new(), running: HashMap::new() }
    }
}

/// `[2/5] COPY . .`, with the name of the stage when there are several.
pub(super) fn title(step: &StepInfo, has_stages: bool) -> String {
    let stage = if has_stages { format!("{} ", step.stage) } else { String::new() };
    format!("[{stage}{}/{}] {}", step.number, step.count, step.text)
}

/// Whether `steps` are of more than one stage.
pub(super) fn has_stages(steps: &[StepInfo]) -> bool {
    steps.iter().any(|step| step.stage != steps[0].stage)
}

fn say(id: StepId, text: &str) {
    // Standard error gone means that nobody is left to be told.
    let _ = writeln!(std::io::stderr(), "#{} {text}", id.0 + 1);
}

impl Plain {
    /// A step did not come to a result. The error is told at the end.
    fn ended(&mut self, id: StepId, how: &str) {
        let Some(mut running) = self.running.remove(&id) else { return };
        let seconds = running.since.elapsed().as_secs_f64();
        running.lines.finish(|line| say(id, &format!("{seconds:.3} {line}")));
        say(id, &format!("{how} {seconds:.1}s"));
    }
}

impl Progress for Plain {
    fn event(&mut self, event: &BuildEvent<'_>) {
        match event {
            BuildEvent::Planned(steps) => {
                let has_stages = has_stages(steps);
                self.titles = steps.iter().map(|step| (step.id, title(step, has_stages))).collect();
            }
            BuildEvent::Started(id) => {
                say(*id, &self.titles[id]);
                let running = Running { since: Instant::now(), lines: Lines::default(), is_cached: false };
                self.running.insert(*id, running);
            }
            BuildEvent::Cached(id) => {
                say(*id, "CACHED");
                self.running.entry(*id).and_modify(|running| running.is_cached = true);
            }
            BuildEvent::CachedFrom(id, cache) => {
                say(*id, &format!("CACHED from {cache}"));
                self.running.entry(*id).and_modify(|running| running.is_cached = true);
            }
            BuildEvent::Importing(cache) => super::complain(&format!("importing the cache {cache}\n")),
            BuildEvent::ExportingCache(cache) => {
                super::complain(&format!("exporting the cache to {cache}\n"))
            }
            BuildEvent::CacheUnusable(cache, why) => super::complain(&super::cache_warning(cache, why)),
            BuildEvent::Running(id, reason) => say(*id, &format!("not cached: {reason}")),
            BuildEvent::Output(id, _, bytes) => {
                if let Some(running) = self.running.get_mut(id) {
                    let seconds = running.since.elapsed().as_secs_f64();
                    running.lines.push(bytes, |line| say(*id, &format!("{seconds:.3} {line}")));
                }
            }
            BuildEvent::Finished(id, result) => {
                let Some(mut running) = self.running.remove(id) else { return };
                let seconds = running.since.elapsed().as_secs_f64();
                running.lines.finish(|line| say(*id, &format!("{seconds:.3} {line}")));
                match result.layer_bytes {
                    _ if running.is_cached => {}
                    Some(bytes) => say(*id, &format!("DONE {seconds:.1}s  {}", human_size(bytes))),
                    None => say(*id, &format!("DONE {seconds:.1}s")),
                }
            }
            BuildEvent::Failed(id) => self.ended(*id, "ERROR"),
            BuildEvent::GivenUp(id) => self.ended(*id, "CANCELED"),
            BuildEvent::Warning { file, source, diagnostic } if diagnostic.rule.is_none() => {
                super::complain(&dhow_engine::render(diagnostic, file, source));
            }
            BuildEvent::Note(text) => super::complain(&format!("WARNING: {text}\n")),
            BuildEvent::Pulling(_, dhow_engine::PullEvent::Warning(text)) => {
                super::complain(&format!("WARNING: {text}\n"));
            }
            BuildEvent::Pulling(reference, dhow_engine::PullEvent::Started) => {
                super::complain(&format!("pulling {}\n", reference.familiar()));
            }
            BuildEvent::Exporting(text) => super::complain(&format!("{text}\n")),
            BuildEvent::Pushing(name, dhow_engine::PushEvent::LayerPushed { diff_id }) => {
                super::complain(&format!("pushed {} to {}\n", diff_id.digest().short(), name.familiar()));
            }
            _ => {}
        }
    }

    fn built(&mut self, image: &Digest, names: &[Reference]) {
        super::complain(&format!("built {image}\n"));
        for name in names {
            super::complain(&format!("named {name}\n"));
        }
    }
}
