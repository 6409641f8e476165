//! The runbooks, as they stand in the documentation, on real processes: what went wrong happens, an operator types what
//! the page says, and then it is looked at from the other side: what the thief has is worth nothing, and everybody else
//! goes on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail loudly, and says how long it took"
)]

use std::process::Command;
use std::time::Instant;

use tempfile::TempDir;
use trireme_tests::{binary, pages};

const PAGE: &str = include_str!("../../docs/runbooks.md");
const PREPARATION: &str = "Before the bad day";

/// What a test needs besides the page's own functions.
const TOOLS: &str = r#"
trap 'for node in net/log/*.pid stolen/*.pid; do kill "$(cat "$node")" || true; done 2> /dev/null' EXIT

# The thief's node, with the network's configuration of it.
thief() {
    trireme run "stolen/$1.toml" > "stolen/$1.log" 2>&1 &
    echo $! > "stolen/$1.pid"
    trireme wait up --node "stolen/$1.toml"
}

# Copies what a node has into the thief's folder.
steal() {
    mkdir -p stolen/keys stolen/certificates
    mkdir -p -m 700 stolen/data
    cp net/authority.pem stolen/
    cp -p "net/keys/$1.key" stolen/keys/
    cp -p "net/certificates/$1.pem" stolen/certificates/
    cp -rp "net/data/$1" stolen/data/
    cp "net/$1.toml" stolen/
}

# A node of the network, again.
up() {
    start "$1"
    trireme wait up --node "net/$1.toml"
}

never() {
    if grep "$@"; then
        echo "this should not be there: $*" >&2
        exit 1
    fi
}

fails() {
    if "$@"; then
        echo "this should fail: $*" >&2
        exit 1
    fi
}

# Publishes one release more, and waits for these many sensors.
release() {
    head -c 50000 /dev/urandom > "image-$1"
    trireme publish --model MD-01 --version "$1" "image-$1"
    trireme wait installed MD-01 "$1" --sensors "$2"
}

# A gateway that the owner of an issuing folder certifies as gw-2, with all that gw-2 knows.
rogue() {
    stop gw-2
    steal gw-2
    up gw-2
    rm stolen/keys/gw-2.key stolen/certificates/gw-2.pem
    trireme request --role gateway --id gw-2 --out stolen/keys
    trireme authority issue "$1" --request stolen/keys/gw-2.csr --role gateway --id gw-2 --out stolen/certificates/gw-2.pem
    cp net/authority*.pem stolen/
    roots=$(cd net; ls authority*.pem | sed 's/.*/"&"/' | paste -sd,)
    sed -i "s/^lan = .*/lan = \"127.0.0.1:$FREE_PORT\"/; s/^authority = .*pem.*/authority = [$roots]/" stolen/gw-2.toml
}

# It gets nothing, and no certificate either.
rogue_gets_nothing() {
    thief gw-2
    release 1.5 6
    sleep 3
    trireme status --node stolen/gw-2.toml --json > rogue.json
    never -o '"version":"1.5"' rogue.json
    fails trireme keys rotate --config stolen/gw-2.toml --wait 5
}
"#;

/// Before the runbook: what went wrong. After it: what must be so now. Around the page's own words.
struct Story {
    runbook: &'static str,
    incident: &'static str,
    aftermath: &'static str,
}

impl Story {
    fn happens(&self) {
        let began = Instant::now();
        let parts = [
            "set -eu",
            TOOLS,
            &pages::script(PAGE, PREPARATION),
            "echo '--- the incident'",
            self.incident,
            "echo '--- the runbook'",
            &pages::script(PAGE, self.runbook),
            "echo '--- the aftermath'",
            self.aftermath,
            "echo '--- the end'",
        ];
        let folder = TempDir::new().unwrap();
        let path = format!("{}:{}", binary::folder().display(), std::env::var("PATH").unwrap());
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        // Its own process group, which `timeout` ends as a whole.
        let output = Command::new("timeout")
            .args(["--kill-after=10", "280", "bash", "-x", "-c", &parts.join("\n")])
            .current_dir(folder.path())
            .env("PATH", path)
            .env("FREE_PORT", port.to_string())
            .env_remove("TRIREME_NODE")
            .output()
            .unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let ended = out.ends_with("--- the end\n");
        assert!(output.status.success() && ended, "{out}\n{err}\n{}", logs(folder.path()));
        println!("runbook {:?}: {} s", self.runbook, began.elapsed().as_secs());
    }
}

