//! A whole network whose long-term keys are in a PKCS#11 token: the root's, the issuing one, and those of all roles but
//! sensors, which have none. A release goes through all of it, and the token shows that no key can be taken out.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test may fail loudly, and says what it measured"
)]

use std::process::Command;

use tempfile::TempDir;
use trireme_tests::binary;

/// The network's keys move into the token, it runs, a release is installed, a certificate is renewed.
const SCRIPT: &str = r#"
set -eu
umask 077
mkdir tokens
echo "directories.tokendir = $PWD/tokens" > softhsm2.conf
export SOFTHSM2_CONF=$PWD/softhsm2.conf
openssl rand -hex 8 > pin
softhsm2-util --init-token --free --label hall --pin "$(cat pin)" --so-pin 12345678 > /dev/null
module=/usr/lib/softhsm/libsofthsm2.so
uri() { echo "pkcs11:token=hall;object=$1?module-path=$module&pin-source=$PWD/pin"; }

trireme init net --manufacturers 1 --brokers 1 --gateways 1 --sensors 1 > /dev/null
rm -r net/root net/issuing net/authority.pem net/keys net/certificates
mkdir net/certificates
trireme keys generate "$(uri root)"
trireme keys generate "$(uri issuing)"
trireme authority create net/root --name root-in-token --key "$(uri root)"
trireme authority intermediate net/root net/issuing --name issuing-in-token --key "$(uri issuing)"
cp net/root/authority.pem net/authority.pem
grep -q '^pkcs11:' net/issuing/issuing.key
for node in "authority authority" "directory directory" "manufacturer acme" "broker bk-1" "gateway gw-1"; do
    set -- $node
    trireme keys generate "$(uri "$2")"
    trireme request --role "$1" --id "$2" --key "$(uri "$2")" --out requests
    scope=
    [ "$1" = manufacturer ] && scope="--topic acme --model MD-01"
    trireme authority issue net/issuing --request "requests/$2.csr" --role "$1" --id "$2" $scope \
        --out "net/certificates/$2.pem"
    sed -i "s|^key = \"keys/$2.key\"|key = \"$(uri "$2" | sed 's/&/\\&/g')\"|" net/*.toml
done
! grep -rl "PRIVATE KEY" net || { echo "a private key is in a file"; exit 1; }
trireme run net > run.log 2>&1 &
node=$!
trap 'kill $node 2> /dev/null; wait $node 2> /dev/null || true' EXIT
for _ in $(seq 100); do [ -S net/data/acme/admin.sock ] && break; sleep 0.2; done
head -c 20000 /dev/urandom > image.bin
trireme publish --model MD-01 --version 1.3 --node net/acme.toml image.bin
for _ in $(seq 150); do
    trireme status --node net/acme.toml --json > status.json
    grep -q '"outcome": *"installed"' status.json && break
    sleep 0.2
done
grep -q '"outcome": *"installed"' status.json || { tail -50 run.log; cat status.json; exit 1; }
echo "measured: a release was installed with every long-term key in the token"
before=$(trireme keys list --config net/bk-1.toml --json | grep -m1 '"serial"')
trireme keys rotate --config net/bk-1.toml
after=$(trireme keys list --config net/bk-1.toml --json | grep -m1 '"serial"')
[ "$before" != "$after" ] || { echo "the broker's certificate was not renewed: $before"; exit 1; }
if command -v pkcs11-tool > /dev/null; then
    PIN=$(cat pin) pkcs11-tool --module $module --token-label hall --login --pin env:PIN --list-objects --type privkey > objects
    cat objects
    [ "$(grep -c 'Private Key Object; EC' objects)" = 7 ]
    [ "$(grep -c 'never extractable' objects)" = 7 ]
fi
"#;

#[test]
fn every_long_term_key_of_a_network_can_be_in_a_token() {
    let folder = TempDir::new().unwrap();
    let path = format!("{}:{}", binary::folder().display(), std::env::var("PATH").unwrap());
    let output = Command::new("timeout")
        .args(["120", "bash", "-c", SCRIPT])
        .current_dir(folder.path())
        .env("PATH", path)
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{out}");
    let log = std::fs::read_to_string(folder.path().join("run.log")).unwrap_or_default();
    assert!(output.status.success(), "{out}\n{err}\n{log}");
}
