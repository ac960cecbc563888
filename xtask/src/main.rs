//! The project's chores: `cargo xtask <chore>`.
//!
//! They are Rust and not shell so that they are read, formatted, linted and tested like everything else. The crate depends on
//! none of dhow's own: it is what prepares the machine on which the others are built.
#![forbid(unsafe_code)]

mod arguments;
mod bench;
mod command;
mod demo;
mod differential;
mod docker;
mod http;
mod images;
mod paths;
mod registry;
mod s3;
mod search;
mod setup;
mod test;

use std::process::ExitCode;

use arguments::Chore;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let chore = match Chore::parse(&words) {
        Ok(chore) => chore,
        Err(message) => {
            eprintln!("error: {message}\n\n{}", arguments::USAGE);
            return ExitCode::from(2);
        }
    };
    match run(chore) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(chore: Chore) -> anyhow::Result<ExitCode> {
    match chore {
        Chore::Help => println!("{}", arguments::USAGE),
        Chore::Setup(groups) => setup::run(&groups)?,
        Chore::Images => images::run()?,
        Chore::Registry(options) => return registry::run(&options),
        Chore::Test => return test::run(),
        Chore::Differential(options) => return differential::run(&options),
        Chore::Bench(options) => bench::run(&options)?,
        Chore::Demo => demo::run()?,
    }
    Ok(ExitCode::SUCCESS)
}
