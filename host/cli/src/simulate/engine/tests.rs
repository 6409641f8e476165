use super::*;
use crate::simulate::fleet::Rates;
use trireme_core::rollout::{Budget, Share};

/// Policies as closures.
struct Fake(&'static [&'static str], Answer);

type Answer = Box<dyn FnMut(&str, &serde_json::Value) -> Verdict>;

impl Judge for Fake {
    fn serves(&self, hook: &str) -> bool {
        self.0.contains(&hook)
    }

    fn ask(&mut self, hook: &'static str, question: &dyn Asked, _: u64) -> Verdict {
        (self.1)(hook, &serde_json::from_str(&question.json()).unwrap())
    }
}

fn nobody() -> Fake {
    Fake(&[], Box::new(|_, _| Verdict::Allow))
}

fn setup(waves: &[&str]) -> Setup {
    let waves = waves.iter().map(|wave| wave.parse().unwrap()).collect();
    Setup {
        plan: Plan { waves, ..Plan::default() },
        model: ModelName::new("MD-01").unwrap(),
        version: Version::new([1, 1, 0, 0]),
        through: Vec::new(),
        size: 1 << 20,
        emergency: false,
        approvals: Vec::new(),
        start_ms: 1_800_000_000_000,
        limit_ms: 30 * 24 * 3_600_000,
    }
}

fn fleet(count: usize, failure: u32, silence: u32) -> Fleet {
    let rates = Rates { failure: Share::millionths(failure), silence: Share::millionths(silence) };
    Fleet::of(count, rates, &mut Random::new(3)).unwrap()
}

#[test]
fn a_good_release_reaches_everybody_wave_by_wave() {
    let outcome = play(&setup(&["1%", "10%", "100%"]), &fleet(1000, 0, 20_000), &mut nobody(), 7);
    assert!(outcome.is_done(), "{:?}", outcome.stalled);
    let counts = outcome.counts();
    assert_eq!((counts.sensors, counts.admitted, counts.confirmed + counts.silent), (1000, 1000, 1000));
    assert_eq!(outcome.rollout.began.len(), 3);
    let waves: Vec<u32> = outcome.samples.iter().map(|sample| sample.wave).collect();
    assert!(waves.windows(2).all(|pair| pair[0] <= pair[1]));
}

#[test]
fn what_leads_to_a_release_is_installed_first_and_takes_its_time() {
    let (mut plain, fleet) = (setup(&["100%"]), fleet(200, 0, 0));
    plain.plan.silent_after_ms = 6 * 3_600_000;
    let through = ["1.0.3", "1.0.7"].map(|version| version.parse().unwrap()).into();
    let outcome = |setup: &Setup| {
        let asked = std::rc::Rc::new(std::cell::RefCell::new(std::collections::BTreeMap::new()));
        let noted = asked.clone();
        let answer: Answer = Box::new(move |_, question| {
            let step = (question["subject"]["running"].clone(), question["release"]["version"].clone());
            *noted.borrow_mut().entry(format!("{} > {}", step.0, step.1)).or_insert(0) += 1;
            Verdict::Allow
        });
        let outcome = play(setup, &fleet, &mut Fake(&["install"], answer), 7);
        assert!(outcome.is_done() && outcome.counts().confirmed == 200, "{:?}", outcome.stalled);
        (outcome.took_ms, asked.take().into_iter().collect::<Vec<(String, u32)>>())
    };
    let (at_once, asked) = outcome(&plain);
    assert_eq!(asked, [("\"1.0\" > \"1.1\"".into(), 200)]);
    let (by_way, asked) = outcome(&Setup { through, ..plain });
    let steps = ["\"1.0\" > \"1.0.3\"", "\"1.0.3\" > \"1.0.7\"", "\"1.0.7\" > \"1.1\""];
    assert_eq!(asked, steps.map(|step| (step.into(), 200)));
    assert!(by_way > 2 * at_once, "{by_way} {at_once}");
}

