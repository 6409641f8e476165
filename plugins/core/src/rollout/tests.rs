use super::*;
use crate::bytes::Digest;
use crate::cbor;
use crate::labels::Labels;
use crate::names::LabelText;

const T0: u64 = 1_800_000_000_000;
const HOUR: u64 = 3_600_000;

fn plan(waves: &[&str]) -> Plan {
    let waves = waves.iter().map(|wave| wave.parse().unwrap()).collect();
    Plan { waves, ..Plan::default() }
}

fn running(waves: &[&str], wave: u32) -> Rollout {
    let mut rollout = Rollout::new(plan(waves), Some(T0));
    (1..=wave).for_each(|wave| rollout.begin(wave, Some(T0)));
    rollout
}

fn counts(admitted: u64, confirmed: u64, failed: u64, silent: u64) -> Counts {
    let waiting = admitted - confirmed - failed - silent;
    Counts { sensors: 1000, admitted, confirmed, failed, silent, waiting, refused: 0 }
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    let text = |text: &str| LabelText::new(text).unwrap();
    pairs.iter().map(|(key, value)| (text(key), text(value))).collect()
}

#[test]
fn shares_budgets_and_waves_read_as_people_write_them() {
    for (text, millionths) in
        [("0%", 0), ("2.5%", 25_000), ("100%", WHOLE), ("0.0001%", 1), (" 10 %", 100_000)]
    {
        let share: Share = text.parse().unwrap();
        assert_eq!(share.as_millionths(), millionths, "{text}");
        assert_eq!(share.to_string().parse::<Share>().unwrap(), share);
    }
    for text in ["", "%", "5", "-1%", "101%", "1.23456%", "1.%", "99999999999%", "a%"] {
        assert!(text.parse::<Share>().is_err(), "{text}");
    }
    assert_eq!("5".parse::<Budget>().unwrap().allowed(1000), 5);
    assert_eq!("2%".parse::<Budget>().unwrap().allowed(199), 3);
    assert!("many".parse::<Budget>().unwrap_err().to_string().contains("2%"));
    for text in ["10%", "ring=canary", "10% of ring=canary, site in (a, b)"] {
        assert_eq!(text.parse::<Wave>().unwrap().to_string(), text);
    }
    assert!("10% of".parse::<Wave>().is_err());
}

#[test]
fn waves_that_admit_nobody_new_are_refused() {
    assert_eq!(plan(&["ring=canary", "1%", "10%", "100%"]).check(), Ok(()));
    assert!(matches!(plan(&["10%", "10%"]).check(), Err(PlanError::Shrinks(..))));
    assert_eq!(plan(&[]).check(), Err(PlanError::Waves(0)));
    assert_eq!(plan(&["1%"; 17]).check(), Err(PlanError::Waves(17)));
}

#[test]
fn the_next_wave_waits_for_confirmations_and_for_the_soak() {
    let mut rollout = running(&["10%", "100%"], 1);
    rollout.plan.soak_ms = HOUR;
    assert!(matches!(rollout.next(&counts(100, 94, 0, 0), Some(T0)), Step::Stay { .. }));
    let Step::Stay { until, why } = rollout.next(&counts(100, 95, 0, 0), Some(T0)) else { panic!() };
    assert_eq!((until, why.as_str()), (Some(T0 + HOUR), "wave 1 is confirmed and being watched"));
    assert_eq!(rollout.next(&counts(100, 95, 0, 0), Some(T0 + HOUR)), Step::Ask(2));
    // Nobody left to wait for, and what did not confirm is within the budgets.
    assert_eq!(rollout.next(&counts(100, 88, 2, 10), Some(T0 + HOUR)), Step::Ask(2));
}

#[test]
fn without_the_time_no_wave_begins_and_failures_still_halt() {
    let rollout = running(&["10%", "100%"], 1);
    assert!(matches!(rollout.next(&counts(100, 100, 0, 0), None), Step::Stay { .. }));
    assert!(matches!(rollout.next(&counts(100, 0, 3, 0), None), Step::Halt(_)));
}

#[test]
fn failures_and_silence_have_budgets_of_their_own() {
    let rollout = running(&["10%", "100%"], 1);
    assert!(matches!(rollout.next(&counts(100, 0, 2, 0), Some(T0)), Step::Stay { .. }));
    let Step::Halt(why) = rollout.next(&counts(100, 0, 3, 0), Some(T0)) else { panic!() };
    assert_eq!(why, "3 of 100 sensors failed, the budget of 2% allows 2");
    let Step::Halt(why) = rollout.next(&counts(100, 80, 0, 11), Some(T0)) else { panic!() };
    assert_eq!(why, "11 of 100 sensors are silent, the budget of 10% allows 10");
}

#[test]
fn who_resumes_a_halted_rollout_excuses_what_failed_until_then() {
    let mut rollout = running(&["10%", "100%"], 1);
    let bad = counts(100, 90, 3, 0);
    rollout.halt("3 of 100 sensors failed", [SensorId::new("sn-1").unwrap()].into(), Some(T0));
    assert!(rollout.order().halted);
    assert!(matches!(rollout.next(&bad, Some(T0)), Step::Stay { .. }));
    rollout.resume(&bad, Some(T0));
    assert!(matches!(rollout.next(&bad, Some(T0)), Step::Stay { .. }));
    assert!(matches!(rollout.next(&counts(100, 90, 6, 0), Some(T0)), Step::Halt(_)));
}

