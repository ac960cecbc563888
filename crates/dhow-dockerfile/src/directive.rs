//! `# syntax=`, `# escape=` and `# check=` at the top of a file.
use crate::diagnostic::{Diagnostic, Span};
use crate::lines::physical_lines;
use crate::rule::Rule;

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

    fn merge(&mut self, more: Self) {
        match (&mut *self, more) {
            (Self::Named(rules), Self::Named(more)) => rules.extend(more),
            (_, Self::All) => *self = Self::All,
            (Self::All, _) => {}
        }
    }
}

impl CheckConfig {
    /// Reads `skip=A,B;error=true;experimental=all`, the value of a `check` directive and of the build
    /// argument `BUILDKIT_DOCKERFILE_CHECK`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut config = Self::default();
        let text = text.trim();
        for option in text.splitn(OPTIONS_MAX, ';').filter(|_| !text.is_empty()) {
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

    /// These settings with what a `check=` among the comments above an instruction adds to them.
    pub fn with_comments(&self, comments: &[String]) -> Self {
        let directives = comments.iter().filter_map(|comment| directive(comment));
        let Some((_, value)) = directives.into_iter().find(|(key, _)| key == "check") else {
            return self.clone();
        };
        let mut config = self.clone();
        if let Ok(local) = Self::parse(first_word(value)) {
            config.skip.merge(local.skip);
            config.experimental.merge(local.experimental);
        }
        config
    }

    /// Whether `rule` may speak.
    pub fn allows(&self, rule: Rule) -> bool {
        if rule.is_experimental() {
            self.experimental.contains(rule.name())
        } else {
            !self.skip.contains(rule.name())
        }
    }
}

/// There are three options; what would be the fourth belongs to the third.
const OPTIONS_MAX: usize = 3;

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

/// Reads the directives of `source`. The first line that is none ends them. Settings of the checks that come
/// from elsewhere take the place of the file's, which is then not even read.
pub(crate) fn read(source: &str, check: Option<&CheckConfig>) -> Head {
    let mut head = Head { directives: Directives::default(), diagnostics: Vec::new(), lines: 0 };
    let mut seen: Vec<String> = Vec::new();
    for line in physical_lines(source) {
        let text = line.text.trim_start().strip_prefix('#');
        let Some((key, value)) = text.and_then(directive) else { break };
        head.lines = line.number;
        if seen.contains(&key) {
            let message = format!("only one {key} parser directive can be used");
            head.diagnostics.push(Diagnostic::error(line.span(), message));
            continue;
        }
        if key == "escape" {
            head.set_escape(value, line.span());
        }
        seen.push(key);
    }
    match (check, find(source, "#", "check")) {
        (Some(check), _) => head.directives.check = check.clone(),
        (None, Some((value, span))) => head.set_check(first_word(value), span),
        (None, None) => {}
    }
    if let Some((syntax, span)) = find_syntax(source) {
        head.set_syntax(syntax, span);
    }
    head
}

impl Head {
    fn set_escape(&mut self, value: &str, span: Span) {
        match value {
            "\\" | "`" => self.directives.escape = if value == "`" { '`' } else { '\\' },
            _ => {
                let message = format!("invalid escape token '{value}' does not match ` or \\");
                self.diagnostics.push(Diagnostic::error(span, message));
            }
        }
    }

    fn set_check(&mut self, value: &str, span: Span) {
        match CheckConfig::parse(value) {
            Ok(check) => self.directives.check = check,
            Err(error) => {
                let message = format!("failed to parse check options: {error}");
                self.diagnostics.push(Diagnostic::error(span, message));
            }
        }
    }

    fn set_syntax(&mut self, syntax: String, span: Span) {
        if !Directives::reads(&syntax) {
            let message =
                format!("syntax {syntax} is not available; the file is read as docker/dockerfile:1");
            self.diagnostics.push(Diagnostic::warning(span, message));
        }
        self.directives.syntax = Some(syntax);
    }
}

impl Directives {
    /// Whether `syntax`, the name of a frontend, stands for the language this crate reads: any version of
    /// `docker/dockerfile`, wherever it is mirrored.
    pub fn reads(syntax: &str) -> bool {
        let name = syntax.split('@').next().unwrap_or(syntax);
        let (folder, last) = name.rsplit_once('/').unwrap_or(("", name));
        let last = last.split(':').next().unwrap_or(last);
        match last {
            "dockerfile" | "dockerfile-upstream" => folder == "docker" || folder.ends_with("/docker"),
            "dockerfile.v0" | "dockerfile.v1" => folder.is_empty(),
            _ => false,
        }
    }
}

/// The frontend a file asks for: in a directive, behind `//`, or as a member of a JSON object.
fn find_syntax(source: &str) -> Option<(String, Span)> {
    let comment = find(source, "#", "syntax").or_else(|| find(source, "//", "syntax"));
    if let Some((value, span)) = comment {
        return Some((first_word(value).to_owned(), span));
    }
    let text = source.strip_prefix('\u{feff}').unwrap_or(source);
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let object: serde_json::Value = serde_json::from_str(text).ok()?;
    let syntax = object.get("syntax")?.as_str()?.to_owned();
    Some((syntax, physical_lines(source).next()?.span()))
}

/// The directive `key` where each line begins with `mark`, below a `#!` line if there is one.
fn find<'s>(source: &'s str, mark: &str, key: &str) -> Option<(&'s str, Span)> {
    let mut seen: Vec<String> = Vec::new();
    for line in physical_lines(source).skip_while(|line| line.number == 1 && line.text.starts_with("#!")) {
        let (found, value) = line.text.strip_prefix(mark).and_then(directive)?;
        if seen.contains(&found) {
            return None;
        }
        if found == key {
            return Some((value, line.span()));
        }
        seen.push(found);
    }
    None
}

