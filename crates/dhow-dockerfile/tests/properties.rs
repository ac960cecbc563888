//! What holds for any text.
use dhow_dockerfile::{
    Dockerfile, IgnoreRules, Instruction, InstructionKind, Span, expand, expand_words, sexpr,
};
use proptest::prelude::*;

/// `PROPTEST_CASES` asks for more.
fn cases(few: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(few)
}

/// The tree without places and the spelling of keywords.
fn meaning(mut dockerfile: Dockerfile) -> Dockerfile {
    for arg in &mut dockerfile.global_args {
        forget(&mut arg.span, &mut arg.keyword, &mut arg.original);
    }
    for stage in &mut dockerfile.stages {
        forget(&mut stage.span, &mut stage.keyword, &mut stage.original);
        for Instruction { span, keyword, original, kind, .. } in &mut stage.instructions {
            forget(span, keyword, original);
            forget_fix(kind);
        }
    }
    dockerfile
}

fn forget(span: &mut Span, keyword: &mut String, original: &mut String) {
    (*span, *keyword, *original) = (Span::default(), String::new(), String::new());
}

fn forget_fix(kind: &mut InstructionKind) {
    let files = match kind {
        InstructionKind::Add(add) => &mut add.files,
        InstructionKind::Copy(copy) => &mut copy.files,
        InstructionKind::Onbuild(onbuild) => {
            // Blanks at the end are guarded by a further one.
            let (line, bodies) = onbuild.trigger.split_once('\n').unwrap_or((&onbuild.trigger, ""));
            onbuild.trigger = format!("{}\n{bodies}", line.trim_end());
            return onbuild.instruction.iter_mut().for_each(|kind| forget_fix(kind));
        }
        _ => return,
    };
    if let Some(comment) = &mut files.trailing_comment {
        comment.fixed_line.clear();
        // Heredocs are printed first, so one in the supposed comment leaves it.
        let words = comment.comment.split_whitespace().filter(|word| !word.contains("<<"));
        comment.comment = words.collect::<Vec<_>>().join(" ");
    }
}

fn assert_prints_back(text: &str) {
    let (dockerfile, diagnostics) = Dockerfile::parse(text);
    if diagnostics.iter().any(|one| one.is_error()) {
        return;
    }
    let printed = dockerfile.to_string();
    let (again, diagnostics) = Dockerfile::parse(&printed);
    let errors: Vec<_> = diagnostics.iter().filter(|one| one.is_error()).collect();
    assert!(errors.is_empty(), "{text:?} is printed as {printed:?}: {errors:?}");
    assert_eq!(meaning(again), meaning(dockerfile), "{text:?} is printed as {printed:?}");
}

const WORDS: [&str; 52] = [
    "a",
    "b=c",
    "/d/",
    "\"x y\"",
    "'q'",
    "\\",
    "\\\\",
    "`",
    "#",
    "# c",
    "--",
    "--from=x",
    "--link",
    "--chown='a b'",
    "--mount=type=cache,target=/c",
    "--network=none",
    "--interval=90s",
    "--retries=2",
    "--platform=$P",
    "--exclude=a\\ b",
    "<<E",
    "<<-'F'",
    "<<\"G\"",
    "$x",
    "${x:-y}",
    "[\"a\", \"b c\"]",
    "[",
    "[\"a\"] # c",
    "[]",
    "AS",
    "b",
    "NONE",
    "CMD",
    "80/tcp",
    "\u{a0}",
    "\u{b}",
    "\t",
    "é",
    "<",
    "=",
    "k=\"v w\"",
    "k='",
    "\"",
    "COPY",
    "RUN",
    "--checksum=sha256:a",
    "--unpack=false",
    "--keep-git-dir",
    "--device=v/c=d,required",
    "--security=insecure",
    "--parents",
    "[\"x#\", \"#y\"]",
];
const NAMES: [&str; 19] = [
    "FROM",
    "from",
    "RUN",
    "Copy",
    "ADD",
    "CMD",
    "ENTRYPOINT",
    "ENV",
    "LABEL",
    "ARG",
    "EXPOSE",
    "USER",
    "VOLUME",
    "WORKDIR",
    "STOPSIGNAL",
    "HEALTHCHECK",
    "SHELL",
    "ONBUILD",
    "MAINTAINER",
];
const BREAKS: [&str; 9] =
    ["\n", "\n", "\n", "\r\n", " \\\n", "\\\n  ", "\n# comment\n", "\n\n", "\nE\n\tF\nG\n"];

