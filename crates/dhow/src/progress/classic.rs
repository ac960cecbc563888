use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io::{self, Write as _};

use dhow_engine::{BuildEvent, StepId, StepInfo, Stream};
use dhow_oci::{Digest, Reference};
use dhow_template::units::human_size;

use super::Progress;

/// The output of docker's first builder, which tutorials and scripts show. Goes to standard output, as there.
pub(crate) struct Classic {
    /// What to say of the context before anything else.
    context_bytes: Option<u64>,
    steps: HashMap<StepId, Step>,
    containers: HashMap<StepId, String>,
    bases: HashSet<StepId>,
}

struct Step {
    number: usize,
    count: usize,
    text: String,
    is_from: bool,
}

fn say(text: impl fmt::Display) {
    // Standard output gone means that nobody is left to be told; the image is built all the same.
    let _ = writeln!(io::stdout(), "{text}");
}

impl Classic {
    pub(crate) fn new(context_bytes: u64) -> Classic {
        Classic {
            context_bytes: Some(context_bytes),
            steps: HashMap::new(),
            containers: HashMap::new(),
            bases: HashSet::new(),
        }
    }

    fn plan(&mut self, steps: &[StepInfo]) {
        self.bases = steps.iter().filter(|step| step.number == 1).map(|step| step.id).collect();
        for (index, step) in steps.iter().enumerate() {
            let (number, count, is_from) = (index + 1, steps.len(), step.number == 1);
            self.steps.insert(step.id, Step { number, count, text: step.text.clone(), is_from });
        }
    }

    fn context(&mut self) {
        if let Some(bytes) = self.context_bytes.take() {
            say(format_args!("Sending build context to Docker daemon {}", human_size(bytes)));
        }
    }

    fn step(&self, id: StepId) {
        if let Some(Step { number, count, text, .. }) = self.steps.get(&id) {
            say(format_args!("Step {number}/{count} : {text}"));
        }
    }

    /// A base image is not the result of a step, so there is nothing to say of the cache.
    fn cached(&self, id: StepId) {
        if self.steps.get(&id).is_none_or(|step| !step.is_from) {
            say(" ---> Using cache");
        }
    }

    fn container(&mut self, id: StepId, name: &str) {
        say(format_args!(" ---> Running in {name}"));
        self.containers.insert(id, name.to_owned());
    }

    fn finished(&mut self, id: StepId, image: &Digest) {
        say(format_args!(" ---> {}", image.short()));
        if let Some(name) = self.containers.remove(&id) {
            say(format_args!("Removing intermediate container {name}"));
        }
    }
}

impl Progress for Classic {
    fn event(&mut self, event: &BuildEvent<'_>) {
        self.context();
        match event {
            BuildEvent::Planned(steps) => self.plan(steps),
            BuildEvent::Started(id) => self.step(*id),
            BuildEvent::Cached(id) | BuildEvent::CachedFrom(id, _) => self.cached(*id),
            BuildEvent::CacheUnusable(cache, why) => super::complain(&super::cache_warning(cache, why)),
            BuildEvent::Output(_, Stream::Stdout, bytes) => drop(io::stdout().write_all(bytes)),
            BuildEvent::Output(_, Stream::Stderr, bytes) => drop(io::stderr().write_all(bytes)),
            BuildEvent::Container(id, name) => self.container(*id, name),
            BuildEvent::Finished(id, result) => self.finished(*id, &result.image),
            BuildEvent::Warning { file, source, diagnostic } if diagnostic.rule.is_none() => {
                super::complain(&dhow_engine::render(diagnostic, file, source));
            }
            BuildEvent::Note(text) => super::complain(&format!("WARNING: {text}\n")),
            BuildEvent::Pulling(_, dhow_engine::PullEvent::Warning(text)) => {
                super::complain(&format!("WARNING: {text}\n"));
            }
            BuildEvent::Pulling(reference, dhow_engine::PullEvent::Started) => {
                say(format_args!("Pulling {}", reference.familiar()));
            }
            _ => {}
        }
    }

    fn built(&mut self, image: &Digest, names: &[Reference]) {
        say(format_args!("Successfully built {}", image.short()));
        for name in names {
            say(format_args!("Successfully tagged {}", name.familiar()));
        }
    }
}
