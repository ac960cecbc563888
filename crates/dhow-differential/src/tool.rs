//! A program that takes docker's commands.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, bail};

use crate::archive::Image;
use crate::case::Case;
use crate::context;
use crate::outcome::{Bases, Outcome};

/// A builder under test, or the one it is compared with.
pub struct Tool<'a> {
    /// Makes its command, with the environment that it wants.
    command: Box<dyn Fn() -> Command + 'a>,
    bases: Bases,
}

impl<'a> Tool<'a> {
    /// `command` makes a command without arguments that runs it; it has to have the images `bases`, or to know where to
    /// get them.
    pub fn new(command: impl Fn() -> Command + 'a, bases: &[&str], scratch: &Path) -> anyhow::Result<Self> {
        let mut tool = Self { command: Box::new(command), bases: Bases::default() };
        for base in bases {
            let image = tool.saved(base, scratch).with_context(|| format!("no base image {base}"))?;
            tool.bases.add(image);
        }
        Ok(tool)
    }

    /// Builds a case in the empty folder `scratch`, which is left full. Returns how it ended and what was said.
    pub fn build(&self, case: &Case, scratch: &Path) -> anyhow::Result<(Outcome, String)> {
        let folder = scratch.join("context");
        fs::create_dir(&folder)?;
        context::make(&case.files, &folder)?;
        let tag = format!("differential/{}", case.name);
        let mut said = String::new();
        for arguments in &case.builds {
            let output = self.run(
                Command::args(
                    &mut (self.command)(),
                    ["build", "--network=none", "--progress=plain", "-t", &tag],
                )
                .args(arguments)
                .arg(&folder)
                .current_dir(&folder),
            )?;
            said = text(&output);
            if !output.status.success() {
                return Ok((Outcome::refused(&said), said));
            }
        }
        let image = self.saved(&tag, scratch)?;
        self.run((self.command)().args(["rmi", "--force", &tag]))?;
        Ok((Outcome::built(&image, &self.bases), said))
    }

    fn saved(&self, name: &str, scratch: &Path) -> anyhow::Result<Image> {
        let file = scratch.join("image.tar");
        let output = self.run((self.command)().args(["save", "-o"]).arg(&file).arg(name))?;
        if !output.status.success() {
            bail!("cannot save {name}: {}", text(&output));
        }
        let image = Image::read(&file)?;
        fs::remove_file(&file)?;
        Ok(image)
    }

    fn run(&self, command: &mut Command) -> anyhow::Result<Output> {
        command.stdin(Stdio::null());
        command.output().with_context(|| format!("cannot start {}", command.get_program().display()))
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
