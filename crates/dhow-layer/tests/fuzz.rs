//! The fuzz target over its kept corpus, without a fuzzer: see `fuzz/README.md`.

#[path = "../../../fuzz/src/corpus.rs"]
mod corpus;
#[path = "../../../fuzz/src/tar.rs"]
mod tar;

#[test]
fn no_bytes_are_too_much_for_the_tar_reader() {
    let zeros = "\0".repeat(512);
    let words = [
        "0",
        "7",
        "x",
        "g",
        "L",
        "K",
        "S",
        "30 mtime=1.5\n",
        "GNU.sparse.map=0,1",
        "ustar\0",
        "\u{80}",
        &zeros,
    ];
    corpus::run_over("tar", &words, tar::run);
}
