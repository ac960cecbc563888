//! No template, however made, panics or runs away.

use dhow_template::{MissingKey, Template, TemplateError};
use proptest::prelude::*;
use serde_json::{Value, json};

fn data() -> Value {
    json!({"s": "text", "n": 3, "f": 1.5, "b": true, "z": null, "l": [1, "b", null, [2]], "m": {"k": "v", "x": {"y": 0}}})
}

/// The message of the error that `template` ends in.
fn check(template: &str, expected: &str) {
    let start: String = template.chars().take(80).collect();
    let rendered = Template::parse(template).and_then(|t| t.render(&data()));
    let Err(TemplateError::Parse { message, .. } | TemplateError::Exec { message, .. }) = rendered else {
        panic!("no error from {start}");
    };
    assert_eq!(message, expected, "{start}");
}

#[test]
fn endless_templates_end_with_an_error() {
    let deep = "exceeded maximum template depth (200)";
    check(r#"{{define "r"}}{{template "r" .}}{{end}}{{template "r" .}}"#, deep);
    check(
        r#"{{define "r"}}{{if true}}{{with .}}{{template "r" .}}{{end}}{{end}}{{end}}{{template "r" .}}"#,
        deep,
    );
    check("{{range 1000000000000}}{{end}}", "takes more than 5000000 steps");
    check("{{range 1000000000000}}some text{{.}}{{end}}", "takes more than 5000000 steps");
}

#[test]
fn texts_cannot_grow_without_bound() {
    let too_long = "error calling printf: result is longer than 8388608 bytes";
    check(r#"{{$x := "xxxxxxxx"}}{{range 99}}{{$x = printf "%s%s" $x $x}}{{end}}"#, too_long);
    check(r#"{{pad "x" 99999999999 0}}"#, "error calling pad: result is longer than 8388608 bytes");
    check(&format!("{{{{printf \"{}\" 1}}}}", "%[1]9999d".repeat(9999)), too_long);
    check(
        &format!("{{{{$x := printf \"%9999d\" 1}}}}{{{{print {}}}}}", "$x ".repeat(9999)),
        "error calling print: result is longer than 8388608 bytes",
    );
    check(
        r#"{{split (printf "%9999d%9999d%9999d%9999d%9999d%9999d%9999d" 1 1 1 1 1 1 1) ""}}"#,
        "error calling split: more than 65536 pieces",
    );
    check(
        r#"{{$x := printf "%9999d" 1}}{{range 9}}{{$x = print $x $x}}{{end}}{{range 99}}{{$x}}{{end}}"#,
        "output is longer than 67108864 bytes",
    );
}

#[test]
fn nesting_is_bounded_before_it_reaches_the_stack() {
    let deep = "nested more than 100 deep";
    check(&format!("{{{{{}1{}}}}}", "(".repeat(9999), ")".repeat(9999)), deep);
    check(&format!("{}{}", "{{if 1}}".repeat(9999), "{{end}}".repeat(9999)), deep);
    check(&format!("{{{{if 0}}}}{}{{{{end}}}}", "{{else if 0}}".repeat(9999)), deep);
    check(&"{{block \"b\" .}}".repeat(9999), deep);
}

/// Pieces that make valid and nearly valid templates likely.
fn piece() -> impl Strategy<Value = String> {
    let words = "{{ }} {{- \x20-}} ( ) | . , := = $ $x .s .n .l .m.x nil true \"a\" `b` 'c' 1 -2 1.5 0x1f \
                 if else end range with define template block break continue /* */ \
                 and or not eq lt len index slice print printf \"%5.2f%[2]*d\" html js urlquery json \
                 split join title lower pad truncate é \n";
    let words: Vec<&'static str> = words.split(' ').collect();
    prop_oneof![
        8 => prop::sample::select(words).prop_map(|word| format!("{word} ")),
        1 => ".{0,3}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_parses_or_fails_cleanly(text in "\\PC{0,60}") {
        let _either = Template::parse(&format!("{{{{{text}")).and_then(|t| t.render(&data()));
        let _or = Template::parse(&text).map(|t| t.missing_key(MissingKey::Error).render(&data()));
    }

    #[test]
    fn any_soup_of_template_words_ends(words in prop::collection::vec(piece(), 0..40)) {
        let soup = words.concat();
        let _either = Template::parse(&soup).and_then(|t| t.render(&data()));
    }

    #[test]
    fn any_call_ends(function in "index|slice|printf|pad|truncate|split|join|eq|lt|len|and|range|js|html",
                     args in prop::collection::vec("\\.[snfbzlm]|-?[0-9]{1,3}|\"%[-+# 0]{0,2}[0-9*]{0,2}(\\.[0-9*])?[a-zA-Z]\"|nil", 0..4)) {
        let _either = Template::parse(&format!("{{{{{function} {}}}}}", args.join(" "))).and_then(|t| t.render(&data()));
    }

    #[test]
    fn text_without_actions_is_itself(text in "[^{]{0,80}") {
        prop_assert_eq!(Template::parse(&text).and_then(|t| t.render(&data())), Ok(text));
    }
}
