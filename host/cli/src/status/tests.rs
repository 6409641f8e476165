use super::*;

fn releases() -> Releases {
    serde_json::from_value(json!({ "releases": [{
        "model": "MD-01", "version": "1.3", "suite": "digest", "size": 8_388_608, "digest": "07".repeat(32),
        "brokers": [{ "id": "bk-1", "stage": "stored", "pending": ["gw-2"], "holding": ["gw-1"] }],
        "sensors": [
            { "id": "sn-1", "gateway": "gw-1", "outcome": "installed", "authenticated": true, "counter": 3 },
            { "id": "sn-2", "gateway": "gw-1", "outcome": "refused-token", "authenticated": true, "counter": 9 },
            { "id": "sn-3", "gateway": "gw-2", "outcome": "unknown", "authenticated": false, "counter": 0 },
            { "id": "sn-4", "gateway": "gw-1", "outcome": "unknown", "authenticated": false, "counter": 0 },
            { "id": "sn-5", "gateway": "gw-1", "outcome": "installed", "authenticated": false, "counter": 1 },
        ],
    }] })).unwrap()
}

#[test]
fn a_release_is_counted_by_outcome_and_silence_is_never_success() {
    let text = releases_text(&releases(), false, Some(0));
    let wanted = "1 installed, 1 installed (not authenticated), 1 pending, 1 refused-token, 1 unknown, of 5";
    assert!(text.contains(wanted), "{text}");
    assert!(text.contains("MD-01 1.3  suite digest  8.0 MiB"), "{text}");
    assert!(text.contains("sn-2") && !text.contains("sn-1 "), "{text}");
    assert!(releases_text(&releases(), true, Some(0)).contains("sn-1 "));
}

#[test]
fn a_release_says_how_long_it_counts_and_for_which_generations() {
    const DAY_MS: u64 = 86_400_000;
    let mut releases = releases();
    let release = &mut releases.releases[0];
    (release.sequence, release.expires_ms, release.generations) = (4, 10 * DAY_MS, vec![2, 1]);
    let text = releases_text(&releases, false, Some(DAY_MS));
    let wanted = "manifest 4  expires on 1970-01-11, 9 days left  Tokens for generations 2 and 1";
    assert!(text.contains(wanted), "{text}");
    releases.releases[0].through = ["1.2", "1.2.9"].map(|version| version.parse().unwrap()).into();
    let text = releases_text(&releases, false, Some(DAY_MS));
    assert!(text.contains("9 days left  by way of 1.2 and 1.2.9  Tokens"), "{text}");
    releases.releases[0].withdrawn = true;
    let text = releases_text(&releases, false, Some(11 * DAY_MS));
    assert!(text.contains("EXPIRED") && text.contains("WITHDRAWN"), "{text}");
}

#[test]
fn certificates_and_alarms_are_told_for_each_role() {
    let status = IdentityStatus {
        subject: "broker bk-1".into(),
        serial: "07".into(),
        not_before_ms: 0,
        not_after_ms: 90 * 86_400_000,
        renews_ms: Some(60 * 86_400_000),
        alarms: vec!["revocation lists could not be fetched\u{7}".into()],
        fetched_ms_ago: Some(2500),
        items: Vec::new(),
    };
    let text = identities_text(&BTreeMap::from([("broker".to_owned(), status)]), Some(0));
    for wanted in ["1970-04-01, 90 days left", "by itself from 1970-03-02 on", "2 s ago", "ALARM broker: rev"]
    {
        assert!(text.contains(wanted), "{text}");
    }
    assert!(text.contains("fetched·"), "{text}");
    assert_eq!(identities_text(&BTreeMap::new(), Some(0)), "");
}

#[test]
fn what_a_broker_refused_is_told_by_reason_where_it_did() {
    let roles = |front: Value| -> Vec<RoleStatus> {
        let role = |name: &str, front: &Value| json!({ "name": name, "id": "x", "condition": "running", "front": front });
        serde_json::from_value(json!([role("broker", &front), role("gateway", &Value::Null)])).unwrap()
    };
    let busy = json!({ "connections": 3, "refused": { "password": 12, "connect": 1 } });
    assert_eq!(refusals_text(&roles(busy)), "  broker refused since it started: 1 connect, 12 password\n");
    let wrong = json!({ "refused": {}, "access_problem": "access.toml: line 1" });
    assert_eq!(
        refusals_text(&roles(wrong)),
        "  ALARM broker: the access rules in force stay: access.toml: line 1\n"
    );
    assert_eq!(refusals_text(&roles(json!({ "refused": {} }))), "");
}

#[test]
fn a_sensor_without_a_token_is_an_alarm_of_its_gateway() {
    let gateway = json!({ "sensors": [
        { "id": "sn-1", "needs": null }, { "id": "sn-2", "needs": "sn-2 has generation 1 of MD-01" },
    ] });
    let text = needs_text(&BTreeMap::from([("gateway".to_owned(), gateway)]));
    assert_eq!(text, "  ALARM sn-2 has generation 1 of MD-01\n");
}

#[test]
fn sensors_are_rows_of_one_table() {
    let sensor = |id: &str| json!({ "running": "1.1", "sensor": id });
    let roles = [("sensor/sn-1".to_owned(), sensor("sn-1")), ("sensor/sn-2".to_owned(), sensor("sn-2"))];
    let wanted = "\nsensor\n  SENSOR  RUNNING\n  sn-1    1.1\n  sn-2    1.1\n";
    assert_eq!(roles_text(&roles.into()), wanted);
}

#[test]
fn whatever_a_role_says_becomes_lines_and_tables() {
    let text = role_text(
        "gateway",
        &json!({
            "receipts_waiting": 2, "directory": "fine\u{7}",
            "sensors": [{ "id": "sn-1", "pending": null }, { "id": "sn-2", "pending": "1.3", "stage": "idle" }],
        }),
    );
    assert!(text.contains("receipts_waiting: 2") && text.contains("directory: fine·"), "{text}");
    assert!(text.contains("sn-1") && text.contains("1.3") && text.contains("STAGE"), "{text}");
}

#[test]
fn a_shard_that_does_not_run_is_named_with_its_reason() {
    let fault = json!({ "code": "internal", "detail": "broker failed" });
    let down = json!({ "number": 1, "condition": "waiting", "why": fault, "links": 0 });
    let up = json!({ "number": 0, "condition": "running", "why": null, "links": 3 });
    let role = json!({ "name": "broker", "id": "bk-1", "condition": "running", "shards": [up, down] });
    let text = shards_text(&[serde_json::from_value(role).unwrap()]);
    assert!(text.contains("shard 1 of broker is waiting") && text.contains("broker failed"), "{text}");
    assert_eq!(text.lines().count(), 1);
}
