//! `alluvium import` of rows: what `replay` writes comes back as it was, in every format, and what cannot is refused by name.

use std::io::Read as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::binary::{Running, serve};
use crate::replay_tool::{on, run};
use crate::transfer_tool::{contents, done, fill, path_text};

const FORMATS: [&str; 4] = ["ndjson", "csv", "arrow", "parquet"];

fn write(directory: &Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    std::fs::write(&path, text).expect("it can be written");
    path_text(&path).to_owned()
}

/// A recording, as text.
fn recording(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name);
    let file = std::fs::File::open(path).expect("a recording");
    let mut text = String::new();
    let mut reader = flate2::read::GzDecoder::new(file);
    reader.read_to_string(&mut text).expect("it is whole");
    text
}

/// Writes all of a topic to a file, as rows.
fn replayed(running: &Running, topic: &str, format: &str, directory: &Path) -> String {
    let path = directory.join(format!("{topic}.{format}"));
    let args = [
        "replay",
        topic,
        "--format",
        format,
        "-q",
        "-o",
        path_text(&path),
    ];
    done(running, &args, "");
    path_text(&path).to_owned()
}

fn imported(running: &Running, args: &[&str]) -> Value {
    let told = done(running, &[&["import", "--json"], args].concat(), "");
    serde_json::from_str(&told).expect("an object")
}

#[test]
fn a_topic_s_rows_come_back_from_every_format_as_they_were() {
    let data = tempfile::tempdir().expect("a directory");
    let out = tempfile::tempdir().expect("a directory");
    let first = Running::start(&mut serve(data.path()));
    fill(&first);
    let documents: String = (0..300)
        .map(|at| {
            format!(
                "{} k{} {}\n",
                5_000 + at,
                at % 5,
                json!({"n": at, "s": "a,\"b\"", "f": 0.5})
            )
        })
        .collect();
    done(&first, &["produce", "sea", "-f", "%d %k %v\\n"], &documents);
    let before = contents(&first, "sea");
    assert_eq!(before.len(), 1_302);
    for format in FORMATS {
        let file = replayed(&first, "sea", format, out.path());
        let other = tempfile::tempdir().expect("a directory");
        let again = tempfile::tempdir().expect("a directory");
        let second = Running::start(&mut serve(other.path()));
        let sent = imported(&second, &[&file]);
        assert_eq!(
            (
                &sent["topic"],
                &sent["records"],
                &sent["offsets_kept"],
                &sent["bad_rows"]
            ),
            (&json!("sea"), &json!(1_302), &json!(true), &json!(0)),
            "{format}: {sent}"
        );
        assert_eq!(contents(&second, "sea"), before, "{format}");
        let file_again = replayed(&second, "sea", format, again.path());
        let [one, two] = [&file, &file_again].map(|path| std::fs::read(path).expect("a file"));
        assert!(one == two, "{format}: export, import, export");
        // Once more is refused, added to on demand, and gone on behind where nothing is missing.
        assert_eq!(run(&second, &["import", &file], "").code, Some(2));
        let resumed = imported(&second, &[&file, "--resume"]);
        assert_eq!(
            (&resumed["records"], &resumed["skipped_records"]),
            (&json!(0), &json!(1_302))
        );
        let appended = imported(&second, &[&file, "--append"]);
        assert_eq!(appended["offsets_kept"], json!(false));
        assert_eq!(contents(&second, "sea").len(), 2_604);
    }
}

