//! Where a container's output goes, as docker's users say it.

use std::collections::BTreeMap;

use dhow_engine::containers::{JsonFileConfig, LogConfig};
use dhow_template::units::ram_in_bytes;

/// What the driver `local` keeps where nobody says how much.
const LOCAL_BYTES_MAX: u64 = 20 << 20;
const LOCAL_FILES_MAX: u32 = 5;

/// Reads a driver and its options. The error is for people.
pub fn parse(driver: &str, options: BTreeMap<String, String>) -> Result<LogConfig, String> {
    match driver {
        "" | "json-file" => json_file(options, JsonFileConfig::default()),
        "local" => {
            let (bytes_max, files_max) = (Some(LOCAL_BYTES_MAX), LOCAL_FILES_MAX);
            json_file(
                options,
                JsonFileConfig { bytes_max, files_max, local: true, ..JsonFileConfig::default() },
            )
        }
        "none" if options.is_empty() => Ok(LogConfig::None),
        "none" => Err("invalid logging opts for driver none".to_owned()),
        driver => Err(format!("--log-driver {driver} is not supported yet")),
    }
}

fn json_file(options: BTreeMap<String, String>, usual: JsonFileConfig) -> Result<LogConfig, String> {
    let mut config = usual;
    let driver = if config.local { "local" } else { "json-file" };
    for (name, value) in &options {
        match (name.as_str(), value.as_str()) {
            ("max-size", "-1") if !config.local => config.bytes_max = None,
            ("max-size", size) => {
                let invalid =
                    |error| format!("invalid argument \"{size}\" for \"--log-opt max-size\" flag: {error}");
                match ram_in_bytes(size).map_err(invalid)? {
                    0 => return Err("max-size must be a positive number".to_owned()),
                    size => config.bytes_max = Some(size),
                }
            }
            ("max-file", count) => {
                let invalid = |_| format!("invalid value for max-file: {count}: expected a number");
                match count.parse::<u32>().map_err(invalid)? {
                    0 => return Err("max-file cannot be less than 1".to_owned()),
                    count => config.files_max = count,
                }
            }
            ("labels" | "env", _) if !config.local => {}
            ("compress", "false") | ("mode", "blocking") => {}
            ("compress" | "mode" | "max-buffer-size" | "tag" | "labels-regex" | "env-regex", value) => {
                return Err(format!("--log-opt {name}={value} is not supported yet"));
            }
            _ => return Err(format!("unknown log opt '{name}' for {driver} log driver")),
        }
    }
    Ok(LogConfig::JsonFile(JsonFileConfig { options, ..config }))
}
