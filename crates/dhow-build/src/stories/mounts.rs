//! `RUN --mount`, `--network` and `--security`: which of it a result depends on.

use expect_test::{Expect, expect};

use super::{check, check_after};

/// A program that reads one file of a folder that is mounted.
const BOUND: &str = "\
//- Dockerfile
FROM base
RUN --mount=source=src,target=/src copy /src/a /out
RUN copy /out /copy
//- src/a
1
//- src/b
1
";

/// A program that reads a file of another stage.
const FROM_STAGE: &str = "\
//- Dockerfile
FROM base AS made
COPY src /made/
RUN copy /made/a /made/out && copy /made/b /other
FROM base
RUN --mount=from=made,source=/made/out,target=/m say it
//- src/a
1
//- src/b
1
";

/// A `RUN` with these flags, built with what is told, and what became of it.
fn run(flags: &str, then: &str, expected: Expect) {
    let story =
        format!("//- Dockerfile\nFROM base\nRUN {flags} say it\n//- src/a\n1\n//- src/b\n1\n//- c\n1\n");
    check(&format!("{story}{then}\n"), expected);
}

/// The same with other flags the next time.
fn changed(before: &str, after: &str, expected: Expect) {
    run(before, &format!("//= \n//- Dockerfile\nFROM base\nRUN {after} say it"), expected);
}

