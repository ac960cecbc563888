//! A step that ran again and made the same does not disturb what follows.

use expect_test::expect;

use super::check;

#[test]
fn the_same_content_is_the_same_whenever_it_was_written() {
    check(
        "\
//- Dockerfile
FROM base AS one
COPY a /
RUN write /out 1 && old /out 5
FROM base
COPY --from=one /out /
RUN count /n
//- a
1
//= 
//- a
2
",
        expect![[r#"
            miss  one: COPY a /  (a changed)
            miss  one: RUN write /out 1 && old /out 5  (what it builds upon changed: COPY a /)
            hit   stage-1: COPY --from=one /out /
            hit   stage-1: RUN count /n
        "#]],
    );
    check(
        "\
//- Dockerfile
FROM base
RUN write /out 1
RUN count /n
//= 
//- Dockerfile
FROM base
RUN write /out 1 && true
RUN count /n
",
        expect![[r#"
            miss  RUN write /out 1 && true  (instruction was `RUN write /out 1`)
            hit   RUN count /n
        "#]],
    );
    check(
        "\
//- Dockerfile
FROM base
RUN write /out 1 && old /out 5
RUN count /n
//= 
//- Dockerfile
FROM base
RUN write /out 1 && old /out 6
RUN count /n
",
        expect![[r#"
            miss  RUN write /out 1 && old /out 6  (instruction was `RUN write /out 1 && old /out 5`)
            hit   RUN count /n
        "#]],
    );
}

#[test]
fn other_content_is_not() {
    check(
        "\
//- Dockerfile
FROM base
RUN write /out 1
RUN count /n
//= 
//- Dockerfile
FROM base
RUN write /out 2
RUN count /n
",
        expect![[r#"
            miss  RUN write /out 2  (instruction was `RUN write /out 1`)
            miss  RUN count /n  (what it builds upon changed: RUN write /out 2)
        "#]],
    );
}

#[test]
fn neither_are_other_names_modes_owners_links_or_attributes() {
    check(
        "\
//- Dockerfile
FROM base
RUN write /out 1 && write /a 1
RUN count /n
//= 
//- Dockerfile
FROM base
RUN write /out 1 && write /b 1
RUN count /n
",
        expect![[r#"
            miss  RUN write /out 1 && write /b 1  (instruction was `RUN write /out 1 && write /a 1`)
            miss  RUN count /n  (what it builds upon changed: RUN write /out 1 && write /b 1)
        "#]],
    );
    check(
        "\
//- Dockerfile
FROM base
RUN write /out 1 && mode /out 600
RUN count /n
//= 
//- Dockerfile
FROM base
RUN write /out 1 && mode /out 640
RUN count /n
",
        expect![[r#"
            miss  RUN write /out 1 && mode /out 640  (instruction was `RUN write /out 1 && mode /out 600`)
            miss  RUN count /n  (what it builds upon changed: RUN write /out 1 && mode /out 640)
        "#]],
    );
    check(
        "\
//- Dockerfile
FROM base
RUN write /out 1 && own /out 1
RUN count /n
//= 
//- Dockerfile
FROM base
RUN write /out 1 && own /out 2
RUN count /n
",
        expect![[r#"
            miss  RUN write /out 1 && own /out 2  (instruction was `RUN write /out 1 && own /out 1`)
            miss  RUN count /n  (what it builds upon changed: RUN write /out 1 && own /out 2)
        "#]],
    );
    check(
        "\
//- Dockerfile
FROM base
RUN write /out 1 && link /l a
RUN count /n
//= 
//- Dockerfile
FROM base
RUN write /out 1 && link /l b
RUN count /n
",
        expect![[r#"
            miss  RUN write /out 1 && link /l b  (instruction was `RUN write /out 1 && link /l a`)
            miss  RUN count /n  (what it builds upon changed: RUN write /out 1 && link /l b)
        "#]],
    );
    check(
        "\
//- Dockerfile
FROM base
RUN write /out 1 && xattr /out user.a 1
RUN count /n
//= 
//- Dockerfile
FROM base
RUN write /out 1 && xattr /out user.a 2
RUN count /n
",
        expect![[r#"
            miss  RUN write /out 1 && xattr /out user.a 2  (instruction was `RUN write /out 1 && xattr /out user.a 1`)
            miss  RUN count /n  (what it builds upon changed: RUN write /out 1 && xattr /out user.a 2)
        "#]],
    );
}

#[test]
fn a_step_that_changes_nothing_is_the_same_as_any_other_that_does_not() {
    check(
        "\
//- Dockerfile
FROM base
RUN true
RUN count /n
//= 
//- Dockerfile
FROM base
RUN true && true
RUN count /n
",
        expect![[r#"
            miss  RUN true && true  (instruction was `RUN true`)
            hit   RUN count /n
        "#]],
    );
}

#[test]
fn a_step_made_again_without_the_cache_stops_the_cascade_too() {
    check(
        "\
//- Dockerfile
FROM base AS tools
RUN write /t 1
FROM tools
RUN count /n
//= filter tools
",
        expect![[r#"
            miss  tools: RUN write /t 1  (not looked up (--no-cache))
            hit   stage-1: RUN count /n
        "#]],
    );
}