#[test]
fn nothing_goes_on_where_nobody_is_known_and_an_empty_wave_holds_up_nobody() {
    let rollout = running(&["1%", "100%"], 1);
    let nobody = Counts::default();
    assert!(matches!(rollout.next(&nobody, Some(T0)), Step::Stay { .. }));
    assert_eq!(rollout.next(&Counts { sensors: 10, ..nobody }, Some(T0)), Step::Ask(2));
    // Silence alone never carries a rollout on.
    let mut generous = running(&["10%", "100%"], 1);
    generous.plan.silence = Budget::Share(Share::ALL);
    assert!(matches!(generous.next(&counts(100, 0, 0, 100), Some(T0)), Step::Stay { .. }));
}

#[test]
fn it_is_done_when_the_last_wave_has_nobody_left_and_can_still_halt() {
    let mut rollout = running(&["10%", "100%"], 2);
    assert!(matches!(rollout.next(&counts(1000, 960, 0, 0), Some(T0)), Step::Stay { .. }));
    let all = counts(1000, 990, 4, 6);
    assert_eq!(rollout.next(&all, Some(T0)), Step::Finish);
    rollout.finish(&all, Some(T0));
    assert!(matches!(rollout.next(&all, Some(T0)), Step::Stay { .. }));
    assert!(matches!(rollout.next(&counts(1000, 900, 30, 6), Some(T0)), Step::Halt(_)));
}

#[test]
fn an_order_admits_its_selection_by_label_and_by_place() {
    let mut rollout = Rollout::new(plan(&["ring=canary", "10%"]), Some(T0));
    rollout.plan.select = Some("site!=bonn".parse().unwrap());
    assert!(!rollout.order().admits(&labels(&[("ring", "canary")]), 0));
    rollout.begin(1, Some(T0));
    assert!(rollout.order().admits(&labels(&[("ring", "canary")]), 999_999));
    assert!(!rollout.order().admits(&labels(&[("ring", "canary"), ("site", "bonn")]), 0));
    assert!(!rollout.order().admits(&labels(&[]), 0));
    rollout.begin(2, Some(T0));
    let order: Order = cbor::decode(&cbor::encode(&rollout.order()), 4096).unwrap();
    assert!(order.admits(&labels(&[]), 99_999) && !order.admits(&labels(&[]), 100_000));
    rollout.halt("enough", Vec::new(), Some(T0));
    assert!(!rollout.order().admits(&labels(&[]), 0) && rollout.order().reaches(&labels(&[]), 0));
}

#[test]
fn places_are_spread_evenly_fixed_for_a_release_and_new_for_the_next() {
    let sensors: Vec<SensorId> = (0..10_000).map(|n| SensorId::new(format!("sn-{n:05}")).unwrap()).collect();
    let first = |digest: u8| {
        let places = sensors.iter().map(|sensor| place(&Digest([digest; 32]), sensor));
        places.map(|place| place < 100_000).collect::<Vec<bool>>()
    };
    let (one, other) = (first(1), first(2));
    let admitted = one.iter().filter(|admitted| **admitted).count();
    assert!((900..1100).contains(&admitted), "{admitted}");
    let both = one.iter().zip(&other).filter(|(one, other)| **one && **other).count();
    assert!((60..140).contains(&both), "{both}");
    assert_eq!(place(&Digest([7; 32]), &SensorId::new("sn-001").unwrap()), 156_280);
}

#[test]
fn a_sensor_counts_from_the_beginning_of_its_own_wave() {
    let mut rollout = Rollout::new(plan(&["10%", "50%"]), Some(T0));
    let of = |rollout: &Rollout, place, reported, now| {
        rollout.standing(&labels(&[]), place, reported, 0, Some(now))
    };
    assert_eq!(of(&rollout, 5, Standing::Waiting, T0), Place::Later);
    rollout.begin(1, Some(T0));
    rollout.begin(2, Some(T0 + HOUR));
    let late = T0 + HOUR + 1;
    assert_eq!(of(&rollout, 5, Standing::Waiting, late), Place::Admitted(Standing::Silent));
    assert_eq!(of(&rollout, 5, Standing::Confirmed, late), Place::Admitted(Standing::Confirmed));
    assert_eq!(of(&rollout, 400_000, Standing::Waiting, late), Place::Admitted(Standing::Waiting));
    assert_eq!(of(&rollout, 500_000, Standing::Waiting, late), Place::Outside);
    let fresh = rollout.standing(&labels(&[]), 5, Standing::Waiting, late, Some(late));
    assert_eq!(fresh, Place::Admitted(Standing::Waiting), "it was first heard of just now");
    let mut counts = Counts::default();
    for place in [fresh, Place::Later, Place::Outside, Place::Admitted(Standing::Silent)] {
        counts.add(place);
    }
    assert_eq!((counts.sensors, counts.admitted, counts.waiting, counts.silent), (3, 2, 1, 1));
}
