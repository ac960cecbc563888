use dhow_engine::Engine;

use crate::error::CliError;
use crate::ui::Ui;

/// A column is at least this wide, and this far from the next.
const WIDTH_MIN: usize = 20;
const GAP: usize = 3;

/// Show the processes of a running container
#[derive(clap::Args, Debug)]
pub(crate) struct TopArgs {
    /// Container, by name or id
    container: String,
    /// Options of ps, such as -o pid,comm
    #[arg(value_name = "PS OPTION", trailing_var_arg = true, allow_hyphen_values = true)]
    ps_options: Vec<String>,
}

pub(crate) fn run(args: &TopArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let processes = engine.top(&args.container, &args.ps_options)?;
    let lines: Vec<&Vec<String>> = [&processes.titles].into_iter().chain(&processes.rows).collect();
    let columns = processes.titles.len();
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count() + GAP).max().unwrap_or(0).max(WIDTH_MIN)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for line in lines {
        let mut text = String::new();
        for (column, cell) in line.iter().enumerate() {
            // The last column needs no room behind it.
            let width = if column + 1 < columns { widths[column] } else { 0 };
            text += &format!("{cell:width$}");
        }
        ui.line(text)?;
    }
    Ok(0)
}
