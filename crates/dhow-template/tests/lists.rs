//! What `ps`, `images` and the other lists print for a `--format`.

use dhow_template::format::{Columns, rows};
use serde_json::{Value, json};

/// The columns of `docker ps`, as far as the tests need them.
const PS: Columns<'_> = Columns {
    default: r"{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}",
    headers: &[
        ("ID", "CONTAINER ID"),
        ("Image", "IMAGE"),
        ("Command", "COMMAND"),
        ("RunningFor", "CREATED"),
        ("Status", "STATUS"),
        ("Ports", "PORTS"),
        ("Names", "NAMES"),
    ],
};

fn containers() -> Vec<Value> {
    let container = |id, image, command, status, ports, name| {
        json!({
            "ID": id, "Image": image, "Command": command, "RunningFor": "3 years ago",
            "Status": status, "Ports": ports, "Names": name,
        })
    };
    vec![
        container(
            "8fc990912a14",
            "hello",
            "\"python app.py\"",
            "Up 3 seconds",
            "0.0.0.0:5000->5000/tcp",
            "web",
        ),
        container("0123456789ab", "a-very-long-image-name", "\"sh\"", "Exited (0)", "", "idle"),
    ]
}

fn call(row: &Value, name: &str, args: &[Value]) -> Option<Result<Value, String>> {
    let label = |key: &Value| if key == "com.x-y.some_name" && row["Names"] == "web" { "v" } else { "" };
    match (name, args) {
        ("Label", [key]) => Some(Ok(label(key).into())),
        ("Label", _) => Some(Err(format!("want 1 argument, got {}", args.len()))),
        _ => None,
    }
}

fn check(format: Option<&str>, expected: &str) {
    let actual = rows(format, PS, &containers(), &call).unwrap_or_else(|error| error.to_string());
    assert_eq!(actual, expected, "{format:?}");
}

#[test]
fn without_a_format_a_list_is_dockers_table() {
    let table = "\
CONTAINER ID   IMAGE                    COMMAND           CREATED       STATUS         PORTS                    NAMES
8fc990912a14   hello                    \"python app.py\"   3 years ago   Up 3 seconds   0.0.0.0:5000->5000/tcp   web
0123456789ab   a-very-long-image-name   \"sh\"              3 years ago   Exited (0)                              idle
";
    check(None, table);
    check(Some(""), table);
    check(Some("table"), table);
}

#[test]
fn an_empty_list_still_has_its_header() {
    let images = Columns {
        default: r"{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}",
        headers: &[
            ("Repository", "REPOSITORY"),
            ("Tag", "TAG"),
            ("ID", "IMAGE ID"),
            ("CreatedSince", "CREATED"),
            ("Size", "SIZE"),
        ],
    };
    let text = rows(None, images, &[], &call).expect("the default table is well formed");
    assert_eq!(text, "REPOSITORY   TAG       IMAGE ID   CREATED   SIZE\n");
}

#[test]
fn a_table_template_makes_its_own_header() {
    check(
        Some(r"table {{.ID}}\t{{.Names}}"),
        "CONTAINER ID   NAMES\n8fc990912a14   web\n0123456789ab   idle\n",
    );
    check(Some("table{{.ID}}"), "CONTAINER ID\n8fc990912a14\n0123456789ab\n");
    check(
        Some(r#"table {{.Names}}: {{.Label "com.x-y.some_name"}}\t{{upper .Image}}"#),
        "NAMES: some name   IMAGE\nweb: v             HELLO\nidle:              A-VERY-LONG-IMAGE-NAME\n",
    );
}

#[test]
fn functions_leave_a_header_alone() {
    check(
        Some(r"table {{truncate .ID 3}}\t{{json .Image}}\t{{pad .Names 2 2}}|"),
        "CONTAINER ID   IMAGE                        NAMES  |\n\
         8fc            \"hello\"                      web  |\n\
         012            \"a-very-long-image-name\"     idle  |\n",
    );
    check(
        Some(r#"table {{join (split .Image "-") "/"}}\t{{lower .ID}}"#),
        "IMAGE                    CONTAINER ID\n\
         hello                    8fc990912a14\n\
         a/very/long/image/name   0123456789ab\n",
    );
}

#[test]
fn a_plain_template_is_a_line_per_row() {
    check(Some(r"{{.ID}}\t{{.Names}}"), "8fc990912a14\tweb\n0123456789ab\tidle\n");
    check(Some("  {{.Names}}  "), "web\nidle\n");
    check(Some(r#"{{printf "%.3s" .ID}}"#), "8fc\n012\n");
    check(Some(r"{{.Names}}\n--"), "web\n--\nidle\n--\n");
}

#[test]
fn json_is_an_object_per_line_with_sorted_keys() {
    let columns = Columns { default: "{{.A}}", headers: &[("A", "A")] };
    let data = [json!({"B": "<2>", "A": "1"}), json!({"A": "3", "B": ""})];
    let text = rows(Some("json"), columns, &data, &call).expect("json needs no template");
    assert_eq!(text, "{\"A\":\"1\",\"B\":\"<2>\"}\n{\"A\":\"3\",\"B\":\"\"}\n");
}

#[test]
fn a_wrong_format_says_what_and_where() {
    check(Some("{{"), "template parsing error: template: :1: unclosed action");
    check(
        Some("{{.Nope}}"),
        r#"template parsing error: template: :1:2: executing "" at <.Nope>: map has no entry for key "Nope""#,
    );
    check(
        Some("table {{.Nope}}"),
        r#"template parsing error: template: :1:2: executing "" at <.Nope>: map has no entry for key "Nope""#,
    );
    check(
        Some("{{.Label}}"),
        r#"template parsing error: template: :1:2: executing "" at <.Label>: error calling Label: want 1 argument, got 0"#,
    );
    check(
        Some("{{.Stop 1}}"),
        r#"template parsing error: template: :1:2: executing "" at <.Stop>: Stop is not a method but has arguments"#,
    );
}
