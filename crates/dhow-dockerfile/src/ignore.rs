//! `.dockerignore` files, and the same patterns in `--exclude`.
use crate::glob::{DoubleStar, Glob};

/// The patterns of a `.dockerignore`, compiled.
#[derive(Clone, Debug, Default)]
pub struct IgnoreRules {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    line: usize,
    pattern: String,
    reincludes: bool,
    matcher: Matcher,
}

/// How a pattern is compared. The plain kinds are most of all patterns met.
#[derive(Clone, Debug)]
enum Matcher {
    Exact(String),
    /// `text**`
    Prefix(String),
    /// `**text`
    Suffix(String),
    Glob {
        glob: Glob,
        /// What every match begins with.
        prefix: String,
        /// What every match ends with: most paths are told apart by this alone.
        suffix: String,
    },
}

/// Why a set of patterns was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}: {pattern:?}")]
pub struct IgnoreError {
    /// Line of the pattern, from 1; its position where patterns came as a list.
    pub line: usize,
    /// The pattern as written.
    pub pattern: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

/// Whether a path is left out, and by which rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict<'a> {
    /// The path is left out.
    pub ignored: bool,
    /// The rule that decided, if any matched.
    pub rule: Option<RuleRef<'a>>,
}

/// The place of a rule, for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleRef<'a> {
    /// Line in the file, from 1.
    pub line: usize,
    /// The pattern as written.
    pub pattern: &'a str,
}

/// Which rules matched a directory; what a walker hands down to [`IgnoreRules::check_child`].
/// The default is the state of the root.
#[derive(Clone, Debug, Default)]
pub struct IgnoreState {
    matched: Vec<bool>,
}

impl IgnoreRules {
    /// Reads a `.dockerignore`.
    pub fn parse(text: &str) -> Result<Self, IgnoreError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines = text.lines().enumerate().filter(|(_, line)| !line.starts_with('#'));
        let rules = lines.filter_map(|(index, line)| rule(index + 1, line, Anchor::Context).transpose());
        Ok(Self { rules: rules.collect::<Result<_, _>>()? })
    }

    /// Takes patterns that are not lines of a file: no comments, and a leading slash is kept.
    pub fn from_patterns<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<Self, IgnoreError> {
        let patterns = patterns.into_iter().enumerate();
        let rules =
            patterns.filter_map(|(index, pattern)| rule(index + 1, pattern, Anchor::AsWritten).transpose());
        Ok(Self { rules: rules.collect::<Result<_, _>>()? })
    }

    /// Whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The path that a source of COPY stands for, if these rules leave it out for certain: without any `!` rule,
    /// and for the whole context only if a rule names everything.
    pub fn leaves_out(&self, source: &str) -> Option<String> {
        let path = clean(source);
        let names_everything =
            |rule: &Rule| matches!(clean(&rule.pattern).trim_start_matches('/'), "*" | "**" | "**/*");
        let left_out = match path.as_str() {
            _ if self.rules.iter().any(|rule| rule.reincludes) => false,
            "." | "/" => self.rules.iter().any(names_everything),
            path => self.check(path).ignored,
        };
        left_out.then_some(path)
    }

    /// Judges `path`, relative to the root and with slashes, together with its parents.
    pub fn check(&self, path: impl AsRef<[u8]>) -> Verdict<'_> {
        let path = path.as_ref();
        let mut state = IgnoreState::default();
        let mut verdict = Verdict { ignored: false, rule: None };
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for end in ends.chain([path.len()]) {
            (verdict, state) = self.check_child(&state, &path[..end]);
        }
        verdict
    }

    /// Judges `path` given the state of its parent directory, and returns the state to use for what
    /// is below it. A walker that goes down this way compares each path once.
    pub fn check_child(&self, parent: &IgnoreState, path: impl AsRef<[u8]>) -> (Verdict<'_>, IgnoreState) {
        let path = path.as_ref();
        let mut verdict = Verdict { ignored: false, rule: None };
        let mut matched = Vec::with_capacity(self.rules.len());
        for (index, rule) in self.rules.iter().enumerate() {
            let inherited = parent.matched.get(index).copied().unwrap_or(false);
            // A rule that could not change the verdict is not compared, and therefore not handed
            // down either: Docker's walk does the same and its results show it.
            let matches = inherited || (rule.reincludes == verdict.ignored && rule.matcher.is_match(path));
            if matches && path != b"." && !path.is_empty() {
                verdict.ignored = !rule.reincludes;
                verdict.rule = Some(RuleRef { line: rule.line, pattern: &rule.pattern });
            }
            matched.push(matches);
        }
        (verdict, IgnoreState { matched })
    }

    /// Whether a `!` rule could bring back something below the ignored directory `dir`. If not, a
    /// walker need not enter it.
    pub fn may_have_reincluded_children(&self, dir: impl AsRef<[u8]>) -> bool {
        let mut below = dir.as_ref().to_vec();
        below.push(b'/');
        self.rules.iter().filter(|rule| rule.reincludes).any(|rule| rule.matcher.may_match_below(&below))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Anchor {
    /// A leading slash means the root of the context and is dropped.
    Context,
    AsWritten,
}

fn rule(line: usize, text: &str, anchor: Anchor) -> Result<Option<Rule>, IgnoreError> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let error = |problem| IgnoreError { line, pattern: text.to_owned(), problem };
    let (reincludes, path) = match text.strip_prefix('!') {
        Some(path) => (true, path.trim()),
        None => (false, text),
    };
    if path.is_empty() {
        return Err(error("illegal exclusion pattern"));
    }
    let mut cleaned = clean(path);
    if anchor == Anchor::Context && cleaned.len() > 1 && cleaned.starts_with('/') {
        cleaned.remove(0);
    }
    let matcher = Matcher::compile(cleaned).map_err(|_| error("syntax error in pattern"))?;
    Ok(Some(Rule { line, pattern: text.to_owned(), reincludes, matcher }))
}

