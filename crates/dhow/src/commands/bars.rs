//! Bars of layers on their way, on a terminal.

use std::fmt::Write;
use std::time::Duration;

use dhow_template::units::human_size;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

const TICK: Duration = Duration::from_millis(200);

/// A place for the bars of a transfer.
pub(crate) fn new() -> MultiProgress {
    MultiProgress::with_draw_target(ProgressDrawTarget::stdout())
}

/// A line without a bar.
pub(crate) fn line(all: &MultiProgress, name: String, text: &'static str) -> ProgressBar {
    let bar = all.add(ProgressBar::hidden().with_style(style("{prefix}: {msg}")));
    bar.set_prefix(name);
    bar.set_message(text);
    bar.tick();
    bar
}

/// Gives a line a bar: how much of what, how fast, and how long still.
pub(crate) fn measure(bar: &ProgressBar, bytes: u64) {
    bar.set_style(
        style("{prefix}: {msg} [{wide_bar}] {sizes} {rate} {left}")
            .progress_chars("=> ")
            .with_key("sizes", |state: &ProgressState, out: &mut dyn Write| {
                let sizes = [state.pos(), state.len().unwrap_or(0)].map(human_size).join("/");
                let _ = write!(out, "{sizes:>15}");
            })
            .with_key("rate", |state: &ProgressState, out: &mut dyn Write| {
                let rate = format!("{}/s", human_size(state.per_sec() as u64));
                let _ = write!(out, "{rate:>9}");
            })
            .with_key("left", |state: &ProgressState, out: &mut dyn Write| {
                let _ = write!(out, "{:>6}", short(state.eta()));
            }),
    );
    bar.set_length(bytes);
    bar.reset_eta();
    // Where nothing comes, the rate falls.
    bar.enable_steady_tick(TICK);
}

/// Takes the bar away again, and says what became of it.
pub(crate) fn end(bar: &ProgressBar, text: String) {
    bar.disable_steady_tick();
    bar.set_style(style("{prefix}: {msg}"));
    bar.finish_with_message(text);
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("our templates are well-formed")
}

/// `8s`, `2m05s`, `3h12m`.
fn short(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds:02}s"),
        (hours @ 0..=99, minutes, _) => format!("{hours}h{minutes:02}m"),
        _ => "ages".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_short() {
        let short = |seconds| short(Duration::from_secs(seconds));
        assert_eq!([8, 125, 11_520].map(short), ["8s", "2m05s", "3h12m"]);
        assert_eq!(super::short(Duration::MAX), "ages");
    }
}