#[test]
fn recordings_are_imported_row_by_row_with_their_times() {
    let data = tempfile::tempdir().expect("a directory");
    let out = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve(data.path()));
    let text = recording("sea_surface_temperature.csv.gz");
    let file = write(out.path(), "buoy.csv", &text);
    let time = "time (UTC)";
    let args = [
        &file,
        "-t",
        "buoy",
        "--whole-row",
        "--timestamp-column",
        time,
        "--partitions",
        "2",
    ];
    let sent = imported(&running, &args);
    let rows: Vec<&str> = text.lines().skip(1).collect();
    assert_eq!(sent["records"], json!(rows.len()));
    assert_eq!(sent["offsets_kept"], Value::Null, "the file has none");
    let columns = "timestamp,time (UTC),temperature (celsius)";
    let args = [
        "replay",
        "buoy",
        "--order",
        "time",
        "--columns",
        columns,
        "--format",
        "csv",
        "-q",
    ];
    let told = done(&running, &args, "");
    let mut found: Vec<&str> = told.lines().skip(1).collect();
    found.sort_unstable();
    // The cell as it is, and the record's time beside it.
    let expected = rows.iter().map(|row| {
        let (at, temperature) = row.split_once(',').expect("two columns");
        format!("{},{at},{temperature}", at.replace('Z', ".000Z"))
    });
    let mut expected: Vec<String> = expected.collect();
    expected.sort_unstable();
    assert!(found == expected, "each reading is there, unaltered");

    // Through each format of columns, and back.
    for format in ["arrow", "parquet"] {
        let file = replayed(&running, "buoy", format, out.path());
        let topic = format!("buoy-{format}");
        assert_eq!(
            imported(&running, &[&file, "-t", &topic])["offsets_kept"],
            json!(true)
        );
        assert!(
            contents(&running, &topic) == contents(&running, "buoy"),
            "{format}"
        );
    }

    // Other clocks: a time without a zone is nobody's, seconds are seconds where that was said.
    let glucose = write(out.path(), "cgm.csv", &recording("CGM.csv.gz"));
    let args = [
        "import",
        &glucose,
        "-t",
        "cgm",
        "--whole-row",
        "--timestamp-column",
        "datetime",
    ];
    let said = run(&running, &args, "");
    assert_eq!(said.code, Some(5), "{}", said.stderr);
    assert!(
        said.stderr
            .contains("line 2: the timestamp \"2010-03-24 09:51:00\""),
        "{}",
        said.stderr
    );
    let ride = recording("cycling.csv.gz");
    let mut table = String::from("at,watt\n");
    for (second, row) in ride.lines().skip(1).enumerate() {
        let power = row.split(',').nth(4).expect("a column");
        table.push_str(&format!("{},{power}\n", 1_379_145_600 + second));
    }
    let ride_file = write(out.path(), "ride.csv", &table);
    let args = [
        &ride_file,
        "-t",
        "ride",
        "--whole-row",
        "--timestamp-column",
        "at",
        "--timestamp-unit",
        "s",
    ];
    let sent = imported(&running, &args);
    assert_eq!(sent["records"], json!(ride.lines().count() - 1));
    let args = [
        "replay",
        "ride",
        "-n",
        "1",
        "-q",
        "--from",
        "2013-09-14T08:00:10Z",
    ];
    let row: Value = serde_json::from_str(&done(&running, &args, "")).expect("a row");
    assert_eq!(row["value"]["at"], json!(1_379_145_610));
}

