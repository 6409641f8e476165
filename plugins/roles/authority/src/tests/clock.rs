//! A clock that was wrong for a while.

use super::*;

use crate::{LISTS, SWEEP};

#[test]
fn a_clock_that_was_wrong_for_a_while_loses_no_revocation_and_blocks_no_list() {
    let mut bench = Bench::new("{}");
    bench.enrolled(GATEWAY);
    bench.revoke(GATEWAY).unwrap();
    let listed = |bench: &Bench| bench.host.state.keys().filter(|key| key.starts_with("revoked/")).count();
    assert_eq!(listed(&bench), 1);

    // The year 2099: lists are signed, records are swept, a token is made.
    bench.host.now.unix_ms = Some(4_070_908_800_000);
    let token = bench.token(&wish(GATEWAY)).unwrap().token;
    let mut signed = 0;
    for _ in 0..8 {
        bench.pass(DAY_MS / 9);
        bench.event(Event::Timer(SWEEP));
        bench.event(Event::Timer(LISTS));
        signed += bench.audited("signed revocation list 407");
    }
    assert_eq!(signed, 1);
    assert_eq!((listed(&bench), bench.status().issued), (1, 1));

    // The administrator sets it right and starts the node anew. Its host, which knows the time, forgets that list.
    bench.host.now.unix_ms = Some(NOW_MS + 600_000);
    bench.host.items.clear();
    bench.restart("{}");
    assert_eq!(bench.audited("signed revocation list 1800000600"), 1);
    assert_eq!((listed(&bench), bench.status().issued), (1, 1));
    assert!(bench.enrol(&token, Some("30")).is_err());
    assert_eq!(bench.audited("was made while the clock was wrong"), 1);
}
