//! The results for people, for programs, and as a picture.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use serde_json::{Value, json};

use super::measure::{Measured, Result};
use crate::arguments::BenchOptions;
use crate::paths;

/// Width of the longest bar of the picture, height of a line, and room for names, in pixels.
const BAR: f64 = 400.0;
const LINE: usize = 18;
const NAMES: usize = 180;

/// Writes the report. Of some workloads only it goes beside the other by-products, and leaves that in `docs` alone.
pub(crate) fn write(
    measured: &[Measured],
    versions: &[String],
    options: &BenchOptions,
) -> anyhow::Result<PathBuf> {
    let is_whole = options.workloads.is_empty();
    let folder = if is_whole { paths::workspace().join("docs") } else { paths::target().join("bench") };
    let page = folder.join("benchmarks.md");
    let put = |name: &str, text: String| {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    put("benchmarks.md", text(measured, versions, &machine()))?;
    put("benchmarks.json", json(measured, versions).to_string())?;
    put("benchmarks.svg", picture(measured))?;
    Ok(page)
}

fn text(measured: &[Measured], versions: &[String], machine: &str) -> String {
    format!(
        "# dhow and others, measured\n\n\
         Made by `cargo xtask bench`, which anybody can run. Everybody does the same work in turns, after a warm-up; times \
         are of whole commands, in milliseconds. *Ratio* is how many times as long as dhow somebody took. Memory and \
         processor time are of one more turn, of the largest process and of all; where a daemon does the work they say \
         nothing and are left out.\n\n\
         {machine}\n\n{}\n\n![the medians](benchmarks.svg)\n\n{}",
        versions.join(" · "),
        tables(measured)
    )
}

/// A table for each workload.
pub(crate) fn tables(measured: &[Measured]) -> String {
    let mut text = String::new();
    for Measured { title, results } in measured {
        let _ = writeln!(
            text,
            "## {title}\n\n| who | median | min | max | ratio | peak MiB | CPU s |\n|---|--:|--:|--:|--:|--:|--:|"
        );
        for result in results {
            let (memory, processor) = result.resources.map_or_else(Default::default, |used| {
                (format!("{:.1}", used.peak_kib as f64 / 1024.0), format!("{:.2}", used.processor_seconds))
            });
            let [median, min, max] =
                [result.median(), result.wall[0], result.wall[result.wall.len() - 1]].map(milliseconds);
            let ratio = ratio(result, &results[0]);
            let _ = writeln!(
                text,
                "| {} | {median} | {min} | {max} | {ratio:.1} | {memory} | {processor} |",
                result.who
            );
        }
        text.push('\n');
    }
    text
}

fn ratio(result: &Result, dhow: &Result) -> f64 {
    result.median().as_secs_f64() / dhow.median().as_secs_f64()
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64() * 1e3)
}

fn json(measured: &[Measured], versions: &[String]) -> Value {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let result = |result: &Result| {
        json!({
            "who": result.who,
            "wall_seconds": result.wall.iter().map(Duration::as_secs_f64).collect::<Vec<_>>(),
            "peak_kib": result.resources.map(|used| used.peak_kib),
            "processor_seconds": result.resources.map(|used| used.processor_seconds),
        })
    };
    let workload = |measured: &Measured| json!({ "title": measured.title, "results": measured.results.iter().map(result).collect::<Vec<_>>() });
    json!({
        "unix_seconds": seconds,
        "machine": machine(),
        "versions": versions,
        "workloads": measured.iter().map(workload).collect::<Vec<_>>(),
    })
}

/// Bars as long as medians, of each workload to its own scale.
fn picture(measured: &[Measured]) -> String {
    let mut bars = String::new();
    let mut y = LINE;
    for Measured { title, results } in measured {
        let _ = writeln!(bars, "<text x=\"0\" y=\"{y}\" font-weight=\"bold\">{}</text>", escaped(title));
        let longest = results.iter().map(Result::median).max().unwrap_or_default().as_secs_f64();
        for (index, result) in results.iter().enumerate() {
            y += LINE;
            let width = BAR * result.median().as_secs_f64() / longest;
            let colour = if index == 0 { "#2a7" } else { "#999" };
            let _ = writeln!(
                bars,
                "<text x=\"0\" y=\"{y}\">{}</text><rect x=\"{NAMES}\" y=\"{}\" width=\"{width:.1}\" height=\"{}\" \
                 fill=\"{colour}\"/><text x=\"{:.1}\" y=\"{y}\">{} ms</text>",
                escaped(&result.who),
                y - LINE + 6,
                LINE - 4,
                NAMES as f64 + width + 6.0,
                milliseconds(result.median()),
            );
        }
        y += 2 * LINE;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"700\" height=\"{y}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{bars}</svg>\n"
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// Processors, memory, kernel.
fn machine() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    format!(
        "{processors} × {}, {}, Linux {}",
        field(&read("/proc/cpuinfo"), "model name"),
        field(&read("/proc/meminfo"), "MemTotal"),
        read("/proc/sys/kernel/osrelease").trim()
    )
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::measure::Resources;
    use super::*;

    fn measured() -> Vec<Measured> {
        let result = |who: &str, ms: [u64; 3], resources| Result {
            who: who.to_owned(),
            wall: ms.map(Duration::from_millis).to_vec(),
            resources,
        };
        let used = Resources { peak_kib: 2048, processor_seconds: 0.5 };
        let results = vec![result("dhow", [9, 10, 12], Some(used)), result("docker", [90, 100, 300], None)];
        vec![Measured { title: "a < b".into(), results }]
    }

    #[test]
    fn a_table_has_ratios_to_dhow() {
        expect![[r#"
            ## a < b

            | who | median | min | max | ratio | peak MiB | CPU s |
            |---|--:|--:|--:|--:|--:|--:|
            | dhow | 10.0 | 9.0 | 12.0 | 1.0 | 2.0 | 0.50 |
            | docker | 100.0 | 90.0 | 300.0 | 10.0 |  |  |

        "#]]
        .assert_eq(&tables(&measured()));
    }

    #[test]
    fn a_picture_is_to_scale() {
        let picture = picture(&measured());
        assert!(
            picture.contains("a &lt; b")
                && picture.contains("width=\"400.0\"")
                && picture.contains("width=\"40.0\"")
        );
    }
}
