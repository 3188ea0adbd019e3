//! The server as a process: its ready line, its exit codes, and what it answers over HTTP.

use std::io::{Read as _, Seek as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::binary::{Running, alluvium, serve, with_default_signals};

/// Runs to the end; returns the exit code and what it said on standard error.
fn refused(command: &mut Command) -> (Option<i32>, String) {
    let output = command.output().expect("it runs");
    assert!(
        output.stdout.is_empty(),
        "a server that does not start is not ready"
    );
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[test]
fn it_says_where_it_listens_and_ends_with_0_when_asked_to() {
    let directory = tempfile::tempdir().expect("a directory");
    // Those that ask for it, and those whose default would be an end without a drain.
    for signal in [
        Signal::TERM,
        Signal::INT,
        Signal::HUP,
        Signal::USR1,
        Signal::XCPU,
    ] {
        let running = Running::start(&mut with_default_signals(&serve(directory.path())));
        for address in [&running.kafka, &running.http] {
            assert!(!address.ends_with(":0"), "{address}");
            TcpStream::connect(address).expect("it listens there");
        }
        assert_eq!(running.end(signal), (Some(0), String::new()));
    }
}

#[test]
fn freed_memory_goes_back_to_the_system_soon() {
    let output = alluvium()
        .env("MALLOC_CONF", "stats_print:true")
        .arg("--version")
        .output()
        .expect("it runs");
    let told = String::from_utf8_lossy(&output.stderr);
    for setting in [
        "opt.dirty_decay_ms: 500 ",
        "opt.muzzy_decay_ms: 0 ",
        "opt.background_thread: true ",
    ] {
        assert!(told.contains(setting), "{setting}: {told}");
    }
}

#[test]
fn systemd_is_told_of_the_start_and_of_the_end() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket
        .set_read_timeout(Some(Duration::from_secs(30)))
        .expect("a timeout");
    let told = || {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).expect("a message");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let data = directory.path().join("data");
    let running = Running::start(serve(&data).env("NOTIFY_SOCKET", &path));
    assert!(told().contains("READY=1"));
    assert_eq!(running.end(Signal::TERM).0, Some(0));
    assert!(told().contains("STOPPING=1"));
}

#[test]
fn work_that_nobody_waits_for_has_a_lower_priority() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve(directory.path()));
    let tasks = format!("/proc/{}/task", running.id());
    // Names and nice values, the 19th field of proc(5), which is the 17th behind the name.
    let nice = || -> Vec<(String, i32)> {
        let tasks = std::fs::read_dir(&tasks).expect("it runs").flatten();
        let stats = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok());
        let read = |stat: String| {
            let (head, rest) = stat.rsplit_once(')').expect("a name");
            let name = head.split_once('(').expect("a name").1.to_owned();
            let nice = rest.split_whitespace().nth(16).expect("a nice value");
            (name, nice.parse().expect("a number"))
        };
        stats.map(read).collect()
    };
    let of = |all: &[(String, i32)], name: &str| {
        let found = all.iter().find(|(of, _)| of == name);
        found.map(|(_, nice)| *nice)
    };
    let begun = Instant::now();
    loop {
        let all = nice();
        let committer = of(&all, "log-committer").expect("it is there");
        let behind = ["log-compaction", "log-key-index", "log-scrub"].map(|name| of(&all, name));
        if behind == [Some((committer + 10).min(19)); 3] {
            break;
        }
        // A thread lowers itself when it begins.
        assert!(begun.elapsed() < Duration::from_secs(30), "{all:?}");
        std::thread::yield_now();
    }
}

