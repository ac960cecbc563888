use std::io::{self, Write as _};

use dhow_engine::BuildEvent;
use dhow_oci::{Digest, Reference};
use dhow_serve::classic::{self, Said};

use super::Progress;

/// The output of docker's first builder. Goes to standard output, as there.
pub(crate) struct Classic(classic::Classic);

impl Classic {
    pub(crate) fn new(context_bytes: u64) -> Classic {
        Classic(classic::Classic::new(Some(context_bytes)))
    }
}

/// An output that is gone means that nobody is left to be told; the image is built all the same.
fn say(said: Said<'_>) {
    let _ = match said {
        Said::Line(text) => io::stdout().write_all(text.as_bytes()),
        Said::Output(bytes) => io::stdout().write_all(bytes),
        Said::ErrorOutput(bytes) => io::stderr().write_all(bytes),
        Said::Warning(text) => io::stderr().write_all(text.as_bytes()),
    };
}

impl Progress for Classic {
    fn event(&mut self, event: &BuildEvent<'_>) {
        self.0.event(event, &mut say);
    }

    fn built(&mut self, image: &Digest, names: &[Reference]) {
        self.0.built(image, names, &mut say);
    }
}