#[test]
fn a_file_that_is_mounted_counts() {
    run(
        "--mount=source=src,target=/src",
        "//= \n//- src/a\n2",
        expect![[r#"
        miss  RUN --mount=source=src,target=/src say it  (a changed)
    "#]],
    );
    run(
        "--mount=source=src,target=/src",
        "//= rm src/b\n//- src/c\n1",
        expect![[r#"
        miss  RUN --mount=source=src,target=/src say it  (c is new, b is gone)
    "#]],
    );
    run(
        "--mount=source=src,target=/src",
        "//= chmod 755 src/a",
        expect![[r#"
        miss  RUN --mount=source=src,target=/src say it  (mode of a 0644 -> 0755)
    "#]],
    );
}

#[test]
fn a_file_beside_the_mounted_ones_does_not_count() {
    run(
        "--mount=source=src,target=/src",
        "//= \n//- c\n2\n//- d\n1",
        expect![[r#"
        hit   RUN --mount=source=src,target=/src say it
    "#]],
    );
    run(
        "--mount=source=src/a,target=/a",
        "//= \n//- src/b\n2",
        expect![[r#"
        hit   RUN --mount=source=src/a,target=/a say it
    "#]],
    );
    run(
        "--mount=source=src,target=/src",
        "//= touch src/a",
        expect![[r#"
        hit   RUN --mount=source=src,target=/src say it
    "#]],
    );
}

#[test]
fn of_a_mounted_context_all_counts_but_what_is_ignored() {
    run(
        "--mount=target=/src",
        "//= \n//- c\n2",
        expect![[r#"
        miss  RUN --mount=target=/src say it  (c changed)
    "#]],
    );
    run(
        "--mount=target=/src",
        "//- .dockerignore\nc\n//= \n//- c\n2",
        expect![[r#"
        hit   RUN --mount=target=/src say it
    "#]],
    );
}

#[test]
fn what_reads_a_mount_is_followed_by_what_reads_its_result() {
    check_after(
        BOUND,
        "\
//= 
//- src/a
2
",
        expect![[r#"
            miss  RUN --mount=source=src,target=/src copy /src/a /out  (a changed)
            miss  RUN copy /out /copy  (what it builds upon changed: RUN --mount=source=src,target=/src copy /src/a /out)
        "#]],
    );
    check_after(
        BOUND,
        "\
//= 
//- src/b
2
",
        expect![[r#"
            miss  RUN --mount=source=src,target=/src copy /src/a /out  (b changed)
            hit   RUN copy /out /copy
        "#]],
    );
}

#[test]
fn of_a_mounted_stage_the_files_count_that_are_shown() {
    check_after(
        FROM_STAGE,
        "\
//= 
//- src/a
2
",
        expect![[r#"
            miss  made: COPY src /made/  (a changed)
            miss  made: RUN copy /made/a /made/out && copy /made/b /other  (what it builds upon changed: COPY src /made/)
            miss  stage-1: RUN --mount=from=made,source=/made/out,target=/m say it  (out changed)
        "#]],
    );
    check_after(
        FROM_STAGE,
        "\
//= 
//- src/b
2
",
        expect![[r#"
            miss  made: COPY src /made/  (b changed)
            miss  made: RUN copy /made/a /made/out && copy /made/b /other  (what it builds upon changed: COPY src /made/)
            hit   stage-1: RUN --mount=from=made,source=/made/out,target=/m say it
        "#]],
    );
    check(
        "\
//- Dockerfile
FROM base AS made
COPY src /made/
RUN copy /made/a /made/out && copy /made/b /other
FROM base
RUN --mount=from=made,source=/made,target=/m say it
//- src/a
1
//- src/b
1
//= 
//- src/b
2
",
        expect![[r#"
            miss  made: COPY src /made/  (b changed)
            miss  made: RUN copy /made/a /made/out && copy /made/b /other  (what it builds upon changed: COPY src /made/)
            miss  stage-1: RUN --mount=from=made,source=/made,target=/m say it  (b changed)
        "#]],
    );
    check(
        "\
//- Dockerfile
FROM base AS made
COPY src /made/
RUN copy /made/a /made/out && copy /made/b /other
FROM base
RUN --mount=from=made,source=/,target=/m say it
//- src/a
1
//- src/b
1
//= 
//- src/b
2
",
        expect![[r#"
            miss  made: COPY src /made/  (b changed)
            miss  made: RUN copy /made/a /made/out && copy /made/b /other  (what it builds upon changed: COPY src /made/)
            miss  stage-1: RUN --mount=from=made,source=/,target=/m say it  (made/b changed, other changed)
        "#]],
    );
}

#[test]
fn how_a_mount_is_made_counts() {
    changed(
        "--mount=source=src,target=/src",
        "--mount=source=src,target=/elsewhere",
        expect![[r#"
        miss  RUN --mount=source=src,target=/elsewhere say it  (--mount at /src -> /elsewhere)
    "#]],
    );
    changed(
        "--mount=source=src,target=/src",
        "--mount=source=src,target=/src,rw",
        expect![[r#"
        miss  RUN --mount=source=src,target=/src,rw say it  (--mount at /src type=bind -> type=bind,rw)
    "#]],
    );
    changed(
        "--mount=source=src,target=/src",
        "--mount=type=bind,src=./src,dst=/src,ro",
        expect![[r#"
        hit   RUN --mount=type=bind,src=./src,dst=/src,ro say it
    "#]],
    );
    changed(
        "--mount=source=src,target=/src",
        "--mount=source=src/a,target=/src",
        expect![[r#"
        miss  RUN --mount=source=src/a,target=/src say it  (. is gone, b is gone)
    "#]],
    );
    changed(
        "--mount=source=src,target=/src",
        "--mount=source=src,target=/src --mount=type=tmpfs,target=/t",
        expect![[r#"
            miss  RUN --mount=source=src,target=/src --mount=type=tmpfs,target=/t say it  (--mount at /t type=tmpfs is new)
        "#]],
    );
    changed(
        "--mount=source=src,target=/src --mount=type=tmpfs,target=/t",
        "--mount=source=src,target=/src",
        expect![[r#"
            miss  RUN --mount=source=src,target=/src say it  (--mount at /t type=tmpfs is gone)
        "#]],
    );
}

#[test]
fn which_cache_it_is_and_who_shares_it_does_not_count() {
    changed(
        "--mount=type=cache,target=/c",
        "--mount=type=cache,target=/c,id=other,sharing=locked",
        expect![[r#"
            hit   RUN --mount=type=cache,target=/c,id=other,sharing=locked say it
        "#]],
    );
    run(
        "--mount=type=cache,target=/c",
        "//= args BUILDKIT_CACHE_MOUNT_NS=other",
        expect![[r#"
        hit   RUN --mount=type=cache,target=/c say it
    "#]],
    );
}

#[test]
fn how_a_cache_is_shown_counts() {
    changed(
        "--mount=type=cache,target=/c",
        "--mount=type=cache,target=/d,id=/c",
        expect![[r#"
        miss  RUN --mount=type=cache,target=/d,id=/c say it  (--mount at /c -> /d)
    "#]],
    );
    changed(
        "--mount=type=cache,target=/c",
        "--mount=type=cache,target=/c,ro",
        expect![[r#"
        miss  RUN --mount=type=cache,target=/c,ro say it  (--mount at /c type=cache -> type=cache,ro)
    "#]],
    );
    changed(
        "--mount=type=cache,target=/c",
        "--mount=type=cache,target=/c,mode=0700,uid=5",
        expect![[r#"
        miss  RUN --mount=type=cache,target=/c,mode=0700,uid=5 say it  (--mount at /c type=cache -> type=cache,mode=0700,uid=5)
    "#]],
    );
}

#[test]
fn what_is_in_a_cache_does_not_count() {
    check(
        "\
//- Dockerfile
FROM base AS fills
COPY a /
RUN --mount=type=cache,target=/c copy /a /c/a
FROM base
RUN --mount=type=cache,target=/c copy /c/a /out
COPY --from=fills /a /
//- a
1
//= 
//- a
2
",
        expect![[r#"
            miss  fills: COPY a /  (a changed)
            miss  fills: RUN --mount=type=cache,target=/c copy /a /c/a  (what it builds upon changed: COPY a /)
            hit   stage-1: RUN --mount=type=cache,target=/c copy /c/a /out
            miss  stage-1: COPY --from=fills /a /  (a changed)
        "#]],
    );
}

#[test]
fn what_a_cache_begins_with_counts() {
    check(
        "\
//- Dockerfile
FROM base AS seed
COPY a /seed/
COPY b /other/
FROM base
RUN --mount=type=cache,target=/c,from=seed,source=/seed say it
//- a
1
//- b
1
//= 
//- a
2
",
        expect![[r#"
            miss  seed: COPY a /seed/  (a changed)
            miss  seed: COPY b /other/  (what it builds upon changed: COPY a /seed/)
            miss  stage-1: RUN --mount=type=cache,target=/c,from=seed,source=/seed say it  (a changed)
        "#]],
    );
    check(
        "\
//- Dockerfile
FROM base AS seed
COPY a b /seed/
FROM base
RUN --mount=type=cache,target=/c,from=seed,source=/seed/a say it
//- a
1
//- b
1
//= 
//- b
2
",
        expect![[r#"
            miss  seed: COPY a b /seed/  (b changed)
            hit   stage-1: RUN --mount=type=cache,target=/c,from=seed,source=/seed/a say it
        "#]],
    );
}

#[test]
fn a_secret_counts_by_its_name_only() {
    run(
        "--mount=type=secret,id=key",
        "//= secret key=1,no-cache\n//= secret key=2",
        expect![[r#"
        hit   RUN --mount=type=secret,id=key say it
    "#]],
    );
    run(
        "--mount=type=secret,id=key,env=KEY",
        "//= secret key=1",
        expect![[r#"
        hit   RUN --mount=type=secret,id=key,env=KEY say it
    "#]],
    );
    changed(
        "--mount=type=secret,id=key",
        "--mount=type=secret,id=other,target=/run/secrets/key",
        expect![[r#"
            miss  RUN --mount=type=secret,id=other,target=/run/secrets/key say it  (--mount at /run/secrets/key type=secret,id=key -> type=secret,id=other)
        "#]],
    );
}

#[test]
fn an_agent_does_not_count() {
    run(
        "--mount=type=ssh",
        "//= ssh one,no-cache\n//= ssh two",
        expect![[r#"
        hit   RUN --mount=type=ssh say it
    "#]],
    );
}

#[test]
fn the_size_of_memory_counts() {
    changed(
        "--mount=type=tmpfs,target=/t",
        "--mount=type=tmpfs,target=/t,size=1m",
        expect![[r#"
        miss  RUN --mount=type=tmpfs,target=/t,size=1m say it  (--mount at /t type=tmpfs -> type=tmpfs,size=1048576)
    "#]],
    );
    changed(
        "--mount=type=tmpfs,target=/t,size=1024k",
        "--mount=type=tmpfs,target=/t,size=1m",
        expect![[r#"
        hit   RUN --mount=type=tmpfs,target=/t,size=1m say it
    "#]],
    );
    changed(
        "--mount=type=tmpfs,target=/t,size=1m",
        "--mount=type=tmpfs,target=/u,size=1m",
        expect![[r#"
        miss  RUN --mount=type=tmpfs,target=/u,size=1m say it  (--mount at /t -> /u)
    "#]],
    );
}

#[test]
fn network_and_security_count() {
    changed(
        "--network=default",
        "--network=none",
        expect![[r#"
        miss  RUN --network=none say it  (network default -> none)
    "#]],
    );
    changed(
        "--network=default",
        "",
        expect![[r#"
        hit   RUN  say it
    "#]],
    );
    run(
        "",
        "//= allow\n//- Dockerfile\nFROM base\nRUN --network=host say it",
        expect![[r#"
        miss  RUN --network=host say it  (network default -> host)
    "#]],
    );
    changed(
        "--security=sandbox",
        "",
        expect![[r#"
        hit   RUN  say it
    "#]],
    );
    run(
        "",
        "//= allow\n//- Dockerfile\nFROM base\nRUN --security=insecure say it",
        expect![[r#"
        miss  RUN --security=insecure say it  (security insecure is new)
    "#]],
    );
    run(
        "",
        "//= allow",
        expect![[r#"
        hit   RUN  say it
    "#]],
    );
}
