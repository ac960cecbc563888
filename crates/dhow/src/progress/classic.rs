use std::collections::HashMap;
use std::io::{self, Write as _};

use dhow_engine::{BuildEvent, StepId, StepInfo, Stream};
use dhow_oci::{Digest, Reference};
use dhow_template::units::human_size;

use super::Progress;

/// The output of docker's first builder, which tutorials and scripts show. Goes to standard output, as there.
pub(crate) struct Classic {
    context_bytes: u64,
    steps: HashMap<StepId, (usize, usize, String)>,
}

impl Classic {
    pub(crate) fn new(context_bytes: u64) -> Classic {
        Classic { context_bytes, steps: HashMap::new() }
    }

    fn plan(&mut self, steps: &[StepInfo]) {
        println!("Sending build context to Docker daemon  {}", human_size(self.context_bytes));
        for (index, step) in steps.iter().enumerate() {
            self.steps.insert(step.id, (index + 1, steps.len(), step.text.clone()));
        }
    }

    fn step(&self, id: StepId) {
        if let Some((number, count, text)) = self.steps.get(&id) {
            println!("Step {number}/{count} : {text}");
        }
    }
}

impl Progress for Classic {
    fn event(&mut self, event: &BuildEvent<'_>) {
        match event {
            BuildEvent::Planned(steps) => self.plan(steps),
            BuildEvent::Started(id) => self.step(*id),
            BuildEvent::Cached(_) => println!(" ---> Using cache"),
            BuildEvent::Output(_, Stream::Stdout, bytes) => drop(io::stdout().write_all(bytes)),
            BuildEvent::Output(_, Stream::Stderr, bytes) => drop(io::stderr().write_all(bytes)),
            BuildEvent::Container(_, name) => println!(" ---> Running in {name}"),
            BuildEvent::Finished(_, result) => println!(" ---> {}", result.image.short()),
            BuildEvent::Warning { file, source, diagnostic } if diagnostic.rule.is_none() => {
                eprint!("{}", dhow_engine::render(diagnostic, file, source));
            }
            BuildEvent::Pulling(reference, dhow_engine::PullEvent::Started) => {
                println!("Pulling {}", reference.familiar());
            }
            _ => {}
        }
    }

    fn built(&mut self, image: &Digest, names: &[Reference]) {
        println!("Successfully built {}", image.short());
        for name in names {
            println!("Successfully tagged {}", name.familiar());
        }
    }
}
