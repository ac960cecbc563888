//! The fuzz targets over their kept corpora, without a fuzzer: see `fuzz/README.md`.

#[path = "../../../fuzz/src/corpus.rs"]
mod corpus;
#[path = "../../../fuzz/src/dockerfile.rs"]
mod dockerfile;
#[path = "../../../fuzz/src/ignore.rs"]
mod ignore;

#[test]
fn no_bytes_are_too_much_for_the_parser() {
    let words = [
        "\\\n",
        "<<E",
        "\nE\n",
        "${",
        "}",
        "#",
        "\n",
        "FROM ",
        " AS ",
        "ONBUILD ",
        "--",
        "=",
        "[\"",
        "\"]",
        "'",
        "`",
        "# escape=`\n",
        "\u{feff}",
        "\r\n",
        "\t",
        "\u{a0}",
        "$",
        ":-",
        "//",
        "--mount=",
        "{",
        "\0",
    ];
    corpus::run_over("dockerfile", &words, dockerfile::run);
}

#[test]
fn no_bytes_are_too_much_for_the_ignore_rules() {
    let words =
        ["*", "**", "/", "!", "[", "]", "\\", "?", "a", "\n", "..", ".", "-", "^", "#", "**/", "/**", " "];
    corpus::run_over("ignore", &words, ignore::run);
}
