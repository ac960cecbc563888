use std::collections::HashMap;
use std::io::{self, IsTerminal as _};
use std::thread;
use std::time::Duration;

use dhow_engine::Engine;
use dhow_engine::containers::{Container, Sample, short_id};
use dhow_template::format::{Columns, rows};
use dhow_template::units::{bytes_size, human_size};
use serde_json::{Value, json};

use crate::error::CliError;
use crate::ui::Ui;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// Clears the terminal and goes to its upper left corner.
const CLEAR: &str = "\x1b[2J\x1b[H";

const COLUMNS: Columns<'_> = Columns {
    default: r"{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}",
    headers: &[
        ("Container", "CONTAINER"),
        ("ID", "CONTAINER ID"),
        ("Name", "NAME"),
        ("CPUPerc", "CPU %"),
        ("MemUsage", "MEM USAGE / LIMIT"),
        ("MemPerc", "MEM %"),
        ("NetIO", "NET I/O"),
        ("BlockIO", "BLOCK I/O"),
        ("PIDs", "PIDS"),
    ],
};

/// Show what containers use, until it is interrupted
#[derive(clap::Args, Debug)]
pub(crate) struct StatsArgs {
    /// Show all containers, not only running ones
    #[arg(short, long)]
    all: bool,
    /// Print with a Go template, as a table with `table TEMPLATE`, or as `json`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Look once
    #[arg(long)]
    no_stream: bool,
    /// Do not cut ids
    #[arg(long)]
    no_trunc: bool,
    /// Container, by name or id; without any, those that run
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(crate) fn run(args: &StatsArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let clears = !args.no_stream && io::stdout().is_terminal();
    let memory_bytes = engine.system_info()?.memory_bytes;
    let mut earlier = sample(engine, &chosen(args, engine)?)?;
    loop {
        thread::sleep(INTERVAL);
        let containers = chosen(args, engine)?;
        let samples = sample(engine, &containers)?;
        let lines: Vec<Value> = containers
            .iter()
            .map(|(asked, container)| {
                let pair = [earlier.get(&container.id), samples.get(&container.id)];
                row(asked, container, pair, memory_bytes, args.no_trunc)
            })
            .collect();
        let labels = |_: &Value, _: &str, _: &[Value]| None;
        let text = rows(args.format.as_deref(), COLUMNS, &lines, &labels)?;
        ui.text(if clears { CLEAR } else { "" })?;
        ui.text(&text)?;
        if args.no_stream {
            return Ok(0);
        }
        ui.flush()?;
        earlier = samples;
    }
}

/// The containers that are meant, each with the word that means it.
fn chosen(args: &StatsArgs, engine: &Engine) -> Result<Vec<(String, Container)>, CliError> {
    let containers = engine.containers();
    if !args.containers.is_empty() {
        let find = |name: &String| Ok((name.clone(), containers.find(name)?));
        return args.containers.iter().map(find).collect();
    }
    let mut listed = containers.list()?;
    listed.retain(|container| args.all || container.state.is_up());
    let named = |container: Container| (short_id(&container.id).to_owned(), container);
    Ok(listed.into_iter().map(named).collect())
}

fn sample(engine: &Engine, containers: &[(String, Container)]) -> Result<HashMap<String, Sample>, CliError> {
    let mut samples = HashMap::new();
    for (_, container) in containers {
        if let Some(sample) = engine.containers().sample(container)? {
            samples.insert(container.id.clone(), sample);
        }
    }
    Ok(samples)
}

/// A container of which there is no sample uses nothing.
fn row(
    asked: &str,
    container: &Container,
    [earlier, now]: [Option<&Sample>; 2],
    memory_bytes: u64,
    no_trunc: bool,
) -> Value {
    let usage = now.map(|now| now.usage.clone()).unwrap_or_default();
    let limit = now.map_or(0, |_| usage.memory_bytes_max.map_or(memory_bytes, |max| max.min(memory_bytes)));
    let percent = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 * 100.0 };
    let cpu = earlier.zip(now).map_or(0.0, |(earlier, now)| now.cpu_percent(earlier));
    let [received, sent] = now.map_or([0, 0], |now| now.net_bytes);
    json!({
        "Container": asked,
        "ID": if no_trunc { &container.id } else { short_id(&container.id) },
        "Name": container.name,
        "CPUPerc": format!("{cpu:.2}%"),
        "MemUsage": format!("{} / {}", bytes_size(usage.memory_bytes), bytes_size(limit)),
        "MemPerc": format!("{:.2}%", percent(usage.memory_bytes, limit)),
        "NetIO": format!("{} / {}", human_size(received), human_size(sent)),
        "BlockIO": format!("{} / {}", human_size(usage.read_bytes), human_size(usage.written_bytes)),
        "PIDs": usage.pids.to_string(),
    })
}