#[test]
fn bad_rows_are_named_and_nothing_or_the_others_are_sent() {
    let data = tempfile::tempdir().expect("a directory");
    let out = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve(data.path()));
    let lines = concat!(
        "{\"topic\":\"mixed\",\"key\":\"a\",\"value\":1}\n",
        "{\"topic\":\"mixed\",\"key\":\"a\",\"value\":2,\"site\":3}\n",
        "{\"topic\":\"mixed\",\"key\":\"b\",\"value\":3,\"timestamp\":1700000000}\n",
        "\n",
        "{\"topic\":\"mixed\",\"key\":{},\"value\":4}\n",
        "{\"topic\":\"mixed\",\"key\":\"b\",\"value\":5,\"timestamp\":\"2026-03-01T00:00:00Z\"}\n",
    );
    let file = write(out.path(), "mixed.ndjson", lines);
    let said = run(&running, &["import", &file], "");
    assert_eq!(said.code, Some(5), "{}", said.stderr);
    for line in ["line 2: ", "line 3: ", "line 5: "] {
        assert!(said.stderr.contains(line), "{line}: {}", said.stderr);
    }
    assert_eq!(
        done(&running, &["topic", "list", "--json"], "").trim(),
        "[]",
        "nothing was made"
    );
    let checked = imported(&running, &[&file, "--check", "--on-error", "skip"]);
    assert_eq!(
        (&checked["records"], &checked["bad_rows"]),
        (&json!(2), &json!(3))
    );

    let said = run(&running, &["import", &file, "--on-error", "skip"], "");
    assert_eq!(said.code, Some(5), "{}", said.stderr);
    assert_eq!(contents(&running, "mixed").len(), 2);

    // What is no row's fault, and what is too large, is said before anything is sent.
    let refused = |name: &str, text: &str, args: &[&str]| {
        let file = write(out.path(), name, text);
        let said = run(
            &running,
            &[&["import", &file, "-t", "none"], args].concat(),
            "",
        );
        (said.code, said.stderr)
    };
    for (name, text, args, code, word) in [
        ("lost.csv", "key,value,site\na,1,2\n", &[][..], 5, "site"),
        (
            "none.csv",
            "key,temp\na,1\n",
            &["--whole-row", "--key-column", "id"],
            5,
            "id",
        ),
        ("twice.csv", "value,value\n1,1\n", &[], 5, "twice"),
        (
            "unit.csv",
            "value\n1\n",
            &["--delimiter", "no"],
            2,
            "delimiter",
        ),
        (
            "text.ndjson",
            "{\"value\":1}\n",
            &["--delimiter", "tab"],
            2,
            "CSV",
        ),
        ("zip.parquet", "PK", &[], 5, "Parquet"),
        ("cut.arrow", "\u{1}\u{2}", &[], 5, "Arrow"),
        ("rows.records", "", &["--whole-row"], 2, "--format"),
        (
            "few.ndjson",
            "{\"value\":1,\"partition\":7}\n",
            &["--partitions", "3"],
            2,
            "8 partitions",
        ),
    ] {
        let (said, stderr) = refused(name, text, args);
        assert_eq!(said, Some(code), "{name}: {stderr}");
        assert!(stderr.contains(word), "{name}: {stderr}");
    }
    let long = format!(
        "{{\"value\":1}}\n{{\"value\":\"{}\"}}\n",
        "x".repeat(2 << 20)
    );
    let (said, stderr) = refused("long.ndjson", &long, &[]);
    assert_eq!(said, Some(2), "{stderr}");
    assert!(
        stderr.contains("line 2: ") && stderr.contains("max.message.bytes"),
        "{stderr}"
    );
    assert_eq!(contents(&running, "none").len(), 0);
    let several = "{\"topic\":\"a\",\"value\":1}\n{\"topic\":\"b\",\"value\":1}\n";
    let file = write(out.path(), "several.ndjson", several);
    assert_eq!(run(&running, &["import", &file], "").code, Some(2));
}

#[test]
fn an_import_that_is_killed_goes_on_and_writes_each_row_once() {
    const ROWS: u64 = 400_000;
    let data = tempfile::tempdir().expect("a directory");
    let out = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve(data.path()));
    let line = |row: u64| match row % 3 {
        0 => json!({"row": row, "id": null}),
        _ => json!({"row": row, "id": format!("device-{}", row % 1_000)}),
    };
    let text: String = (0..ROWS).map(|row| format!("{}\n", line(row))).collect();
    let file = write(out.path(), "rows.ndjson", &text);
    let args = [
        "import",
        &file,
        "-t",
        "rows",
        "--whole-row",
        "--key-column",
        "id",
        "--partitions",
        "3",
    ];
    let mut killed = on(&running, &args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it runs");
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let list = run(&running, &["topic", "list", "--long", "--json"], "").stdout;
        let list: Value = serde_json::from_str(&list).unwrap_or_default();
        if list[0]["records"]
            .as_u64()
            .is_some_and(|records| records > 0)
        {
            break;
        }
        assert!(Instant::now() < deadline, "no record came");
    }
    killed.kill().expect("it can be killed");
    killed.wait().expect("it ended");
    let resumed = imported(&running, &[&args[1..], &["--resume"]].concat());
    let [records, skipped] = ["records", "skipped_records"].map(|name| resumed[name].as_u64());
    assert_eq!(records.zip(skipped).map(|(one, two)| one + two), Some(ROWS));
    let values = done(&running, &["consume", "rows", "-e", "-f", "%v\\n"], "");
    let mut found: Vec<&str> = values.lines().collect();
    let mut expected: Vec<&str> = text.lines().collect();
    found.sort_unstable();
    expected.sort_unstable();
    assert!(found == expected, "each row is there once");
}
