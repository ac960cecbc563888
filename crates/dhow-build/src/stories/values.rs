//! What of arguments, variables and options counts.

use expect_test::expect;

use super::{check, check_after};

/// A program that reads one of two arguments.
const ARGUMENTS: &str = "\
//- Dockerfile
FROM base
RUN true
ARG V
ARG API_TOKEN
RUN env /e V
";

#[test]
fn an_argument_counts_from_where_it_is_declared() {
    check_after(
        ARGUMENTS,
        "\
//= args V=1
//= args V=2
",
        expect![[r#"
            hit   RUN true
            miss  RUN env /e V  (ARG V=2 is new)
        "#]],
    );
    check_after(
        ARGUMENTS,
        "//= args V=1",
        expect![[r#"
            hit   RUN true
            miss  RUN env /e V  (ARG V=1 is new)
        "#]],
    );
    check_after(
        ARGUMENTS,
        "\
//= args V=1
//= 
",
        expect![[r#"
            hit   RUN true
            hit   RUN env /e V
        "#]],
    );
}

#[test]
fn secret_values_count_and_are_not_told() {
    check_after(
        ARGUMENTS,
        "\
//= args API_TOKEN=a
//= args API_TOKEN=b
",
        expect![[r#"
            hit   RUN true
            miss  RUN env /e V  (ARG API_TOKEN changed)
        "#]],
    );
}

#[test]
fn an_argument_that_nobody_declares_does_not_count() {
    check_after(
        ARGUMENTS,
        "//= args W=1",
        expect![[r#"
            hit   RUN true
            hit   RUN env /e V
        "#]],
    );
}

#[test]
fn proxy_settings_do_not_count() {
    check_after(
        ARGUMENTS,
        "//= args HTTP_PROXY=http://p",
        expect![[r#"
            hit   RUN true
            hit   RUN env /e V
        "#]],
    );
}

#[test]
fn a_default_counts_like_a_value() {
    check(
        "\
//- Dockerfile
FROM base
ARG V=1
RUN env /e V
//= args V=1
",
        expect![[r#"
            hit   RUN env /e V
        "#]],
    );
    check(
        "\
//- Dockerfile
FROM base
ARG V=1
RUN env /e V
//= 
//- Dockerfile
FROM base
ARG V=2
RUN env /e V
",
        expect![[r#"
            miss  RUN env /e V  (ARG V 1 -> 2)
        "#]],
    );
}

#[test]
fn an_argument_before_from_counts_where_it_is_taken_up() {
    check(
        "\
//- Dockerfile
ARG V=1
FROM base
RUN true
ARG V
RUN env /e V
//= args V=2
",
        expect![[r#"
            hit   RUN true
            miss  RUN env /e V  (ARG V 1 -> 2)
        "#]],
    );
    check(
        "\
//- Dockerfile
ARG V=1
FROM base
RUN env /e V
//= args V=2
",
        expect![[r#"
            hit   RUN env /e V
        "#]],
    );
}

#[test]
fn an_argument_of_one_stage_is_not_of_another() {
    check(
        "\
//- Dockerfile
FROM base AS a
ARG V
RUN env /e V
FROM base
RUN env /f V
COPY --from=a /e /
//= args V=1
",
        expect![[r#"
            miss  a: RUN env /e V  (ARG V=1 is new)
            hit   stage-1: RUN env /f V
            miss  stage-1: COPY --from=a /e /  (e changed)
        "#]],
    );
}

#[test]
fn variables_count_for_programs_only() {
    check(
        "\
//- Dockerfile
FROM base
ENV A=1
COPY a /
RUN env /e A
//- a
1
//= 
//- Dockerfile
FROM base
ENV A=2
COPY a /
RUN env /e A
",
        expect![[r#"
            hit   COPY a /
            miss  RUN env /e A  (ENV A 1 -> 2)
        "#]],
    );
    check(
        "\
//- Dockerfile
FROM base
RUN true
//= 
//- Dockerfile
FROM base
ENV B=1
RUN true
",
        expect![[r#"
            miss  RUN true  (ENV B=1 is new)
        "#]],
    );
    check(
        "\
//- Dockerfile
FROM base
ENV B=1
RUN true
//= 
//- Dockerfile
FROM base
RUN true
",
        expect![[r#"
            miss  RUN true  (ENV B is gone)
        "#]],
    );
}

#[test]
fn a_variable_in_a_copy_counts_by_what_it_expands_to() {
    check(
        "\
//- Dockerfile
FROM base
ARG D=/x
COPY a $D
//- a
1
//= args D=/y
",
        expect![[r#"
            miss  COPY a $D  (instruction was `copy to /x`)
        "#]],
    );
    check(
        "\
//- Dockerfile
FROM base
ARG D=/x
COPY a $D
//- a
1
//= args D=/x
",
        expect![[r#"
            hit   COPY a $D
        "#]],
    );
}

#[test]
fn user_and_working_directory_count() {
    check(
        "\
//- Dockerfile
FROM base
RUN true
//= 
//- Dockerfile
FROM base
USER 7
RUN true
",
        expect![[r#"
            miss  RUN true  (user 7 is new)
        "#]],
    );
    check(
        "\
//- Dockerfile
FROM base
WORKDIR /a
RUN true
//= 
//- Dockerfile
FROM base
WORKDIR /b
RUN true
",
        expect![[r#"
            miss  WORKDIR /b  (instruction was `WORKDIR /a`)
            miss  RUN true  (working directory /a -> /b)
        "#]],
    );
}

#[test]
fn the_shell_counts() {
    check(
        "\
//- Dockerfile
FROM base
RUN true
//= 
//- Dockerfile
FROM base
SHELL [\"/bin/ash\", \"-c\"]
RUN true
",
        expect![[r#"
            miss  RUN true  (instruction was `RUN /bin/sh -c true`)
        "#]],
    );
}

#[test]
fn what_only_changes_the_configuration_runs_nothing() {
    check(
        "\
//- Dockerfile
FROM base
RUN true
CMD a
//= 
//- Dockerfile
FROM base
LABEL a=b
EXPOSE 80
VOLUME /v
STOPSIGNAL 9
RUN true
ENTRYPOINT [\"x\"]
CMD b
",
        expect![[r#"
            hit   RUN true
        "#]],
    );
}

#[test]
fn words_of_a_command_count_and_comments_do_not() {
    check(
        "\
//- Dockerfile
FROM base
RUN write /a 1
//= 
//- Dockerfile
FROM base
RUN write /a 2
",
        expect![[r#"
            miss  RUN write /a 2  (instruction was `RUN write /a 1`)
        "#]],
    );
    check(
        "\
//- Dockerfile
FROM base
RUN write /a \\
  1
//= 
//- Dockerfile
# why
FROM base
RUN write /a \\
# why
  1
",
        expect![[r#"
            hit   RUN write /a   1
        "#]],
    );
}

#[test]
fn the_network_counts() {
    check(
        "\
//- Dockerfile
FROM base
RUN true
//= 
//- Dockerfile
FROM base
RUN --network=none true
",
        expect![[r#"
            miss  RUN --network=none true  (network default -> none)
        "#]],
    );
}

#[test]
fn no_cache_runs_everything_and_a_filter_a_stage() {
    check(
        "\
//- Dockerfile
FROM base
RUN count /a
//= no-cache
//= 
",
        expect![[r#"
            hit   RUN count /a
        "#]],
    );
    check(
        "\
//- Dockerfile
FROM base
RUN count /a
//= no-cache
",
        expect![[r#"
            miss  RUN count /a  (not looked up (--no-cache))
        "#]],
    );
    check(
        "\
//- Dockerfile
FROM base AS tools
RUN count /t
FROM base
RUN count /a
COPY --from=tools /t /
//= filter tools
",
        expect![[r#"
            miss  tools: RUN count /t  (not looked up (--no-cache))
            hit   stage-1: RUN count /a
            miss  stage-1: COPY --from=tools /t /  (t changed)
        "#]],
    );
}