#[test]
fn http_tells_health_metrics_and_version() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve(directory.path()));
    assert_eq!(running.get("/healthz").0, 200);
    let (status, ready) = running.get("/readyz");
    assert_eq!(status, 200);
    assert!(ready.contains("\"ready\":true"), "{ready}");
    let (status, metrics) = running.get("/metrics");
    assert_eq!(status, 200);
    for name in [
        "alluvium_wal_syncs_total",
        "alluvium_disk_full 0",
        "kafka_brokers 1",
        "# TYPE kafka_topic_partition_current_offset gauge",
        "# TYPE kafka_consumergroup_lag gauge",
        "# TYPE alluvium_consumergroup_lag_seconds gauge",
    ] {
        assert!(metrics.contains(name), "{name}");
    }
    assert!(
        running
            .get("/version")
            .1
            .contains(env!("CARGO_PKG_VERSION"))
    );
    let (status, index) = running.get("/");
    assert_eq!(status, 200);
    let (_, body) = index.split_once("\r\n\r\n").expect("a body");
    let index: serde_json::Value = serde_json::from_str(body).expect("JSON");
    let paths = index["paths"].as_object().expect("paths");
    assert!(paths.contains_key("/metrics"), "{index}");
    for path in paths.keys() {
        // Names in braces stand for something that is not there, and some paths want a query or another method.
        let (status, answer) = running.get(path);
        let wants_query = path.ends_with("/plan") || path.ends_with("/check");
        let is_bare = !path.contains('{') && !wants_query;
        // There is nothing to show while access control is off, and nothing to go over to without MQTT and AMQP.
        let is_of_a_front =
            ["/mqtt", "/amqp"].contains(&path.as_str()) || path.starts_with("/api/v1/mqtt/");
        let is_off = path == "/api/v1/acls" && status == 409 || is_of_a_front && status == 404;
        assert!(
            status == 200 || status == 405 || !is_bare || is_off,
            "{path}: {answer}"
        );
        assert!(!answer.contains("nothing is served at"), "{path}: {answer}");
    }
    let (status, problem) = running.get("/nowhere");
    assert_eq!(status, 404);
    assert!(problem.contains("application/problem+json"), "{problem}");
    assert!(problem.contains("\"code\":\"not_found\""), "{problem}");
}

#[test]
fn settings_that_cannot_be_are_wrong_usage() {
    let directory = tempfile::tempdir().expect("a directory");
    for (setting, said) in [
        ("num.partition=3", "did you mean `num.partitions`?"),
        ("num.partitions=0", "must be 1 to 10000"),
        ("num.partitions", "must be KEY=VALUE"),
        ("data.dir=", "must name a directory"),
    ] {
        let mut command = alluvium();
        let (code, stderr) = refused(command.args(["serve", "-X", setting]));
        assert_eq!(code, Some(2), "{stderr}");
        assert!(stderr.contains(said), "{stderr}");
    }
    for (variable, value) in [
        ("ALLUVIUM_NODE_IDS", "1"),
        ("ALLUVIUM_LOG", "alluvium=loud"),
    ] {
        let (code, stderr) = refused(serve(directory.path()).env(variable, value));
        assert_eq!(code, Some(2), "{stderr}");
        assert!(stderr.contains(variable), "{stderr}");
    }
}

/// Starts, ends, and returns what was logged.
fn log_of(command: &mut Command) -> String {
    let mut log = tempfile::tempfile().expect("a file");
    let running = Running::start_logged(command, log.try_clone().expect("a copy").into());
    assert_eq!(running.end(Signal::TERM).0, Some(0));
    log.rewind().expect("its beginning");
    let mut text = String::new();
    log.read_to_string(&mut text).expect("text");
    text
}

fn warnings(log: &str) -> Vec<&str> {
    log.lines().filter(|line| line.contains(" WARN ")).collect()
}

#[test]
fn variables_of_a_service_with_our_name_do_not_stop_the_server() {
    let directory = tempfile::tempdir().expect("a directory");
    let log = log_of(
        serve(directory.path())
            .env("ALLUVIUM_PORT", "tcp://10.96.7.7:9092")
            .env("ALLUVIUM_PORT_9092_TCP_ADDR", "10.96.7.7")
            .env("ALLUVIUM_SERVICE_HOST", "10.96.7.7"),
    );
    assert!(log.contains("ALLUVIUM_SERVICE_HOST"), "{log}");
}