/// The end of each node's log.
fn logs(folder: &std::path::Path) -> String {
    let entries = ["net/log", "stolen"].iter().filter_map(|log| std::fs::read_dir(folder.join(log)).ok());
    let mut text = String::new();
    for file in entries.flatten().flatten().map(|entry| entry.path()) {
        let log = std::fs::read_to_string(&file).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(15).collect();
        text.push_str(&format!("== {}\n", file.display()));
        lines.iter().rev().for_each(|line| text.push_str(&format!("{line}\n")));
    }
    text
}

#[test]
fn a_lost_gateway_gets_nothing_and_its_replacement_everything() {
    Story {
        runbook: "Lost gateway",
        // Somebody runs it elsewhere. What is left is its configuration, from a backup.
        incident: r#"
            stop gw-1
            steal gw-1
            rm -r net/keys/gw-1.key net/certificates/gw-1.pem net/data/gw-1
            sed -i "s/^lan = .*/lan = \"127.0.0.1:$FREE_PORT\"/" stolen/gw-1.toml
            thief gw-1
        "#,
        aftermath: r#"
            sleep 3
            trireme status --node stolen/gw-1.toml --json > stolen.json
            grep -q '"version":"1.3"' stolen.json
            never -o '"version":"1.4"' stolen.json
            fails trireme keys rotate --config stolen/gw-1.toml --wait 5
            never -o '"connected":true,[^}]*"urls":\["mqtt' stolen.json
            trireme status --node net/gw-1.toml --json | grep -q '"version":"1.4"'
            release 1.5 6
        "#,
    }
    .happens();
}

#[test]
fn a_broker_whose_key_was_stolen_comes_back_with_another_and_the_stolen_one_is_worth_nothing() {
    Story {
        runbook: "Stolen broker key",
        incident: "stop bk-1\nsteal bk-1\nup bk-1",
        // The thief sits at the broker's own address, for a while.
        aftermath: r#"
            stop bk-1
            thief bk-1
            head -c 50000 /dev/urandom > image-1.5
            trireme publish --model MD-01 --version 1.5 --detach image-1.5
            for attempt in $(seq 60); do
                if trireme status --node net/gw-1.toml | grep 'certificate of broker bk-1 was revoked'; then break; fi
                sleep 0.5
            done
            trireme status --node net/gw-1.toml | grep 'certificate of broker bk-1 was revoked'
            trireme status --node stolen/bk-1.toml --json > stolen.json
            grep -q '"version":"1.3"' stolen.json
            never -o '"version":"1.5"' stolen.json
            kill "$(cat stolen/bk-1.pid)"
            wait "$(cat stolen/bk-1.pid)" || true
            up bk-1
            trireme wait installed MD-01 1.5 --sensors 6
        "#,
    }
    .happens();
}

#[test]
fn a_compromised_manufacturer_is_purged_and_comes_back_with_a_higher_version() {
    Story {
        runbook: "Compromised manufacturer",
        incident: r#"
            stop acme
            steal acme
            mkdir -p stolen/models
            cp -rp net/models/acme stolen/models/
            up acme
        "#,
        // With everything but a certificate that counts, the thief publishes nothing.
        aftermath: r#"
            thief acme
            head -c 50000 /dev/urandom > image-6.6
            trireme publish --node stolen/acme.toml --model MD-01 --version 6.6 --detach image-6.6 || true
            sleep 5
            for node in bk-1 gw-1 gw-2; do
                trireme status --node "net/$node.toml" --json > status.json
                grep -q '"version":"1.4"' status.json
                never -o '"version":"6.6"' status.json
            done
            fails trireme keys rotate --config stolen/acme.toml --wait 5
            release 1.5 6
        "#,
    }
    .happens();
}