#[test]
fn a_bad_release_halts_in_the_first_wave_and_reaches_nobody_else() {
    let outcome = play(&setup(&["1%", "100%"]), &fleet(10_000, 500_000, 0), &mut nobody(), 7);
    assert_eq!((outcome.rollout.state, outcome.rollout.wave), (State::Halted, 1));
    let counts = outcome.counts();
    assert!(counts.admitted < 150 && counts.failed <= counts.admitted, "{counts:?}");
    assert!(!outcome.failed.is_empty() && !outcome.rollout.culprits.is_empty());
}

#[test]
fn the_same_seed_plays_the_same_again_and_another_does_not() {
    let (setup, fleet) = (setup(&["5%", "100%"]), fleet(500, 30_000, 10_000));
    let one = play(&setup, &fleet, &mut nobody(), 7);
    assert_eq!(one.samples, play(&setup, &fleet, &mut nobody(), 7).samples);
    assert_ne!(one.samples, play(&setup, &fleet, &mut nobody(), 8).samples);
}

#[test]
fn policies_hold_sensors_and_waves_back_and_halt() {
    let fleet = fleet(100, 0, 0);
    let mut night = Fake(
        &["install"],
        Box::new(|_, question| {
            let hour = question["unix_ms"].as_u64().unwrap() / 3_600_000 % 24;
            if hour < 4 {
                Verdict::Allow
            } else {
                Verdict::RetryAfter((24 - hour) * 3_600_000, "night only".into())
            }
        }),
    );
    let mut setup = setup(&["100%"]);
    setup.plan.silent_after_ms = 48 * 3_600_000;
    let outcome = play(&setup, &fleet, &mut night, 7);
    assert!(outcome.is_done());
    assert!(outcome.took_ms > 3_600_000 && outcome.waits.contains_key("night only"));

    let mut strict = Fake(
        &["publish"],
        Box::new(|_, question| {
            let (begun, number) = (question["wave"]["begun"] == true, question["wave"]["number"].as_u64());
            match (begun, number) {
                (false, Some(1)) => Verdict::Allow,
                // While it is under way, and about the broker.
                (true, _) | (_, None) => Verdict::Allow,
                _ => Verdict::Deny("enough".into()),
            }
        }),
    );
    setup.plan.waves = vec!["10%".parse().unwrap(), "100%".parse().unwrap()];
    let outcome = play(&setup, &fleet, &mut strict, 7);
    assert_eq!(outcome.rollout.reason, "a policy says: enough");
}

#[test]
fn a_policy_that_never_allows_stalls_until_the_time_is_over() {
    let mut never = Fake(&["deliver"], Box::new(|_, _| Verdict::RetryAfter(3_600_000, "not yet".into())));
    let mut setup = setup(&["100%"]);
    (setup.plan.silence, setup.limit_ms) = (Budget::Share(Share::ALL), 24 * 3_600_000);
    let outcome = play(&setup, &fleet(50, 0, 0), &mut never, 7);
    assert!(outcome.stalled.is_some() && !outcome.is_done());
    assert_eq!(outcome.counts().confirmed, 0);
}

#[test]
fn a_policy_that_keeps_the_release_from_its_broker_stalls_it_and_a_wait_is_waited_out() {
    let mut no = Fake(
        &["publish"],
        Box::new(|_, question| {
            if question["wave"].is_null() { Verdict::Deny("not this one".into()) } else { Verdict::Allow }
        }),
    );
    let outcome = play(&setup(&["100%"]), &fleet(50, 0, 0), &mut no, 7);
    assert!(outcome.stalled.is_some_and(|why| why.contains("not this one")));

    let mut slow = Fake(
        &["publish"],
        Box::new(|_, question| {
            let second = question["wave"]["number"] == 2 && question["wave"]["begun"] == false;
            let young = question["wave"]["age_ms"].as_u64().is_some_and(|age| age < 7_200_000);
            if second && young { Verdict::RetryAfter(7_200_000, "two hours".into()) } else { Verdict::Allow }
        }),
    );
    let outcome = play(&setup(&["50%", "100%"]), &fleet(200, 0, 0), &mut slow, 7);
    assert!(outcome.is_done());
    let began = &outcome.rollout.began;
    assert!(began[1] - began[0] >= 7_200_000, "{began:?}");
    assert_eq!(outcome.waits["two hours"], 1, "asked once, and waited out");
}