#[test]
fn a_new_store_warns_and_defaults_do_not() {
    let directory = tempfile::tempdir().expect("a directory");
    let log = log_of(&mut serve(directory.path()));
    assert_eq!(warnings(&log).len(), 1, "{log}");
    assert!(log.contains("no store was here"), "{log}");
    // Fewer connections than the default because of the limit, which nobody asked for.
    let mut second = Command::new("sh");
    second.args(["-c", "ulimit -n 512 && exec \"$0\" \"$@\""]);
    let server = serve(directory.path());
    second.arg(server.get_program()).args(server.get_args());
    let log = log_of(&mut second);
    assert_eq!(warnings(&log), [""; 0], "{log}");
    assert!(log.contains("ulimit"), "{log}");
    second.args(["-X", "max.connections=50000"]);
    let log = log_of(&mut second);
    assert_eq!(warnings(&log).len(), 1, "{log}");
}

#[test]
fn listening_on_every_address_warns_with_the_way_out() {
    let directory = tempfile::tempdir().expect("a directory");
    log_of(&mut serve(directory.path()));
    let mut command = alluvium();
    let addresses = ["serve", "--kafka", "0.0.0.0:0", "--http", "127.0.0.1:0"];
    command.args(addresses).arg("--data").arg(directory.path());
    let (code, stderr) = refused(&mut command);
    assert_eq!(code, Some(2), "{stderr}");
    let lines = [
        "alluvium access init access --host NAME\n",
        "alluvium serve --config access/server.toml --data DIR\n",
        "alluvium topic list -b NAME:9092 ",
    ];
    assert!(lines.iter().all(|line| stderr.contains(line)), "{stderr}");
    let log = log_of(command.arg("--insecure"));
    assert!(
        log.contains("access is not controlled"),
        "every start warns: {log}"
    );
    assert!(
        log.contains("advertised.listeners=PLAINTEXT://"),
        "it says what to set: {log}"
    );
    let good = alluvium()
        .args(["config", "check", "--insecure", "--kafka", "0.0.0.0:9092"])
        .output()
        .expect("it runs");
    assert!(good.status.success());
    let said = String::from_utf8_lossy(&good.stdout).into_owned();
    assert!(said.contains("advertised.listeners=PLAINTEXT://"), "{said}");
}

#[test]
fn a_wrong_data_directory_is_refused_and_left_as_it_is() {
    let directory = tempfile::tempdir().expect("a directory");
    let not_mounted = directory.path().join("not-mounted");
    let (code, stderr) = refused(&mut serve(&not_mounted.join("data")));
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        !not_mounted.exists(),
        "nothing is made above the last level"
    );
    let photos = directory.path().join("photos");
    std::fs::create_dir(&photos).expect("a directory");
    std::fs::write(photos.join("1.jpg"), "").expect("a file");
    let (code, stderr) = refused(&mut serve(&photos));
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("1.jpg"), "{stderr}");
    assert_eq!(std::fs::read_dir(&photos).expect("it is there").count(), 1);
    let forbidden = ["-X", "store.create.enable=false"];
    let (code, stderr) = refused(serve(&directory.path().join("new")).args(forbidden));
    assert_eq!(code, Some(1), "{stderr}");
    assert!(!directory.path().join("new").exists());
}

#[test]
fn a_start_that_fails_says_why_and_ends_with_1() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve(directory.path()));
    let (code, stderr) = refused(&mut serve(directory.path()));
    assert_eq!(code, Some(1), "two servers over one directory: {stderr}");
    let other = tempfile::tempdir().expect("a directory");
    let mut command = alluvium();
    command
        .args(["serve", "--kafka", &running.kafka, "--http", "127.0.0.1:0"])
        .arg("--data")
        .arg(other.path());
    let (code, stderr) = refused(&mut command);
    assert_eq!(code, Some(1), "a port that is taken: {stderr}");
    assert!(stderr.contains(&running.kafka), "{stderr}");
}

#[test]
fn every_setting_in_force_is_shown_with_its_origin() {
    let output = alluvium()
        .args([
            "config",
            "show",
            "--origin",
            "--json",
            "-X",
            "num.partitions=4",
        ])
        .env("ALLUVIUM_NODE_ID", "7")
        .output()
        .expect("it runs");
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).expect("text");
    let shown: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let of = |key: &str| {
        let all = shown.as_array().expect("a list");
        let found = all
            .iter()
            .find(|one| one["key"] == key)
            .expect("it is shown");
        (
            found["value"].as_str().expect("text").to_owned(),
            found["origin"].as_str().expect("text").to_owned(),
        )
    };
    assert_eq!(of("num.partitions"), ("4".into(), "flag".into()));
    assert_eq!(of("node.id"), ("7".into(), "environment".into()));
    assert_eq!(of("log.retention.ms").1, "default");
}

