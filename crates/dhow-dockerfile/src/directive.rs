//! `# syntax=`, `# escape=` and `# check=` at the top of a file.
use crate::diagnostic::{Diagnostic, Span};
use crate::lines::physical_lines;

/// What a file says about how to read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directives {
    /// The frontend asked for, as written.
    pub syntax: Option<String>,
    /// The escape and continuation character: `\` or a backtick.
    pub escape: char,
    /// Which lint rules apply.
    pub check: CheckConfig,
}

impl Default for Directives {
    fn default() -> Self {
        Self { syntax: None, escape: '\\', check: CheckConfig::default() }
    }
}

/// The value of a `check` directive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckConfig {
    /// Rules that stay silent.
    pub skip: RuleSet,
    /// Experimental rules that speak.
    pub experimental: RuleSet,
    /// Findings make the build fail.
    pub error: bool,
}

/// A set of lint rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleSet {
    /// Every rule.
    All,
    /// The rules named.
    Named(Vec<String>),
}

impl Default for RuleSet {
    fn default() -> Self {
        Self::Named(Vec::new())
    }
}

impl RuleSet {
    /// Whether `rule` is in the set.
    pub fn contains(&self, rule: &str) -> bool {
        match self {
            Self::All => true,
            Self::Named(rules) => rules.iter().any(|named| named == rule),
        }
    }

    fn parse(text: &str) -> Self {
        match text.trim() {
            "all" => Self::All,
            rules => Self::Named(rules.split(',').map(|rule| rule.trim().to_owned()).collect()),
        }
    }
}

impl CheckConfig {
    /// Reads `skip=A,B;error=true;experimental=all`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut config = Self::default();
        let text = text.split(' ').next().unwrap_or_default();
        for option in text.split(';').filter(|_| !text.is_empty()) {
            let (key, value) =
                option.split_once('=').ok_or_else(|| format!("invalid check option {option:?}"))?;
            match key.trim() {
                "skip" => config.skip = RuleSet::parse(value),
                "experimental" => config.experimental = RuleSet::parse(value),
                "error" => config.error = boolean(value.trim(), option)?,
                key => return Err(format!("invalid check option {key:?}")),
            }
        }
        Ok(config)
    }
}

fn boolean(value: &str, option: &str) -> Result<bool, String> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("failed to parse check option {option:?}: invalid syntax")),
    }
}

/// What the top of a file yielded.
pub(crate) struct Head {
    pub(crate) directives: Directives,
    pub(crate) diagnostics: Vec<Diagnostic>,
    /// Lines taken by directives, all at the beginning.
    pub(crate) lines: usize,
}

/// Reads the directives of `source`. The first line that is none ends them.
pub(crate) fn read(source: &str) -> Head {
    let mut head = Head { directives: Directives::default(), diagnostics: Vec::new(), lines: 0 };
    let mut seen: Vec<String> = Vec::new();
    for line in physical_lines(source) {
        let Some((key, value)) = key_and_value(line.text.trim_start()) else { break };
        head.lines = line.number;
        if seen.contains(&key) {
            let message = format!("only one {key} parser directive can be used");
            head.diagnostics.push(Diagnostic::error(line.span(), message));
            continue;
        }
        head.apply(&key, value, line.span());
        seen.push(key);
    }
    if head.directives.syntax.is_none() {
        head.directives.syntax = syntax_after_shebang(source);
    }
    head
}

impl Head {
    fn apply(&mut self, key: &str, value: &str, span: Span) {
        match key {
            "escape" => match value {
                "\\" | "`" => self.directives.escape = if value == "`" { '`' } else { '\\' },
                _ => {
                    let message = format!("invalid escape token '{value}' does not match ` or \\");
                    self.diagnostics.push(Diagnostic::error(span, message));
                }
            },
            "check" => match CheckConfig::parse(value) {
                Ok(check) => self.directives.check = check,
                Err(error) => {
                    let message = format!("failed to parse check options: {error}");
                    self.diagnostics.push(Diagnostic::error(span, message));
                }
            },
            _ => self.set_syntax(value, span),
        }
    }

    fn set_syntax(&mut self, value: &str, span: Span) {
        let syntax = value.split(' ').next().unwrap_or(value);
        if !is_docker_syntax(syntax) {
            let message =
                format!("syntax {syntax} is not available; the file is read as docker/dockerfile:1");
            self.diagnostics.push(Diagnostic::warning(span, message));
        }
        self.directives.syntax = Some(syntax.to_owned());
    }
}

/// Whether a `syntax` names the language this crate reads.
fn is_docker_syntax(syntax: &str) -> bool {
    let name = syntax.split(['@']).next().unwrap_or(syntax);
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    let name = name.split(':').next().unwrap_or(name);
    matches!(name, "docker/dockerfile" | "docker/dockerfile-upstream" | "dockerfile.v0" | "dockerfile.v1")
}

/// A file that is also a script may have its syntax line second.
fn syntax_after_shebang(source: &str) -> Option<String> {
    let mut lines = physical_lines(source).skip_while(|line| line.number == 1 && line.text.starts_with("#!"));
    let second = lines.next().filter(|line| line.number == 2)?;
    let (key, value) = key_and_value(second.text)?;
    (key == "syntax").then(|| value.split(' ').next().unwrap_or(value).to_owned())
}

/// The directive in `# key = value`, its key in lower case.
pub(crate) fn key_and_value(line: &str) -> Option<(String, &str)> {
    let (key, value) = line.strip_prefix('#')?.trim_start().split_once('=')?;
    let (key, value) = (key.trim_end().to_lowercase(), value.trim());
    let known = matches!(key.as_str(), "syntax" | "escape" | "check");
    (known && !value.is_empty()).then_some((key, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_stand_at_the_top_only() {
        let head =
            read("# escape = `\n#SYNTAX=docker/dockerfile:1.7 # x\n# comment\n# check=skip=all\nFROM a\n");
        assert_eq!(head.directives.escape, '`');
        assert_eq!(head.directives.syntax.as_deref(), Some("docker/dockerfile:1.7"));
        assert_eq!(head.directives.check, CheckConfig::default());
        assert_eq!((head.lines, head.diagnostics.len()), (2, 0));
        assert_eq!(read("\n# escape=`\n").directives.escape, '\\');
        assert_eq!(
            read("#!/usr/bin/env dhow\n# syntax=docker/dockerfile:1\n").directives.syntax.unwrap(),
            "docker/dockerfile:1"
        );
    }

    #[test]
    fn wrong_directives_are_named() {
        let messages = |source| -> Vec<String> {
            read(source).diagnostics.into_iter().map(|diagnostic| diagnostic.message).collect()
        };
        assert_eq!(messages("#escape=x"), [r"invalid escape token 'x' does not match ` or \"]);
        assert_eq!(messages("#escape=`\n#escape=`"), ["only one escape parser directive can be used"]);
        assert_eq!(messages("#check=no=1"), [r#"failed to parse check options: invalid check option "no""#]);
        assert_eq!(messages("#syntax=me/mine:2").len(), 1);
    }

    #[test]
    fn check_names_rules() {
        let check = CheckConfig::parse("skip=A,B;error=true;experimental=all").unwrap();
        assert!(check.error && check.skip.contains("B") && !check.skip.contains("C"));
        assert!(check.experimental.contains("anything"));
    }
}
