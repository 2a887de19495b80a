//! Tests of the parent module.

use std::collections::BTreeMap;
use std::io::Write;

use serde::Deserialize;

use super::*;

#[derive(Deserialize, PartialEq, Debug)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default)]
    edge: Edge,
    #[serde(default)]
    edge_case: bool,
    ingest: Option<Ingest>,
}

#[derive(Deserialize, PartialEq, Debug, Default)]
#[serde(deny_unknown_fields, default)]
struct Edge {
    listen: Option<SocketAddr>,
    name: String,
    heartbeat_ms: u64,
    fan_out: Vec<String>,
}

#[derive(Deserialize, PartialEq, Debug, Default)]
#[serde(deny_unknown_fields, default)]
struct Ingest {
    venue: BTreeMap<String, Venue>,
    labels: BTreeMap<String, String>,
    speed: Option<Speed>,
}

#[derive(Deserialize, PartialEq, Debug, Default)]
#[serde(deny_unknown_fields, default)]
struct Venue {
    symbols: Vec<String>,
    rest_url: String,
}

#[derive(Deserialize, PartialEq, Debug)]
#[serde(untagged)]
enum Speed {
    Times(f64),
    Word(String),
}

fn from(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(text.as_bytes()).expect("room");
    let variables = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    load_from(Some(file.path()), PREFIX, variables)
}

#[test]
fn nothing_is_needed() {
    let config: Config = load_from(None, PREFIX, []).expect("all defaults");
    assert_eq!(config.edge, Edge::default());
}

#[test]
fn the_environment_goes_before_the_file() {
    let config = from(
        "[edge]\nlisten = '127.0.0.1:1'\nheartbeat_ms = 5\nname = 'x'\n",
        &[
            ("TICKER_EDGE_LISTEN", "127.0.0.1:2"),
            ("TICKER_EDGE_NAME", "8080"),
            ("TICKER_EDGE_FAN_OUT", "a, b"),
            ("TICKER_EDGE_CASE", "true"),
            ("TICKER_INGEST_VENUE_COINBASE_SYMBOLS", "['BTC-USD']"),
            ("TICKER_INGEST_VENUE_BINANCE_USDM_REST_URL", "http://x"),
            ("TICKER_INGEST_LABELS_ZONE", "eu"),
            ("TICKER_INGEST_SPEED", "2.5"),
            ("OTHER_EDGE_LISTEN", "nonsense"),
            ("TICKER_LOG", "debug"),
            ("TICKER_CONFIG", "x.toml"),
            ("TICKER_RECORDINGS", "/x"),
        ],
    )
    .expect("all known");
    assert_eq!(config.edge.listen, Some(SocketAddr::from(([127, 0, 0, 1], 2))));
    assert_eq!((config.edge.name.as_str(), config.edge.heartbeat_ms), ("8080", 5));
    assert_eq!(config.edge.fan_out, ["a", "b"]);
    assert!(config.edge_case);
    let ingest = config.ingest.expect("set");
    assert_eq!(ingest.venue["coinbase"].symbols, ["BTC-USD"]);
    assert_eq!(ingest.venue["binance-usdm"].rest_url, "http://x");
    assert_eq!(ingest.labels["zone"], "eu");
    assert_eq!(ingest.speed, Some(Speed::Times(2.5)));
}

#[test]
fn an_unknown_key_is_named_with_the_file_and_the_known_ones() {
    let error = from("[edge]\nlistn = '127.0.0.1:1'\n", &[]).expect_err("misspelt").to_string();
    for part in ["configuration file", "line 2", "`listn`", "`listen`", "`heartbeat_ms`"] {
        assert!(error.contains(part), "{part} in {error}");
    }
    let error = from("[edge]\nlistn = 1\n", &[("TICKER_EDGE_NAME", "x")]).expect_err("misspelt").to_string();
    assert!(error.contains("configuration file") && error.contains("line 2") && error.contains("`listn`"), "{error}");
}

#[test]
fn an_unknown_variable_is_named_with_the_nearest() {
    let error = from("", &[("TICKER_EDGE_LISTN", "x")]).expect_err("misspelt").to_string();
    assert!(error.contains("TICKER_EDGE_LISTN is no setting; did you mean TICKER_EDGE_LISTEN?"), "{error}");
    assert!(error.contains("TICKER_INGEST_VENUE_*_SYMBOLS"), "{error}");
}

#[test]
fn a_wrong_value_is_blamed_on_who_gave_it() {
    let variables = [("TICKER_EDGE_FAN_OUT", "a"), ("TICKER_EDGE_HEARTBEAT_MS", "often"), ("TICKER_EDGE_NAME", "x")];
    let error = from("", &variables).expect_err("no number").to_string();
    assert!(error.starts_with("the environment variable TICKER_EDGE_HEARTBEAT_MS: "), "{error}");
    let error = from("edge = 3", &[("TICKER_EDGE_NAME", "x")]).expect_err("no section").to_string();
    assert!(error.contains("`edge` is no section"), "{error}");
}

#[test]
fn a_missing_file_is_named() {
    let error = load_from::<Config>(Some(Path::new("/no/such.toml")), PREFIX, []).expect_err("missing").to_string();
    assert!(error.contains("cannot read the configuration file /no/such.toml"), "{error}");
}

#[test]
fn kubernetes_service_links_are_not_settings() {
    let links = [
        ("TICKER_EDGE_SERVICE_HOST", "10.0.0.1"),
        ("TICKER_EDGE_SERVICE_PORT", "80"),
        ("TICKER_EDGE_SERVICE_PORT_HTTP", "80"),
        ("TICKER_EDGE_PORT", "tcp://10.0.0.1:80"),
        ("TICKER_EDGE_PORT_80_TCP", "tcp://10.0.0.1:80"),
        ("TICKER_EDGE_PORT_80_TCP_PROTO", "tcp"),
    ];
    from("", &links).expect("ignored");
    from("", &links[3..]).expect_err("without a service of that name it is a mistake");
}

#[test]
fn listening_beyond_this_machine_must_be_meant() {
    let open = SocketAddr::from(([0, 0, 0, 0], 8080));
    let error = check_exposure("http", open, false, false).expect_err("exposed").to_string();
    assert!(error.contains("--insecure") && error.contains("0.0.0.0:8080"), "{error}");
    check_exposure("http", open, true, false).expect("protected");
    check_exposure("http", open, false, true).expect("meant");
    for local in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        check_exposure("http", local.parse().expect(local), false, false).expect(local);
    }
}
