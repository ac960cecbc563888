//! Stages: what one has to do with another.

use expect_test::expect;

use super::{check, check_after};

/// Two stages, and one that takes a file from each.
const TWO_STAGES: &str = "\
//- Dockerfile
FROM base AS one
COPY a /
RUN copy /a /x
FROM base AS two
COPY b /
RUN copy /b /y
FROM base
COPY --from=one /x /
COPY --from=two /y /
//- a
1
//- b
1
";

#[test]
fn a_change_in_one_stage_leaves_the_other_alone() {
    check_after(
        TWO_STAGES,
        "\
//= 
//- a
2
",
        expect![[r#"
            miss  one: COPY a /  (a changed)
            miss  one: RUN copy /a /x  (what it builds upon changed: COPY a /)
            hit   two: COPY b /
            hit   two: RUN copy /b /y
            miss  stage-2: COPY --from=one /x /  (x changed)
            miss  stage-2: COPY --from=two /y /  (what it builds upon changed: COPY --from=one /x /)
        "#]],
    );
    check_after(
        TWO_STAGES,
        "\
//= jobs 4
//- b
2
",
        expect![[r#"
            hit   one: COPY a /
            hit   one: RUN copy /a /x
            miss  two: COPY b /  (b changed)
            miss  two: RUN copy /b /y  (what it builds upon changed: COPY b /)
            hit   stage-2: COPY --from=one /x /
            miss  stage-2: COPY --from=two /y /  (y changed)
        "#]],
    );
}

#[test]
fn stages_run_beside_each_other_to_the_same_end() {
    check_after(
        TWO_STAGES,
        "\
//= jobs 4,no-cache
//= jobs 1
",
        expect![[r#"
            hit   one: COPY a /
            hit   one: RUN copy /a /x
            hit   two: COPY b /
            hit   two: RUN copy /b /y
            hit   stage-2: COPY --from=one /x /
            hit   stage-2: COPY --from=two /y /
        "#]],
    );
}

#[test]
fn only_what_the_target_needs_is_looked_at() {
    check_after(
        TWO_STAGES,
        "\
//= target two
//- a
2
",
        expect![[r#"
            hit   COPY b /
            hit   RUN copy /b /y
        "#]],
    );
    check_after(
        TWO_STAGES,
        "\
//= target one
//- a
2
",
        expect![[r#"
            miss  COPY a /  (a changed)
            miss  RUN copy /a /x  (what it builds upon changed: COPY a /)
        "#]],
    );
}

#[test]
fn what_is_not_copied_from_a_stage_does_not_count() {
    check(
        "\
//- Dockerfile
FROM base AS one
COPY a b /
FROM base
COPY --from=one /a /
RUN true
//- a
1
//- b
1
//= 
//- b
2
",
        expect![[r#"
            miss  one: COPY a b /  (b changed)
            hit   stage-1: COPY --from=one /a /
            hit   stage-1: RUN true
        "#]],
    );
}

#[test]
fn owners_of_files_in_a_stage_count_unless_set() {
    check(
        "\
//- Dockerfile
FROM base AS one
RUN write /a 1 && own /a 7
FROM base
COPY --from=one /a /
//= 
//- Dockerfile
FROM base AS one
RUN write /a 1 && own /a 8
FROM base
COPY --from=one /a /
",
        expect![[r#"
            miss  one: RUN write /a 1 && own /a 8  (instruction was `RUN write /a 1 && own /a 7`)
            miss  stage-1: COPY --from=one /a /  (owner of a 7:7 -> 8:8)
        "#]],
    );
    check(
        "\
//- Dockerfile
FROM base AS one
RUN write /a 1 && own /a 7
FROM base
COPY --from=one --chown=1:1 /a /
//= 
//- Dockerfile
FROM base AS one
RUN write /a 1 && own /a 8
FROM base
COPY --from=one --chown=1:1 /a /
",
        expect![[r#"
            miss  one: RUN write /a 1 && own /a 8  (instruction was `RUN write /a 1 && own /a 7`)
            hit   stage-1: COPY --from=one --chown=1:1 /a /
        "#]],
    );
}

#[test]
fn a_stage_on_a_stage_goes_on_with_its_result() {
    check(
        "\
//- Dockerfile
FROM base AS one
COPY a /
FROM one
RUN copy /a /b
//- a
1
//= 
//- a
2
",
        expect![[r#"
            miss  one: COPY a /  (a changed)
            miss  stage-1: RUN copy /a /b  (what it builds upon changed: COPY a /)
        "#]],
    );
}

#[test]
fn equal_stages_run_once() {
    check(
        "\
//- Dockerfile
FROM base AS one
RUN count /n
FROM base AS two
RUN count /n
FROM base
COPY --from=one /n /1
COPY --from=two /n /2
",
        expect![[r#"
            miss  one: RUN count /n  (no earlier build of this step)
            hit   two: RUN count /n
            miss  stage-2: COPY --from=one /n /1  (no earlier build of this step)
            miss  stage-2: COPY --from=two /n /2  (no earlier build of this step)
        "#]],
    );
}

#[test]
fn a_linked_copy_does_not_depend_on_what_is_below() {
    check(
        "\
//- Dockerfile
FROM base
RUN write /x 1
COPY --link a /
//- a
1
//= 
//- Dockerfile
FROM base
RUN write /x 2
COPY --link a /
",
        expect![[r#"
            miss  RUN write /x 2  (instruction was `RUN write /x 1`)
            hit   COPY --link a /
        "#]],
    );
}

#[test]
fn triggers_run_and_are_remembered_like_other_steps() {
    check(
        "\
//- @other
FROM base
ONBUILD COPY a /
ONBUILD RUN copy /a /b
//- Dockerfile
FROM other
RUN true
//- a
1
//= 
//- a
2
",
        expect![[r#"
            miss  COPY a /  (a changed)
            miss  RUN copy /a /b  (what it builds upon changed: COPY a /)
            miss  RUN true  (what it builds upon changed: COPY a /)
        "#]],
    );
    check(
        "\
//- @other
FROM base
ONBUILD COPY a /
//- Dockerfile
FROM other
RUN true
//- a
1
//= 
",
        expect![[r#"
            hit   COPY a /
            hit   RUN true
        "#]],
    );
}

#[test]
fn a_failed_step_leaves_those_after_it_unreached() {
    check(
        "\
//- Dockerfile
FROM base
COPY a /
RUN need /ok
RUN true
//- a
1
",
        expect![[r#"
            miss  COPY a /  (no earlier build of this step)
            fail  RUN need /ok  (no earlier build of this step)
            error process "/bin/sh -c need /ok" did not complete successfully: exit code: 1
        "#]],
    );
    check(
        "\
//- Dockerfile
FROM base
COPY a /
RUN need /ok
RUN true
//- a
1
//= 
",
        expect![[r#"
            hit   COPY a /
            fail  RUN need /ok  (its last run failed)
            error process "/bin/sh -c need /ok" did not complete successfully: exit code: 1
        "#]],
    );
    check(
        "\
//- Dockerfile
FROM base
RUN need /ok
RUN true
//= 
//- Dockerfile
FROM base
RUN write /ok 1
RUN need /ok
RUN true
",
        expect![[r#"
            miss  RUN write /ok 1  (no earlier build of this step)
            miss  RUN need /ok  (no earlier build of this step)
            miss  RUN true  (no earlier build of this step)
        "#]],
    );
}
