use dhow_engine::{Engine, SearchResult};
use dhow_template::format::{self, Columns};
use dhow_template::units::ellipsis;
use serde_json::{Value, json};

use crate::error::CliError;
use crate::filter::Filters;
use crate::ui::Ui;

/// As much of a description as a table shows.
const DESCRIPTION_WIDTH: usize = 45;
const LIMIT_MAX: u32 = 100;
const FILTERS: &[&str] = &["stars", "is-official", "is-automated"];
const COLUMNS: Columns<'_> = Columns {
    default: r"{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}",
    headers: &[
        ("Name", "NAME"),
        ("Description", "DESCRIPTION"),
        ("StarCount", "STARS"),
        ("IsOfficial", "OFFICIAL"),
        ("IsAutomated", "AUTOMATED"),
    ],
};

/// Search Docker Hub, or another registry, for images
#[derive(clap::Args, Debug)]
pub(crate) struct SearchArgs {
    /// What to search for; a registry may stand before it, as in registry.corp/flask
    term: String,
    /// Show only images that fit: stars=NUMBER, is-official=BOOL, is-automated=BOOL (can be repeated)
    #[arg(short, long = "filter", value_name = "NAME=VALUE")]
    filters: Vec<String>,
    /// Format output by a Go template: 'table', 'table TEMPLATE', 'json' or 'TEMPLATE'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// How many images to ask for at most
    #[arg(long, default_value_t = 25, value_name = "NUMBER")]
    limit: u32,
    /// Show whole descriptions
    #[arg(long)]
    no_trunc: bool,
}

pub(crate) fn run(args: SearchArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    if args.limit == 0 || args.limit > LIMIT_MAX {
        return Err(CliError::new(format!("limit {} is outside the range of [1, {LIMIT_MAX}]", args.limit)));
    }
    let filters = Filters::parse(&args.filters, FILTERS)?;
    let stars = filters.last("stars").unwrap_or("0");
    let stars: u64 = stars.parse().map_err(|_| CliError::new(format!("invalid filter 'stars={stars}'")))?;
    let (official, automated) = (filters.truth("is-official")?, filters.truth("is-automated")?);
    let mut results = engine.search(&args.term, args.limit)?;
    results.retain(|result| {
        result.star_count >= stars
            && official.is_none_or(|wanted| wanted == result.is_official)
            && automated.is_none_or(|wanted| wanted == result.is_automated)
    });
    results.sort_by_key(|result| std::cmp::Reverse(result.star_count));
    let rows: Vec<Value> = results.iter().map(|result| row(result, args.no_trunc)).collect();
    ui.text(&format::rows(args.format.as_deref(), COLUMNS, &rows, &|_, _, _| None)?)?;
    Ok(0)
}

fn row(result: &SearchResult, whole: bool) -> Value {
    let ok = |yes| if yes { "[OK]" } else { "" };
    let description = result.description.replace(['\n', '\r'], " ");
    json!({
        "Name": result.name,
        "Description": if whole { description } else { ellipsis(&description, DESCRIPTION_WIDTH) },
        "StarCount": result.star_count.to_string(),
        "IsOfficial": ok(result.is_official),
        "IsAutomated": ok(result.is_automated),
    })
}
