use std::collections::HashMap;
use std::fmt;
use std::io::{self, Write as _};

use dhow_engine::{BuildEvent, StepId, StepInfo, Stream};
use dhow_oci::{Digest, Reference};
use dhow_template::units::human_size;

use super::Progress;

/// The output of docker's first builder, which tutorials and scripts show. Goes to standard output, as there.
pub(crate) struct Classic {
    context_bytes: u64,
    steps: HashMap<StepId, (usize, usize, String)>,
    containers: HashMap<StepId, String>,
}

fn say(text: impl fmt::Display) {
    // Standard output gone means that nobody is left to be told; the image is built all the same.
    let _ = writeln!(io::stdout(), "{text}");
}

impl Classic {
    pub(crate) fn new(context_bytes: u64) -> Classic {
        Classic { context_bytes, steps: HashMap::new(), containers: HashMap::new() }
    }

    fn plan(&mut self, steps: &[StepInfo]) {
        say(format_args!("Sending build context to Docker daemon {}", human_size(self.context_bytes)));
        for (index, step) in steps.iter().enumerate() {
            self.steps.insert(step.id, (index + 1, steps.len(), step.text.clone()));
        }
    }

    fn step(&self, id: StepId) {
        if let Some((number, count, text)) = self.steps.get(&id) {
            say(format_args!("Step {number}/{count} : {text}"));
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
        match event {
            BuildEvent::Planned(steps) => self.plan(steps),
            BuildEvent::Started(id) => self.step(*id),
            BuildEvent::Cached(_) => say(" ---> Using cache"),
            BuildEvent::Output(_, Stream::Stdout, bytes) => drop(io::stdout().write_all(bytes)),
            BuildEvent::Output(_, Stream::Stderr, bytes) => drop(io::stderr().write_all(bytes)),
            BuildEvent::Container(id, name) => self.container(*id, name),
            BuildEvent::Finished(id, result) => self.finished(*id, &result.image),
            BuildEvent::Warning { file, source, diagnostic } if diagnostic.rule.is_none() => {
                super::complain(&dhow_engine::render(diagnostic, file, source));
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
