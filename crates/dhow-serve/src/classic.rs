//! The output of docker's first builder, which tutorials and scripts show.

use std::collections::{HashMap, HashSet};
use std::fmt;

use dhow_engine::{BuildEvent, PullEvent, StepId, StepInfo, Stream};
use dhow_oci::{Digest, Reference};
use dhow_template::units::human_size;

/// A piece of that output.
#[derive(Clone, Copy, Debug)]
pub enum Said<'a> {
    /// What the builder says, with its line end.
    Line(&'a str),
    /// What a program wrote.
    Output(&'a [u8]),
    /// What a program wrote to its error output.
    ErrorOutput(&'a [u8]),
    /// Something the user should know, with its line end.
    Warning(&'a str),
}

/// Tells of a build as docker's first builder did.
pub struct Classic {
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

impl Classic {
    /// Begins with the size of the context, where it is known.
    pub fn new(context_bytes: Option<u64>) -> Classic {
        Classic { context_bytes, steps: HashMap::new(), containers: HashMap::new(), bases: HashSet::new() }
    }

    fn plan(&mut self, steps: &[StepInfo]) {
        self.bases = steps.iter().filter(|step| step.number == 1).map(|step| step.id).collect();
        for (index, step) in steps.iter().enumerate() {
            let (number, count, is_from) = (index + 1, steps.len(), step.number == 1);
            self.steps.insert(step.id, Step { number, count, text: step.text.clone(), is_from });
        }
    }

    fn context(&mut self, say: Say<'_>) {
        if let Some(bytes) = self.context_bytes.take() {
            line(say, format_args!("Sending build context to Docker daemon {}", human_size(bytes)));
        }
    }

    fn step(&self, id: StepId, say: Say<'_>) {
        if let Some(Step { number, count, text, .. }) = self.steps.get(&id) {
            line(say, format_args!("Step {number}/{count} : {text}"));
        }
    }

    /// A base image is not the result of a step, so there is nothing to say of the cache.
    fn cached(&self, id: StepId, say: Say<'_>) {
        if self.steps.get(&id).is_none_or(|step| !step.is_from) {
            line(say, " ---> Using cache");
        }
    }

    fn container(&mut self, id: StepId, name: &str, say: Say<'_>) {
        line(say, format_args!(" ---> Running in {name}"));
        self.containers.insert(id, name.to_owned());
    }

    fn finished(&mut self, id: StepId, image: &Digest, say: Say<'_>) {
        line(say, format_args!(" ---> {}", image.short()));
        if let Some(name) = self.containers.remove(&id) {
            line(say, format_args!("Removing intermediate container {name}"));
        }
    }

    /// Something happened.
    pub fn event(&mut self, event: &BuildEvent<'_>, say: Say<'_>) {
        self.context(say);
        match event {
            BuildEvent::Planned(steps) => self.plan(steps),
            BuildEvent::Started(id) => self.step(*id, say),
            BuildEvent::Cached(id) | BuildEvent::CachedFrom(id, _) => self.cached(*id, say),
            BuildEvent::CacheUnusable(cache, why) => {
                let text = |text: &str| text.chars().filter(|c| !c.is_control()).collect::<String>();
                say(Said::Warning(&format!(
                    "WARNING: the cache {} is not used: {}\n",
                    text(cache),
                    text(why)
                )));
            }
            BuildEvent::Output(_, Stream::Stdout, bytes) => say(Said::Output(bytes)),
            BuildEvent::Output(_, Stream::Stderr, bytes) => say(Said::ErrorOutput(bytes)),
            BuildEvent::Container(id, name) => self.container(*id, name, say),
            BuildEvent::Finished(id, result) => self.finished(*id, &result.image, say),
            BuildEvent::Warning { file, source, diagnostic } if diagnostic.rule.is_none() => {
                say(Said::Warning(&dhow_engine::render(diagnostic, file, source)));
            }
            BuildEvent::Note(text) => say(Said::Warning(&format!("WARNING: {text}\n"))),
            BuildEvent::Pulling(_, PullEvent::Warning(text)) => {
                say(Said::Warning(&format!("WARNING: {text}\n")))
            }
            BuildEvent::Pulling(reference, PullEvent::Started) => {
                line(say, format_args!("Pulling {}", reference.familiar()));
            }
            _ => {}
        }
    }

    /// The image was built and has these names.
    pub fn built(&self, image: &Digest, names: &[Reference], say: Say<'_>) {
        line(say, format_args!("Successfully built {}", image.short()));
        for name in names {
            line(say, format_args!("Successfully tagged {}", name.familiar()));
        }
    }
}

/// Whom pieces are told.
type Say<'a> = &'a mut dyn FnMut(Said<'_>);

fn line(say: Say<'_>, text: impl fmt::Display) {
    say(Said::Line(&format!("{text}\n")));
}
