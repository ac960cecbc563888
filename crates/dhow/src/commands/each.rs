//! Commands that do one thing with each of several containers.

use dhow_engine::Engine;

use crate::error::CliError;
use crate::ui::Ui;

/// Does something with each, and prints the names for which it worked. One that fails does not keep the others.
pub(crate) fn each(
    names: &[String],
    ui: &mut Ui,
    act: impl Fn(&str) -> Result<(), CliError>,
) -> Result<u8, CliError> {
    let results = names.iter().map(|name| act(name)).collect();
    report(names, results, ui)
}

/// The same for acts that take their time: all at once.
pub(crate) fn each_at_once(
    names: &[String],
    engine: &Engine,
    ui: &mut Ui,
    act: impl Fn(&Engine, &str) -> Result<(), CliError> + Sync,
) -> Result<u8, CliError> {
    if let [name] = names {
        return report(names, vec![act(engine, name)], ui);
    }
    let results = std::thread::scope(|scope| {
        let act = &act;
        let threads: Vec<_> = names.iter().map(|name| scope.spawn(move || act(engine, name))).collect();
        threads.into_iter().map(|thread| thread.join().expect("the act does not panic")).collect()
    });
    report(names, results, ui)
}

fn report(names: &[String], results: Vec<Result<(), CliError>>, ui: &mut Ui) -> Result<u8, CliError> {
    let mut code = 0;
    for (name, result) in names.iter().zip(results) {
        match result {
            Ok(()) => ui.line(name)?,
            Err(error) => {
                ui.flush()?;
                ui.note(&error);
                code = code.max(error.code());
            }
        }
    }
    Ok(code)
}