#[test]
fn after_a_compromised_intermediate_everybody_comes_back_by_itself_but_who_the_thief_certified() {
    Story {
        runbook: "Compromised intermediate",
        // A copy of gw-1 stands for a node that is off during all this.
        incident: r#"
            stop gw-1
            mkdir away
            cp -rp net/keys net/certificates net/data/gw-1 away/
            up gw-1
            mkdir stolen
            cp -rp net/issuing stolen/issuing
            rogue stolen/issuing
        "#,
        aftermath: r#"
            fails openssl verify -crl_check -CAfile net/authority.pem -CRLfile vault/root/list.pem net/issuing/issuing.pem
            rogue_gets_nothing
            stop gw-1
            cp -p away/keys/gw-1.key net/keys/
            cp -p away/certificates/gw-1.pem net/certificates/
            rm -r net/data/gw-1
            cp -rp away/gw-1 net/data/gw-1
            up gw-1
            fails trireme wait issued-by net/issuing-2/issuing.pem --node net/gw-1.toml --seconds 0
            trireme wait issued-by net/issuing-2/issuing.pem --node net/gw-1.toml --seconds 60
            release 1.6 6
        "#,
    }
    .happens();
}

#[test]
fn a_lost_root_is_followed_by_its_successor_while_releases_flow() {
    Story {
        runbook: "Lost root",
        // A copy of gw-1 stands for a node that is off during all this, and knows the lost root alone.
        incident: r#"
            rm -r vault
            stop gw-1
            mkdir away
            cp -rp net/keys net/certificates net/data/gw-1 net/gw-1.toml away/
            up gw-1
        "#,
        // Who has the old intermediate's key certifies nobody any more, and all of that outlives every node's restart.
        aftermath: r#"
            rogue net/issuing
            rogue_gets_nothing
            for node in authority bk-1 acme gw-1 gw-2; do restart "$node"; done
            release 1.6 6
            trireme status --node stolen/gw-2.toml --json > rogue.json
            never -o '"version":"1.6"' rogue.json
            stop gw-1
            cp -p away/keys/gw-1.key net/keys/
            cp -p away/certificates/gw-1.pem net/certificates/
            cp -p away/gw-1.toml net/
            rm -r net/data/gw-1
            cp -rp away/gw-1 net/data/gw-1
            up gw-1
            trireme wait issued-by net/issuing-2/issuing.pem --node net/gw-1.toml --seconds 60
            release 1.7 6
        "#,
    }
    .happens();
}

#[test]
fn without_a_successor_a_new_root_is_put_into_every_node_by_hand() {
    Story {
        runbook: "Lost root, without a successor",
        incident: "rm -r vault vault-2",
        aftermath: r#"
            rogue net/issuing
            rogue_gets_nothing
            openssl verify -CAfile net/authority-3.pem -untrusted net/certificates/gw-1.pem net/certificates/gw-1.pem
        "#,
    }
    .happens();
}

#[test]
fn after_a_models_secrets_were_extracted_the_next_generation_takes_over() {
    Story {
        runbook: "Extracted model secrets",
        incident: "true",
        aftermath: r#"
            trireme status --node net/sensors-gw-1.toml --json > sensors.json
            grep -o '"sensor/sn-101":{[^}]*' sensors.json | grep '"running":"1.4"'
            grep -o '"sensor/sn-001":{[^}]*' sensors.json | grep '"running":"1.3"'
            trireme status --node net/gw-1.toml | grep 'ALARM'
        "#,
    }
    .happens();
}

#[test]
fn every_runbook_of_the_page_is_run() {
    let told: Vec<&str> = include_str!("runbooks.rs")
        .lines()
        .filter_map(|line| line.trim().strip_prefix("runbook: \"")?.strip_suffix("\","))
        .collect();
    let headings: Vec<&str> = pages::sections(PAGE).filter(|heading| *heading != PREPARATION).collect();
    assert_eq!(headings, told);
    for heading in headings {
        let script = pages::script(PAGE, heading);
        assert!(script.lines().count() > 5, "{heading} has no commands");
    }
}
