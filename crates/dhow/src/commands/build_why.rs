use super::explain::ExplainFormat;

/// Flags of `dhow build` about what runs and why.
#[derive(clap::Args, Debug)]
pub(crate) struct WhyArgs {
    /// Run every step of this stage, whether its result is known or not (can be repeated)
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    pub(crate) no_cache_filter: Vec<String>,
    /// Say at the end, on standard output, why each step ran, as `dhow explain` does
    #[arg(long, value_enum, value_name = "FORMAT", num_args = 0..=1, require_equals = true, default_missing_value = "text")]
    pub(crate) explain: Option<ExplainFormat>,
}