impl Matcher {
    fn compile(pattern: String) -> Result<Self, crate::glob::BadPattern> {
        let plain = |text: &str| !text.contains(['*', '?', '[', ']', '\\']);
        if plain(&pattern) {
            return Ok(Self::Exact(pattern));
        }
        if let Some(suffix) = pattern.strip_prefix("**").filter(|suffix| plain(suffix)) {
            return Ok(Self::Suffix(suffix.to_owned()));
        }
        if let Some(prefix) = pattern.strip_suffix("**").filter(|prefix| plain(prefix)) {
            return Ok(Self::Prefix(prefix.to_owned()));
        }
        let glob = Glob::compile(&pattern, DoubleStar::Components)?;
        let special = pattern.find(['*', '?', '[', '\\']).unwrap_or(pattern.len());
        let plain_end =
            if pattern.contains(['[', '\\']) { "" } else { pattern.rsplit(['*', '?']).next().unwrap_or("") };
        // `**/x` also matches `x`.
        let suffix = plain_end.trim_start_matches('/').to_owned();
        Ok(Self::Glob { glob, prefix: pattern[..special].to_owned(), suffix })
    }

    fn is_match(&self, path: &[u8]) -> bool {
        match self {
            Self::Exact(text) => path == text.as_bytes(),
            Self::Prefix(prefix) => path.starts_with(prefix.as_bytes()),
            Self::Suffix(suffix) => {
                path.ends_with(suffix.as_bytes())
                    || suffix.strip_prefix('/').is_some_and(|name| path == name.as_bytes())
            }
            Self::Glob { glob, prefix, suffix } => {
                path.starts_with(prefix.as_bytes())
                    && path.ends_with(suffix.as_bytes())
                    && glob.is_match(String::from_utf8_lossy(path).chars())
            }
        }
    }

    /// Whether any path that begins with `below` (a directory and a slash) could match.
    fn may_match_below(&self, below: &[u8]) -> bool {
        match self {
            Self::Exact(text) => text.as_bytes().starts_with(below),
            Self::Prefix(prefix) | Self::Glob { prefix, .. } => {
                let prefix = prefix.as_bytes();
                prefix.starts_with(below) || below.starts_with(prefix)
            }
            Self::Suffix(_) => true,
        }
    }
}

