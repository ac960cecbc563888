//! Flags of docker's `run` that dhow knows and cannot honour. Saying so beats ignoring them.

use crate::error::CliError;

/// Flags that ask for what no Linux container of dhow has, each refused with its reason.
#[derive(clap::Args, Debug)]
pub(crate) struct ForeignFlags {
    #[arg(long, hide = true)]
    cpu_count: Option<String>,
    #[arg(long, hide = true)]
    cpu_percent: Option<String>,
    #[arg(long, hide = true)]
    io_maxbandwidth: Option<String>,
    #[arg(long, hide = true)]
    io_maxiops: Option<String>,
    #[arg(long, hide = true)]
    isolation: Option<String>,
    #[arg(long, hide = true)]
    gpus: Option<String>,
    #[arg(long, hide = true)]
    storage_opt: Vec<String>,
    #[arg(long, hide = true)]
    use_api_socket: bool,
    #[arg(long, hide = true)]
    kernel_memory: Option<String>,
}

impl ForeignFlags {
    pub(crate) fn check(&self) -> Result<(), CliError> {
        // As in docker, 0 is as good as nothing said.
        let said = |text: &Option<String>| text.as_deref().is_some_and(|text| text != "0");
        let windows = [
            ("--cpu-count", said(&self.cpu_count)),
            ("--cpu-percent", said(&self.cpu_percent)),
            ("--io-maxbandwidth", said(&self.io_maxbandwidth)),
            ("--io-maxiops", said(&self.io_maxiops)),
        ];
        if let Some((flag, _)) = windows.iter().find(|(_, said)| *said) {
            return Err(CliError::new(format!("{flag} is for Windows containers")));
        }
        match self.isolation.as_deref() {
            None | Some("" | "default") => {}
            Some(other) => {
                return Err(CliError::new(format!("invalid isolation '{other}' on linux"))
                    .hint("--isolation is for Windows containers"));
            }
        }
        if self.gpus.is_some() {
            return Err(CliError::new("could not select device driver \"\" with capabilities: [[gpu]]")
                .hint("dhow has no drivers for --gpus; --device gives a container the device nodes"));
        }
        if let Some(option) = self.storage_opt.first() {
            return Err(CliError::new(format!(
                "--storage-opt {option}: --storage-opt is supported only for overlay over xfs with 'pquota' mount option"
            ))
            .hint("dhow sets no project quotas, whatever the file system"));
        }
        if self.use_api_socket {
            return Err(CliError::new("--use-api-socket: there is no daemon whose socket could be mounted"));
        }
        match said(&self.kernel_memory) {
            true => Err(CliError::new("--kernel-memory: kernels since 5.4 know no such limit")),
            false => Ok(()),
        }
    }
}