/// The directive in `key = value`, its key in lower case.
fn directive(text: &str) -> Option<(String, &str)> {
    const BLANKS: [char; 4] = [' ', '\t', '\r', '\u{c}'];
    let text = text.trim_start();
    let end = text.find(|c: char| !c.is_ascii_alphanumeric())?;
    let key = text[..end].to_ascii_lowercase();
    let value = text[end..].trim_start_matches(BLANKS).strip_prefix('=')?;
    // Of a value that is all blanks one is kept, as in Docker: it is a wrong value, not a comment.
    let last = value.len() - value.chars().next_back()?.len_utf8();
    let value = Some(value.trim_matches(BLANKS)).filter(|value| !value.is_empty()).unwrap_or(&value[last..]);
    matches!(key.as_str(), "syntax" | "escape" | "check").then_some((key, value))
}

fn first_word(value: &str) -> &str {
    value.split(' ').next().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_stand_at_the_top_only() {
        let head = read(
            "# escape = `\n#SYNTAX=docker/dockerfile:1.7 # x\n# comment\n# check=skip=all\nFROM a\n",
            None,
        );
        assert_eq!(head.directives.escape, '`');
        assert_eq!(head.directives.syntax.as_deref(), Some("docker/dockerfile:1.7"));
        assert_eq!(head.directives.check, CheckConfig::default());
        assert_eq!((head.lines, head.diagnostics.len()), (2, 0));
        assert_eq!(read("\n# escape=`\n", None).directives.escape, '\\');
    }

    #[test]
    fn a_syntax_may_stand_below_a_shebang_behind_slashes_and_in_json() {
        let syntax = |source| read(source, None).directives.syntax;
        for source in [
            "#!/usr/bin/env dhow\n# syntax=docker/dockerfile:1\n",
            "// syntax=docker/dockerfile:1 # words\n",
            "{\"syntax\": \"docker/dockerfile:1\"}",
            "\u{feff}# check=skip=all\n# syntax=docker/dockerfile:1",
        ] {
            assert_eq!(syntax(source).as_deref(), Some("docker/dockerfile:1"), "{source}");
        }
        assert_eq!(syntax("  # syntax=docker/dockerfile:1\n"), None, "only escape may be indented");
        let head = read("#!x\n#escape=`\n#check=error=true\nFROM a", None);
        assert!(head.directives.check.error && head.directives.escape == '\\' && head.lines == 0);
    }

    #[test]
    fn frontends_are_known_by_repository() {
        for (syntax, known) in [
            ("docker/dockerfile:1", true),
            ("docker.io/docker/dockerfile-upstream:master-labs", true),
            ("mirror:5000/docker/dockerfile@sha256:0", true),
            ("dockerfile.v0", true),
            ("me/dockerfile", false),
            ("docker/other", false),
            ("me/mine:2", false),
        ] {
            assert_eq!(Directives::reads(syntax), known, "{syntax}");
        }
    }

    #[test]
    fn wrong_directives_are_named() {
        let messages = |source| -> Vec<String> {
            read(source, None).diagnostics.into_iter().map(|diagnostic| diagnostic.message).collect()
        };
        assert_eq!(messages("#escape=x"), [r"invalid escape token 'x' does not match ` or \"]);
        assert_eq!(messages("#escape=`\n#escape=`"), ["only one escape parser directive can be used"]);
        assert_eq!(messages("#check=no=1"), [r#"failed to parse check options: invalid check option "no""#]);
        assert_eq!(messages("#escape= "), [r"invalid escape token ' ' does not match ` or \"]);
        assert_eq!(messages("#syntax=me/mine:2").len(), 1);
    }

    #[test]
    fn check_names_rules() {
        let check = CheckConfig::parse("skip=A,B;error=true;experimental=all").unwrap();
        assert!(check.error && check.skip.contains("B") && !check.skip.contains("C"));
        assert!(check.experimental.contains("anything"));
        let local = check.with_comments(&["x".to_owned(), "check=skip=C // for now".to_owned()]);
        assert!(local.skip.contains("A") && local.skip.contains("C"));
        assert_eq!(check.with_comments(&["check=nonsense".to_owned()]), check);
    }
}
