//! What of files counts: names, types, modes and content, and nothing else.

use expect_test::expect;

use super::{APP, check, check_after};

/// A folder, and a program that reads one file of it.
const TREE: &str = "\
//- Dockerfile
FROM base
COPY . /app
RUN copy /app/a /b
//- .dockerignore
Dockerfile
*.log
//- a
1
//- sub/b
1
";

#[test]
fn an_unchanged_build_runs_nothing() {
    check_after(
        APP,
        "//=",
        expect![[r#"
            hit   COPY req /
            hit   RUN copy /req /installed
            hit   COPY app /
        "#]],
    );
}

#[test]
fn a_changed_file_runs_its_copy_and_what_follows() {
    check_after(
        APP,
        "\
//= 
//- app
2
",
        expect![[r#"
            hit   COPY req /
            hit   RUN copy /req /installed
            miss  COPY app /  (app changed)
        "#]],
    );
    check_after(
        APP,
        "\
//= 
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
fn changing_back_finds_the_first_results() {
    check_after(
        APP,
        "\
//= 
//- req
2
//= 
//- req
1
",
        expect![[r#"
            hit   COPY req /
            hit   RUN copy /req /installed
            hit   COPY app /
        "#]],
    );
}

#[test]
fn times_and_owners_of_files_do_not_count() {
    check_after(
        APP,
        "//= touch app,chown 7 req",
        expect![[r#"
            hit   COPY req /
            hit   RUN copy /req /installed
            hit   COPY app /
        "#]],
    );
}

#[test]
fn modes_count_and_are_named() {
    check_after(
        TREE,
        "//= chmod 755 a",
        expect![[r#"
            miss  COPY . /app  (mode of a 0644 -> 0755)
            miss  RUN copy /app/a /b  (what it builds upon changed: COPY . /app)
        "#]],
    );
    check_after(
        TREE,
        "//= chmod 664 sub/b,chmod 600 a",
        expect![[r#"
            miss  COPY . /app  (mode of a 0644 -> 0600, mode of sub/b 0644 -> 0664)
            miss  RUN copy /app/a /b  (what it builds upon changed: COPY . /app)
        "#]],
    );
}

#[test]
fn new_and_lost_files_are_named() {
    check_after(
        TREE,
        "\
//= 
//- sub/c
1
",
        expect![[r#"
            miss  COPY . /app  (sub/c is new)
            miss  RUN copy /app/a /b  (what it builds upon changed: COPY . /app)
        "#]],
    );
    check_after(
        TREE,
        "//= rm sub/b",
        expect![[r#"
            miss  COPY . /app  (sub/b is gone)
            miss  RUN copy /app/a /b  (what it builds upon changed: COPY . /app)
        "#]],
    );
    check_after(
        TREE,
        "//= mv a c",
        expect![[r#"
            miss  COPY . /app  (c is new, a is gone)
            miss  RUN copy /app/a /b  (what it builds upon changed: COPY . /app)
        "#]],
    );
}

#[test]
fn what_is_ignored_or_not_copied_does_not_count() {
    check_after(
        TREE,
        "\
//= 
//- debug.log
x
",
        expect![[r#"
            hit   COPY . /app
            hit   RUN copy /app/a /b
        "#]],
    );
    check_after(
        APP,
        "\
//= 
//- other
x
",
        expect![[r#"
            hit   COPY req /
            hit   RUN copy /req /installed
            hit   COPY app /
        "#]],
    );
    check_after(
        TREE,
        "\
//= 
//- Dockerfile
FROM base
# a comment
COPY . /app
RUN copy /app/a /b
",
        expect![[r#"
            hit   COPY . /app
            hit   RUN copy /app/a /b
        "#]],
    );
}

#[test]
fn an_edit_that_keeps_size_and_time_is_seen() {
    check_after(
        TREE,
        "\
//= touch a
//= touch a
//- a
2
",
        expect![[r#"
            miss  COPY . /app  (a changed)
            miss  RUN copy /app/a /b  (what it builds upon changed: COPY . /app)
        "#]],
    );
}

#[test]
fn links_count_by_where_they_lead() {
    check_after(
        TREE,
        "//= link l a",
        expect![[r#"
            miss  COPY . /app  (l is new)
            miss  RUN copy /app/a /b  (what it builds upon changed: COPY . /app)
        "#]],
    );
    check_after(
        TREE,
        "\
//= link l a
//= rm l
//= link l sub
",
        expect![[r#"
            miss  COPY . /app  (l is new)
            miss  RUN copy /app/a /b  (what it builds upon changed: COPY . /app)
        "#]],
    );
}

#[test]
fn a_mode_that_is_set_takes_the_source_s_out() {
    check(
        "\
//- Dockerfile
FROM base
COPY --chmod=644 . /app
RUN copy /app/a /b
//- .dockerignore
Dockerfile
*.log
//- a
1
//- sub/b
1
//= chmod 600 a
",
        expect![[r#"
            hit   COPY --chmod=644 . /app
            hit   RUN copy /app/a /b
        "#]],
    );
    check(
        "\
//- Dockerfile
FROM base
COPY --chmod=u+x . /app
RUN copy /app/a /b
//- .dockerignore
Dockerfile
*.log
//- a
1
//- sub/b
1
//= chmod 755 a
",
        expect![[r#"
            miss  COPY --chmod=u+x . /app  (mode of a 0744 -> 0755)
            miss  RUN copy /app/a /b  (what it builds upon changed: COPY --chmod=u+x . /app)
        "#]],
    );
}

#[test]
fn names_of_sources_count_and_folders_above_them_do_not() {
    check(
        "\
//- Dockerfile
FROM base
COPY x/a /a
//- x/a
1
//= 
//- y/a
1
//- Dockerfile
FROM base
COPY y/a /a
",
        expect![[r#"
            hit   COPY y/a /a
        "#]],
    );
    check(
        "\
//- Dockerfile
FROM base
COPY a /d/
//- a
1
//= 
//- b
1
//- Dockerfile
FROM base
COPY b /d/
",
        expect![[r#"
            miss  COPY b /d/  (b is new, a is gone)
        "#]],
    );
}

#[test]
fn patterns_count_by_what_they_find() {
    check(
        "\
//- Dockerfile
FROM base
COPY *.txt /
//- a.txt
1
//= 
//- b.md
1
",
        expect![[r#"
            hit   COPY *.txt /
        "#]],
    );
    check(
        "\
//- Dockerfile
FROM base
COPY *.txt /
//- a.txt
1
//= 
//- b.txt
1
",
        expect![[r#"
            miss  COPY *.txt /  (b.txt is new)
        "#]],
    );
}

#[test]
fn what_is_excluded_does_not_count() {
    check(
        "\
//- Dockerfile
FROM base
COPY --exclude=*.md . /d/
//- .dockerignore
Dockerfile
//- a
1
//= 
//- b.md
1
",
        expect![[r#"
            hit   COPY --exclude=*.md . /d/
        "#]],
    );
}

#[test]
fn options_of_a_copy_are_told() {
    check_after(
        TREE,
        "\
//= 
//- Dockerfile
FROM base
COPY --chown=1:2 . /app
",
        expect![[r#"
            miss  COPY --chown=1:2 . /app  (--chown 1:2 is new)
        "#]],
    );
    check_after(
        TREE,
        "\
//= 
//- Dockerfile
FROM base
COPY . /elsewhere
",
        expect![[r#"
            miss  COPY . /elsewhere  (instruction was `COPY . /app`)
        "#]],
    );
}

#[test]
fn files_in_the_dockerfile_count_by_their_text() {
    check(
        "\
//- Dockerfile
FROM base
COPY <<a /
1
a
//= 
//- Dockerfile
FROM base
COPY <<a /
2
a
",
        expect![[r#"
            miss  COPY <<a /  (<<a changed)
        "#]],
    );
}

#[test]
fn an_archive_counts_by_its_bytes() {
    check(
        "\
//- Dockerfile
FROM base
ADD a /
//- a
1
//= 
//- a
2
",
        expect![[r#"
            miss  ADD a /  (a changed)
        "#]],
    );
}
