//! The map tells five ways through the house, station by station: each station is a file and a function that it has.

use crate::tidy;

/// The heading below which the ways stand, each under a heading of its own.
const SECTION: &str = "## Five ways, station by station";
const WAYS: [&str; 5] = [
    "A produced record",
    "A fetched record",
    "A replayed record",
    "A settled batch",
    "A committed offset",
];
/// A way with fewer stations would leave out whole rooms.
const STATIONS_MIN: usize = 10;

/// A station: a file by its path from the root, and a function in it.
type Station<'a> = (&'a str, &'a str);

/// The ways that the page tells: title and stations.
fn ways(page: &str) -> Vec<(&str, Vec<Station<'_>>)> {
    let Some((_, section)) = page.split_once(SECTION) else {
        return Vec::new();
    };
    let section = section.split("\n## ").next().unwrap_or(section);
    let ways = section.split("\n### ").skip(1);
    ways.map(|way| {
        let (title, table) = way.split_once('\n').unwrap_or((way, ""));
        (title, table.lines().filter_map(station).collect())
    })
    .collect()
}

/// The station that a row of a table names in its first cell.
fn station(row: &str) -> Option<Station<'_>> {
    let name = row.strip_prefix("| `")?.split('`').next()?;
    name.split_once("::")
}

/// What is wrong with a station, given the file's text if there is such a file.
fn wrong((file, function): Station<'_>, text: Option<&str>) -> Option<String> {
    let Some(text) = text else {
        return Some(format!("{file}: there is no such file"));
    };
    let has_it = tidy::functions(text)
        .iter()
        .any(|(name, _)| name == function);
    (!has_it).then(|| format!("{file} has no function {function}"))
}

#[test]
fn every_station_of_the_five_ways_exists() {
    let root = tidy::root();
    let page = std::fs::read_to_string(root.join("docs/ARCHITECTURE.md")).expect("the map");
    let ways = ways(&page);
    let titles: Vec<&str> = ways.iter().map(|(title, _)| *title).collect();
    assert_eq!(titles, WAYS);
    let mut found = Vec::new();
    for (title, stations) in ways {
        assert!(stations.len() >= STATIONS_MIN, "{title}: {stations:?}");
        for station in stations {
            let text = std::fs::read_to_string(root.join(station.0)).ok();
            found.extend(wrong(station, text.as_deref()));
        }
    }
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn a_station_that_is_gone_is_noticed() {
    let page = format!(
        "{SECTION}\n\n### A way\n\n| station | what |\n|---|---|\n| `src/a.rs::step` | it steps |\n\n## Else\n\n| `b::c` | |\n"
    );
    assert_eq!(ways(&page), [("A way", vec![("src/a.rs", "step")])]);
    let text = "//! Steps.\n\nimpl A {\n    pub async fn step(&self) {\n        go();\n    }\n}\n";
    assert_eq!(wrong(("src/a.rs", "step"), Some(text)), None);
    let renamed = text.replace("fn step", "fn steps");
    assert!(wrong(("src/a.rs", "step"), Some(&renamed)).is_some());
    assert!(wrong(("src/a.rs", "step"), None).is_some());
}