/// The shortest spelling of a path: no `.`, no empty component, `..` taken back where it can be.
fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    match (rooted, parts.join("/")) {
        (true, path) => format!("/{path}"),
        (false, path) if path.is_empty() => ".".to_owned(),
        (false, path) => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    /// Prints each path with its verdict and the deciding line.
    #[track_caller]
    fn check(rules: &str, paths: &str, expected: Expect) {
        let rules = IgnoreRules::parse(rules).unwrap();
        let mut out = String::new();
        for path in paths.split_whitespace() {
            let verdict = rules.check(path);
            let kept = if verdict.ignored { "out" } else { "in " };
            let line = verdict.rule.map_or("-".to_owned(), |rule| format!("{} {}", rule.line, rule.pattern));
            out.push_str(&format!("{kept} {path}  {line}\n"));
        }
        expected.assert_eq(&out);
    }

    #[test]
    fn patterns_are_anchored_at_the_root() {
        check(
            "*.log\n__pycache__\n.git\n",
            "a.log sub/a.log __pycache__/x.pyc sub/__pycache__ .git/HEAD .gitignore",
            expect![[r#"
                out a.log  1 *.log
                in  sub/a.log  -
                out __pycache__/x.pyc  2 __pycache__
                in  sub/__pycache__  -
                out .git/HEAD  3 .git
                in  .gitignore  -
            "#]],
        );
    }

    #[test]
    fn the_last_match_wins_and_children_can_come_back() {
        check(
            "\u{feff}# comment\n\ndocs\n!docs/README.md\n /tmp/../build/ \n*.md\n!README.md\n #x\n",
            "docs docs/a docs/README.md build build/x a.md README.md sub/a.md #x",
            expect![[r##"
                out docs  3 docs
                out docs/a  3 docs
                in  docs/README.md  4 !docs/README.md
                out build  5 /tmp/../build/
                out build/x  5 /tmp/../build/
                out a.md  6 *.md
                in  README.md  7 !README.md
                in  sub/a.md  -
                out #x  8 #x
            "##]],
        );
    }

    #[test]
    fn two_stars_span_components() {
        check(
            "**/*.o\na/**/z\nlib/**\n**/node_modules\n!**/keep.o\nx**y\n",
            "m.o d/e/m.o a/z a/b/c/z a/bz lib lib/x p/node_modules/q d/keep.o xy x/1/y",
            expect![[r#"
                out m.o  1 **/*.o
                out d/e/m.o  1 **/*.o
                out a/z  2 a/**/z
                out a/b/c/z  2 a/**/z
                in  a/bz  -
                in  lib  -
                out lib/x  3 lib/**
                out p/node_modules/q  4 **/node_modules
                in  d/keep.o  5 !**/keep.o
                out xy  6 x**y
                out x/1/y  6 x**y
            "#]],
        );
    }

    #[test]
    fn everything_but_a_few_is_a_usual_form() {
        check(
            "*\n!src\n!Cargo.*\nsrc/**/*.bak\n!src/[a-c]\\*.bak\n",
            "README src src/main.rs Cargo.toml src/x.bak src/a*.bak . target/x",
            expect![[r#"
                out README  1 *
                in  src  2 !src
                in  src/main.rs  2 !src
                in  Cargo.toml  3 !Cargo.*
                out src/x.bak  4 src/**/*.bak
                in  src/a*.bak  5 !src/[a-c]\*.bak
                in  .  -
                out target/x  1 *
            "#]],
        );
    }

    #[test]
    fn a_walker_is_told_where_it_need_not_look() {
        let rules = IgnoreRules::parse("node_modules\ndocs\n!docs/api/*.md\n!vendor/a\n").unwrap();
        let may = |dir| rules.may_have_reincluded_children(dir);
        assert!(!may("node_modules"));
        assert!(!may("docsx"));
        assert!(!may("docs/other"));
        assert!(may("docs"));
        assert!(may("docs/api"));
        assert!(may("vendor"));
        assert!(!may("vendor/a"), "children of a path named exactly inherit its verdict");
        assert!(IgnoreRules::parse("!**/x").unwrap().may_have_reincluded_children("any"));
    }

    #[test]
    fn sources_that_are_left_out_for_certain() {
        let leaves_out = |rules: &str, source| IgnoreRules::parse(rules).unwrap().leaves_out(source);
        assert_eq!(leaves_out("Dockerfile\n", "./Dockerfile").as_deref(), Some("Dockerfile"));
        assert_eq!(leaves_out("docs\n", "docs/a").as_deref(), Some("docs/a"));
        assert_eq!(leaves_out("*\n", ".").as_deref(), Some("."));
        assert_eq!(leaves_out("/**\n", "/").as_deref(), Some("/"));
        assert_eq!(leaves_out(".*\n", "."), None);
        assert_eq!(leaves_out("**\n!Dockerfile\n", "x"), None, "a `!` may bring it back");
        assert_eq!(leaves_out("", "x"), None);
    }

    #[test]
    fn bad_patterns_are_named_with_their_line() {
        for (text, message) in [
            ("a\n!\n", r#"line 2: illegal exclusion pattern: "!""#),
            ("[a\n", r#"line 1: syntax error in pattern: "[a""#),
            ("a\\\n", r#"line 1: syntax error in pattern: "a\\""#),
        ] {
            assert_eq!(IgnoreRules::parse(text).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn a_large_tree_is_judged_by_many_rules_without_delay() {
        let rules = "**/node_modules\n**/*.o\n*.log\ntarget/**\n!**/keep/*.o\ndocs/**/[a-f]*.md\n".repeat(5);
        let rules = IgnoreRules::parse(&rules).unwrap();
        let path = |n: usize| format!("packages/p{}/src/module{}/file{n}.c", n % 97, n % 13);
        let before = std::time::Instant::now();
        assert!((0..20_000).all(|n| !rules.check(path(n)).ignored));
        assert!(before.elapsed().as_secs() < 5, "took {:?}", before.elapsed());
    }

    #[test]
    fn names_that_are_not_utf8_are_compared_too() {
        let rules = IgnoreRules::from_patterns(["*.o", "d?x"]).unwrap();
        assert!(rules.check(b"\xff\xfe.o").ignored);
        assert!(rules.check(b"d\xffx").ignored);
        assert!(!rules.check(b"\xff").ignored);
    }
}
