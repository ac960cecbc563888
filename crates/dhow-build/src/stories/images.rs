//! Bases, and finding the nearest earlier build.

use expect_test::expect;

use super::{APP, check, check_after};

#[test]
fn a_base_that_moved_is_named() {
    check(
        "\
//- @other
FROM base
//- Dockerfile
FROM other
RUN true
RUN true && true
//= 
//- @other
FROM base
COPY <<x /x
1
x
",
        expect![[r#"
            miss  RUN true  (base other moved sha256:… -> sha256:…)
            miss  RUN true && true  (what it builds upon changed: base other moved sha256:… -> sha256:…)
        "#]],
    );
}

#[test]
fn a_base_with_the_same_layers_is_the_same() {
    check(
        "\
//- @other
FROM base
LABEL a=1
//- Dockerfile
FROM other
RUN true
//= 
//- @other
FROM base
LABEL a=2
",
        expect![[r#"
            hit   RUN true
        "#]],
    );
}

#[test]
fn the_variables_of_a_base_count() {
    check(
        "\
//- @other
FROM base
ENV A=1
//- Dockerfile
FROM other
RUN true
//= 
//- @other
FROM base
ENV A=2
",
        expect![[r#"
            miss  RUN true  (ENV A 1 -> 2)
        "#]],
    );
}

#[test]
fn another_base_is_another_beginning() {
    check(
        "\
//- @other
FROM base
COPY <<x /x
1
x
//- Dockerfile
FROM base
RUN true
//= 
//- Dockerfile
FROM other
RUN true
",
        expect![[r#"
            miss  RUN true  (what it builds upon changed: FROM other)
        "#]],
    );
}

#[test]
fn inserted_and_removed_lines_do_not_hide_the_rest() {
    check_after(
        APP,
        "\
//= 
//- Dockerfile
FROM base
RUN write /first 1
COPY req /
RUN copy /req /installed
COPY app /
",
        expect![[r#"
            miss  RUN write /first 1  (no earlier build of this step)
            miss  COPY req /  (what it builds upon changed: RUN write /first 1 is new)
            miss  RUN copy /req /installed  (what it builds upon changed: RUN write /first 1 is new)
            miss  COPY app /  (what it builds upon changed: RUN write /first 1 is new)
        "#]],
    );
    check(
        "\
//- Dockerfile
FROM base
RUN write /first 1
COPY req /
RUN copy /req /installed
//- req
1
//= 
//- Dockerfile
FROM base
COPY req /
RUN copy /req /installed
",
        expect![[r#"
            miss  COPY req /  (what it builds upon changed: RUN write /first 1 is gone)
            miss  RUN copy /req /installed  (what it builds upon changed: RUN write /first 1 is gone)
        "#]],
    );
}

#[test]
fn swapped_lines_find_each_other() {
    check_after(
        APP,
        "\
//= 
//- Dockerfile
FROM base
COPY app /
COPY req /
RUN copy /req /installed
",
        expect![[r#"
            miss  COPY app /  (what it builds upon changed: COPY req / is gone)
            miss  COPY req /  (what it builds upon changed: COPY app / is new)
            miss  RUN copy /req /installed  (what it builds upon changed: COPY app / is new)
        "#]],
    );
}

#[test]
fn a_renamed_dockerfile_is_recognised() {
    check_after(
        APP,
        "\
//= mv Dockerfile Other,file Other
//- req
2
",
        expect![[r#"
            miss  COPY req /  (req changed)
            miss  RUN copy /req /installed  (what it builds upon changed: COPY req /)
            miss  COPY app /  (what it builds upon changed: COPY req /)
        "#]],
    );
}

#[test]
fn a_copied_folder_is_recognised() {
    check_after(
        APP,
        "\
//= folder copy
//- app
2
",
        expect![[r#"
            hit   COPY req /
            hit   RUN copy /req /installed
            miss  COPY app /  (app changed)
        "#]],
    );
}

#[test]
fn a_stranger_is_not_compared_with() {
    check(
        "\
//- Dockerfile
FROM base
RUN true
COPY a /
//- a
1
//= file Other
//- Other
FROM base
RUN write /a 1
COPY Other /
",
        expect![[r#"
            miss  RUN write /a 1  (no earlier build of this step)
            miss  COPY Other /  (no earlier build of this step)
        "#]],
    );
}

#[test]
fn what_was_removed_says_so() {
    check_after(
        APP,
        "//= gc",
        expect![[r#"
            miss  COPY req /  (removed by gc)
            miss  RUN copy /req /installed  (removed by gc)
            miss  COPY app /  (removed by gc)
        "#]],
    );
    check_after(
        APP,
        "\
//= gc
//= 
",
        expect![[r#"
            hit   COPY req /
            hit   RUN copy /req /installed
            hit   COPY app /
        "#]],
    );
}

#[test]
fn of_several_earlier_builds_the_nearest_is_told_about() {
    check(
        "\
//- Dockerfile
FROM base
RUN true
ARG V
ARG API_TOKEN
RUN env /e V
//= args V=1
//= args V=2
//= args V=2 API_TOKEN=x
",
        expect![[r#"
            hit   RUN true
            miss  RUN env /e V  (ARG API_TOKEN changed)
        "#]],
    );
}