/// A pipe without a reader, as standard error or output.
fn without_reader() -> std::process::Stdio {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

#[test]
fn nobody_who_reads_standard_error_changes_no_exit_code() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().join("data");
    for (args, code) in [
        (vec!["serve", "-X", "nosuch=1"], 2),
        (vec!["log", "stat", "nowhere"], 3),
        (vec!["topic", "list", "-b", "127.0.0.1:1"], 4),
        (vec!["topic", "nosuch"], 2),
        (vec!["config", "check", "-X", "nosuch=1"], 2),
    ] {
        let status = alluvium()
            .args(&args)
            .current_dir(directory.path())
            .stdout(without_reader())
            .stderr(without_reader())
            .status()
            .expect("it runs");
        assert_eq!(status.code(), Some(code), "{args:?}");
    }
    // A server logs all the time, and its ready line may have no reader either.
    let http = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = http.local_addr().expect("its address").to_string();
    drop(http);
    let mut server = alluvium()
        .args(["serve", "--kafka", "127.0.0.1:0", "--http", &address])
        .arg("--data")
        .arg(&data)
        .args(["-X", "wal.file.bytes=262144", "-X", "wal.files.min=2"])
        .env("ALLUVIUM_LOG", "trace")
        .stdout(without_reader())
        .stderr(without_reader())
        .spawn()
        .expect("it starts");
    let is_ready = || {
        let mut stream = TcpStream::connect(&address)?;
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        std::io::Result::Ok(answer.starts_with("HTTP/1.1 200"))
    };
    let begun = std::time::Instant::now();
    while !is_ready().unwrap_or(false) {
        assert!(server.try_wait().expect("its state").is_none(), "it ended");
        assert!(begun.elapsed() < Duration::from_secs(60));
        std::thread::yield_now();
    }
    let pid = rustix::process::Pid::from_child(&server);
    rustix::process::kill_process(pid, Signal::TERM).expect("it runs");
    assert_eq!(server.wait().expect("it ends").code(), Some(0));
}

#[test]
fn a_limit_on_file_sizes_is_named_and_does_not_kill() {
    let directory = tempfile::tempdir().expect("a directory");
    let limited = |data: &std::path::Path| {
        let plain = serve(data);
        // 128 KiB, half of a file of the write-ahead log.
        let mut command = Command::new("prlimit");
        command.arg("--fsize=131072").arg(plain.get_program());
        command.args(plain.get_args());
        command
    };
    let (code, said) = refused(&mut limited(&directory.path().join("new")));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("RLIMIT_FSIZE"), "{said}");
    let data = directory.path().join("data");
    let running = Running::start(&mut serve(&data));
    assert_eq!(running.end(Signal::TERM).0, Some(0));
    let running = Running::start(&mut limited(&data));
    assert!(running.get("/readyz").1.contains("disk_full"));
    assert_eq!(running.end(Signal::TERM).0, Some(0));
}

#[test]
fn a_data_directory_that_is_in_use_names_the_process() {
    let data = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve(data.path()));
    let (code, stderr) = refused(&mut serve(data.path()));
    assert_eq!(code, Some(1), "{stderr}");
    let said = format!("LOCK is in use by process {};", running.id());
    assert!(stderr.contains(&said), "{stderr}");
}

#[test]
fn the_version_says_which_commit_it_is_where_there_is_one() {
    let version = |flag: &str| {
        let output = alluvium().arg(flag).output().expect("it runs");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let short = concat!("alluvium ", env!("CARGO_PKG_VERSION"));
    assert_eq!(version("-V").trim(), short);
    let data = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve(data.path()));
    let (_, answer) = running.get("/version");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    let served: serde_json::Value = serde_json::from_str(body).expect("JSON");
    let long = match served["commit"].as_str() {
        Some(commit) => format!("{short} (commit {commit})"),
        None => short.to_owned(),
    };
    assert_eq!(version("--version").trim(), long);
}
