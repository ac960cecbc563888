//! Flags of `run` and `create` about where a container's output goes.

use std::collections::BTreeMap;

use dhow_engine::containers::LogConfig;

use crate::error::CliError;

#[derive(clap::Args, Debug)]
pub(crate) struct LogFlags {
    /// Where output goes: json-file, local or none
    #[arg(long, value_name = "DRIVER", default_value = "json-file")]
    log_driver: String,
    /// Option of the log: max-size, max-file, labels, env (can be repeated)
    #[arg(long, value_name = "NAME=VALUE")]
    log_opt: Vec<String>,
}

impl LogFlags {
    /// What is asked for.
    pub(crate) fn config(&self) -> Result<LogConfig, CliError> {
        let pair = |text: &String| {
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            (name.to_owned(), value.to_owned())
        };
        let options: BTreeMap<String, String> = self.log_opt.iter().map(pair).collect();
        dhow_serve::log_config::parse(&self.log_driver, options).map_err(CliError::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(driver: &str, options: &[&str], expected: Result<(Option<u64>, u32), &str>) {
        let log_opt = options.iter().map(ToString::to_string).collect();
        let config = LogFlags { log_driver: driver.into(), log_opt }.config();
        let found = config.map_err(|error| error.to_string()).map(|config| match config {
            LogConfig::JsonFile(config) => (config.bytes_max, config.files_max),
            LogConfig::None => (None, 0),
        });
        assert_eq!(
            found.map_err(|error| error.trim_start_matches("Error: ").to_owned()),
            expected.map_err(String::from)
        );
    }

    #[test]
    fn options_are_those_of_the_driver() {
        check("json-file", &[], Ok((None, 1)));
        check("json-file", &["max-size=10k", "max-file=3"], Ok((Some(10_240), 3)));
        check("local", &[], Ok((Some(20 << 20), 5)));
        check("none", &[], Ok((None, 0)));
        check("none", &["max-size=1k"], Err("invalid logging opts for driver none"));
        check("json-file", &["max-file=0"], Err("max-file cannot be less than 1"));
        check("json-file", &["bogus=1"], Err("unknown log opt 'bogus' for json-file log driver"));
        check("syslog", &[], Err("--log-driver syslog is not supported yet"));
    }
}