/// Lines that look like a Dockerfile more often than not.
fn texts() -> impl Strategy<Value = String> {
    let word = prop::sample::select(WORDS.to_vec());
    let line = (
        prop::sample::select(NAMES.to_vec()),
        prop::collection::vec(word, 0..5),
        prop::sample::select(BREAKS.to_vec()),
    );
    let line = line.prop_map(|(name, words, end)| format!("{name} {}{end}", words.join(" ")));
    let head =
        prop::sample::select(vec!["", "", "# escape=`\n", "ARG X=1\n", "# check=skip=all;error=true\n"]);
    (head, prop::collection::vec(line, 0..4))
        .prop_map(|(head, lines)| format!("{head}FROM a\n{}", lines.concat()))
}

/// Blanks that belong to a word, where printing could lose them.
#[test]
fn blanks_at_edges_print_back() {
    for line in [
        "ENV \\ \u{b} =",
        "ENV \\ \t k=\"v w\"",
        "LABEL \" k=v' NONE' \\\n  from \\ \\",
        "ENV \" \\\nFROM --from=x \\ \\",
        "ARG a=\" \\\n b \\",
    ] {
        assert_prints_back(&format!("FROM a\n{line}\n"));
    }
}

#[test]
fn a_heredoc_behind_a_backslash_prints_back() {
    assert_prints_back("# escape=`\nFROM a\nCOPY --exclude=a\\ b <<\"G\" a\ntext\nG\n");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(1000), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn printing_and_reading_gives_the_same_tree(text in texts()) {
        assert_prints_back(&text);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(300), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_anything_panic(text in "(?s)[ -~\u{a0}é\n\r\t]{0,80}", other in any::<String>()) {
        for text in [text, other] {
            let (dockerfile, diagnostics) = Dockerfile::parse(&text);
            diagnostics.iter().for_each(|one| assert!(!one.render("Dockerfile", &text).is_empty()));
            assert_prints_back(&text);
            drop((dockerfile.to_string(), sexpr(&text), IgnoreRules::parse(&text)));
            drop((expand(&text, '\\', |_| None), expand_words(&text, '`', |_| Some(text.clone()))));
        }
    }

    /// A walker that goes down directory by directory, and one that asks for whole paths, agree.
    #[test]
    fn a_walk_and_a_look_agree(
        rules in prop::collection::vec("!?(\\*\\*/|/)?[ab*?]{1,2}(/[ab*]{1,2}){0,2}(/\\*\\*)?", 0..6),
        path in "[ab]{1,2}(/[ab]{1,2}){0,3}",
    ) {
        let rules = IgnoreRules::parse(&rules.join("\n")).unwrap();
        let ends: Vec<usize> = path.match_indices('/').map(|(at, _)| at).chain([path.len()]).collect();
        let mut state = dhow_dockerfile::IgnoreState::default();
        for end in &ends {
            let (verdict, next) = rules.check_child(&state, &path[..*end]);
            prop_assert_eq!(verdict, rules.check(&path[..*end]));
            state = next;
        }
        for end in &ends {
            let dir = &path[..*end];
            if rules.check(dir).ignored && !rules.may_have_reincluded_children(dir) {
                prop_assert!(rules.check(&path).ignored, "{} is pruned but {} is wanted", dir, path);
            }
        }
    }
}
