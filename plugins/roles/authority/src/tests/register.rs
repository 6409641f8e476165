//! The register: what was issued elsewhere, pages, earlier versions, what is forgotten.

use super::*;

use trireme_core::api::{Issued, Page, Register, Taught};
use trireme_core::role::code;
use trireme_core::testing::certificate;

use crate::SWEEP;

fn of_gateway(bench: &Bench) -> Registered {
    registered(&bench.host, GATEWAY, &certificate(RoleKind::Gateway, "gw-1", None, &[]))
}

fn import(bench: &mut Bench, entries: &[Registered]) -> Result<u32, Fault> {
    let taught: Taught = bench.admin(path::REGISTER, &Register { entries: entries.into() })?;
    Ok(taught.news)
}

#[test]
fn what_was_issued_elsewhere_is_taken_in_once() {
    let mut bench = Bench::new("{}");
    let entry = of_gateway(&bench);
    assert_eq!(import(&mut bench, core::slice::from_ref(&entry)), Ok(1));
    assert_eq!(bench.audited("took 1 certificates"), 1);
    assert_eq!(import(&mut bench, core::slice::from_ref(&entry)), Ok(0));
    let issued: Issued = bench.admin(path::ISSUED, &Page::default()).unwrap();
    assert_eq!((issued.entries, issued.next), ([entry].into(), None));
}

#[test]
fn another_certificate_under_the_same_serial_number_is_refused_with_its_batch() {
    let mut bench = Bench::new("{}");
    let entry = of_gateway(&bench);
    import(&mut bench, core::slice::from_ref(&entry)).unwrap();
    let mut other = entry.clone();
    other.digest.0[0] ^= 1;
    let good = Registered { serial: "77".into(), ..entry };
    let fault = import(&mut bench, &[good, other]).unwrap_err();
    assert_eq!(fault.code, code::CONFLICT);
    assert!(fault.detail.starts_with("entry 2 (gateway gw-1"), "{fault}");
    assert_eq!(bench.status().issued, 1, "nothing of the batch was taken");
}

#[test]
fn entries_that_make_no_sense_are_refused() {
    let mut bench = Bench::new("{}");
    let entry = of_gateway(&bench);
    let wrong = [
        Registered { serial: String::new(), ..entry.clone() },
        Registered { models: models(&["MD"]), ..entry.clone() },
        Registered { role: RoleKind::Sensor, ..entry.clone() },
        Registered { role: RoleKind::Manufacturer, ..entry.clone() },
        Registered { not_before_ms: u64::MAX, ..entry.clone() },
        Registered { reason: "superseded".into(), ..entry.clone() },
        Registered { revoked_ms: 1, reason: "boredom".into(), ..entry.clone() },
    ];
    for entry in wrong {
        assert_eq!(
            import(&mut bench, core::slice::from_ref(&entry)).unwrap_err().code,
            code::MALFORMED,
            "{entry:?}"
        );
    }
    let many: Vec<Registered> = core::iter::repeat_n(entry, Register::MOST + 1).collect();
    assert_eq!(import(&mut bench, &many).unwrap_err().code, code::LIMIT);
}

#[test]
fn one_model_is_not_taken_in_for_two_manufacturers() {
    let mut bench = Bench::new("{}");
    let acme = certificate(RoleKind::Manufacturer, "acme", None, &[]);
    let acme = registered(&bench.host, ACME, &acme);
    let other = Registered { id: subject((RoleKind::Manufacturer, "other")).id, ..acme.clone() };
    let fault = import(&mut bench, &[acme, other]).unwrap_err();
    assert_eq!(fault.code, code::CONFLICT);
}

#[test]
fn what_was_revoked_elsewhere_stands_on_the_list_here() {
    let mut bench = Bench::new("{}");
    let entry = of_gateway(&bench);
    import(&mut bench, core::slice::from_ref(&entry)).unwrap();
    let revoked = Registered { revoked_ms: NOW_MS - 1, ..entry.clone() };
    assert_eq!(import(&mut bench, &[revoked]), Ok(1));
    assert_eq!(bench.status().issuers[0].entries, 1);
    let present = certificate(RoleKind::Gateway, "gw-1", None, &[]);
    assert!(bench.host.certificate(&present).is_err());
    assert_eq!(import(&mut bench, &[entry]), Ok(0), "nobody takes that back");
    assert_eq!(bench.status().revoked, 1);
}

#[test]
fn the_register_comes_in_pages() {
    let mut bench = Bench::new("{}");
    let entry = of_gateway(&bench);
    for batch in 0..5_u32 {
        let entries = (1..=64).map(|number| Registered {
            serial: format!("{:04x}", 256 + batch * 64 + number),
            ..entry.clone()
        });
        let entries: Vec<Registered> = entries.collect();
        import(&mut bench, &entries).unwrap();
    }
    let (mut count, mut page, mut pages) = (0, Page::default(), 0);
    loop {
        let issued: Issued = bench.admin(path::ISSUED, &page).unwrap();
        assert!(matches!(bench.acts.last(), Some(Act::Reply(_, Ok(answer))) if answer.len() <= 64 * 1024));
        (count, pages) = (count + issued.entries.len(), pages + 1);
        page.after = issued.next;
        if page.after.is_none() {
            break;
        }
    }
    assert_eq!(count, 320);
    assert!(pages > 2);
    let status = bench.status();
    assert_eq!((status.issued, status.live, status.revoked, status.more), (320, 320, 0, false));
    assert!(!status.register.is_empty() && status.register.len() <= 256);
    let long = Page { after: Some("x".repeat(257)) };
    assert_eq!(bench.admin::<Issued>(path::ISSUED, &long).unwrap_err().code, code::LIMIT);
}

#[test]
fn entries_of_earlier_versions_are_dropped_quietly() {
    let mut bench = Bench::new("{}");
    bench.enrolled(GATEWAY);
    bench.host.state.insert("issued/gateway/gw-1".into(), b"{}".to_vec());
    bench.host.state.insert("issued/manufacturer/acme".into(), b"{}".to_vec());
    bench.restart("{}");
    assert!(bench.acts.iter().all(|act| !matches!(act, Act::Audit(_))));
    let left: Vec<&String> = bench.host.state.keys().filter(|key| key.starts_with("issued/")).collect();
    assert_eq!(left.len(), 1);
    assert!(left[0].starts_with("issued/gateway/gw-1/"));
}

#[test]
fn what_expired_thirty_days_ago_is_forgotten() {
    let mut bench = Bench::new("{}");
    let entry = Registered { not_after_ms: NOW_MS + 1, ..of_gateway(&bench) };
    import(&mut bench, &[entry]).unwrap();
    let mut after = |ms: u64| {
        bench.pass(ms);
        for _ in 0..8 {
            bench.event(Event::Timer(SWEEP));
        }
        bench.status()
    };
    let status = after(30 * DAY_MS);
    assert_eq!((status.issued, status.live), (1, 0));
    assert_eq!(after(2).issued, 0);
}

#[test]
fn a_restart_keeps_what_was_issued() {
    let mut bench = Bench::new(LISTED);
    bench.enrolled(GATEWAY);
    bench.token(&wish(GATEWAY)).unwrap();
    let before = bench.host.state.clone();
    bench.restart(LISTED);
    assert_eq!(bench.host.state, before);
}
