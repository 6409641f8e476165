//! What the operators do in a year, and a thief.

use std::sync::Arc;

use trireme_core::api::{
    Enrol, Enrolled, IdentityQuestion, Publish, Register, Revoke, Taught, Teach, TokenMade, TokenWish, path,
};
use trireme_core::role::Certified;
use trireme_core::{ModelName, NodeId, RoleKind, Suite, Version, json};
use trireme_crypto::element::ModelSecrets;
use trireme_crypto::issue;
use trireme_crypto::key::SoftwareKey;

use super::fleet::{self, Setup, certified, gateway_config, manufacturer_config, role, sensor_config};
use super::timeline::hours;
use super::{DAY_MS, HOUR_MS, Year};
use crate::hierarchy::{Ca, Failure, leaf};
use crate::net::Place;
use crate::party::{BEGINNING_MS, lock};

/// Roots are valid for ten years, intermediates for two.
const ROOT_MS: u64 = 10 * 365 * DAY_MS;
const INTERMEDIATE_MS: u64 = 2 * 365 * DAY_MS;
/// How long a list of a root is valid: its key is offline.
const ROOT_LIST_MS: u64 = 400 * DAY_MS;

/// One thing to do.
#[derive(Debug, Clone, Copy)]
enum Act {
    Register,
    /// A sensor goes into a drawer until this day.
    Sleep(usize, u64),
    RotateIntermediate,
    DropOldIntermediate,
    LoseGateway,
    ReplaceGateway,
    TeachLinks,
    RotateRoot,
    RetireRoot,
    Steal,
    Revoke,
    StealAgain,
    AreBack,
    /// Whoever is in strange hands is switched off, for so many days.
    Vanish(u64),
}

/// The plan, and the authorities behind it.
pub(super) struct Script {
    next: usize,
    root: Ca,
    new_root: Option<Ca>,
    /// New-with-old: the way to the new root for those who know the old one.
    link: Vec<u8>,
    /// Serial number of old-with-new.
    old_with_new: Vec<u8>,
    /// What the new root revoked so far.
    revoked: Vec<Vec<u8>>,
    /// Intermediates, newest first.
    issuers: Vec<Ca>,
    rogue: Option<Place>,
    /// The gateway that is lost, and since when.
    pub(super) lost: Option<(Place, u64)>,
    revoked_ms: u64,
}

/// Days (from 0) and what is done then. Sensors are counted in the order of gateways and models.
const PLAN: [(u64, Act); 16] = [
    (0, Act::Register),
    (60, Act::Sleep(1, 200)),
    (95, Act::RotateIntermediate),
    (130, Act::LoseGateway),
    (131, Act::Vanish(225)),
    (132, Act::ReplaceGateway),
    (162, Act::DropOldIntermediate),
    (195, Act::TeachLinks),
    (197, Act::RotateRoot),
    (240, Act::Sleep(0, 320)),
    (264, Act::RetireRoot),
    (285, Act::Steal),
    (286, Act::Revoke),
    (287, Act::AreBack),
    (288, Act::StealAgain),
    (289, Act::Vanish(73)),
];

impl Script {
    /// The hierarchy as it is at the beginning, and its root.
    pub(super) fn new() -> Result<(Self, Ca), Failure> {
        let from = BEGINNING_MS - DAY_MS;
        let root = Ca::root("root-1", from, from + ROOT_MS)?;
        let issuing = root.intermediate("issuing-1", from, from + INTERMEDIATE_MS, &[])?;
        let script = Self {
            next: 0,
            root: root.clone(),
            new_root: None,
            link: Vec::new(),
            old_with_new: Vec::new(),
            revoked: Vec::new(),
            issuers: Vec::from([issuing]),
            rogue: None,
            lost: None,
            revoked_ms: 0,
        };
        Ok((script, root))
    }

    /// The intermediate that certifies now.
    pub(super) fn issuing(&self) -> &Ca {
        self.issuers.first().unwrap_or(&self.root)
    }
}

impl Year<'_> {
    /// Does what is due.
    pub(super) fn act(&mut self) -> Result<(), Failure> {
        while let Some((_, act)) =
            PLAN.get(self.script.next).filter(|(day, _)| day * DAY_MS <= self.world.now_ms)
        {
            self.script.next += 1;
            match *act {
                Act::Register => self.register()?,
                Act::Sleep(sensor, until) => self.sleep(sensor, until),
                Act::RotateIntermediate => self.rotate_intermediate()?,
                Act::DropOldIntermediate => self.drop_old_intermediate(),
                Act::LoseGateway => self.lose_gateway()?,
                Act::ReplaceGateway => self.replace_gateway()?,
                Act::TeachLinks => self.teach_links()?,
                Act::RotateRoot => self.rotate_root()?,
                Act::RetireRoot => self.retire_root()?,
                Act::Steal => self.steal()?,
                Act::Revoke => self.revoke()?,
                Act::StealAgain => self.steal_again()?,
                Act::AreBack => self.are_back(),
                Act::Vanish(days) => self.vanish(days),
            }
        }
        if self.script.revoked_ms > 0 && self.spread_ms == 0 {
            self.measure_spread();
        }
        Ok(())
    }

    fn register(&mut self) -> Result<(), Failure> {
        let entries = self.fleet.register.clone();
        let body = json::write(&Register { entries });
        self.ask(self.fleet.authority, path::REGISTER, &body)?;
        self.tell(format!(
            "{} nodes and {} sensors begin, certified for {} days by {} under {}",
            self.fleet.certified.len(),
            self.fleet.sensors.len(),
            fleet::CERTIFICATE_DAYS,
            self.script.issuing().certificate.subject(),
            self.script.root.certificate.subject(),
        ));
        Ok(())
    }

    fn sleep(&mut self, sensor: usize, until_day: u64) {
        let now = self.world.now_ms;
        let Some(sensor) = self.fleet.sensors.get_mut(sensor) else { return };
        sensor.excused_ms = until_day * DAY_MS;
        let (place, pause_ms) = (sensor.place, sensor.excused_ms - now);
        self.world.crash(place, pause_ms);
        self.tell(format!("{} is switched off until day {}", self.name(place), until_day + 1));
    }

    /// The authority starts anew with these keys to issue with; the first one issues, all of them sign lists.
    fn issue_with(&mut self, issuers: Vec<Ca>) {
        let authority = self.fleet.authority;
        if let Some(site) = self.world.sites.get(authority) {
            lock(&site.disk).issuers.clone_from(&issuers);
        }
        self.script.issuers = issuers;
        self.world.crash(authority, 5_000);
    }

    fn rotate_intermediate(&mut self) -> Result<(), Failure> {
        let now = self.unix_ms();
        let new = self.script.root.intermediate("issuing-2", now - HOUR_MS, now + INTERMEDIATE_MS, &[])?;
        let old = self.script.issuing().clone();
        self.issue_with(Vec::from([new, old]));
        self.tell(
            "the intermediate is replaced: issuing-2 certifies from now on, issuing-1 signs its lists still",
        );
        Ok(())
    }

    fn drop_old_intermediate(&mut self) {
        let newest = self.script.issuing().clone();
        for name in self.not_under(&newest) {
            self.broken(format!("{name} did not renew under {}", newest.certificate.subject()));
        }
        self.issue_with(Vec::from([newest]));
        self.tell("everyone has renewed under issuing-2; issuing-1 is gone");
    }

    fn lose_gateway(&mut self) -> Result<(), Failure> {
        let Some((name, place)) = self.fleet.gateways.get(1).cloned() else { return Ok(()) };
        let revoke = Revoke {
            role: RoleKind::Gateway,
            id: NodeId::new(&name)?,
            reason: Some("key-compromise".into()),
            serials: Vec::new(),
        };
        self.world.lose(place);
        self.script.lost = Some((place, self.world.now_ms));
        for sensor in self.fleet.sensors.iter_mut().filter(|sensor| sensor.gateway == name) {
            sensor.excused_ms = sensor.excused_ms.max(133 * DAY_MS);
        }
        self.ask(self.fleet.authority, path::REVOKE, &json::write(&revoke))?;
        self.tell(format!("{name} is lost, and revoked; whoever has it goes on using it"));
        Ok(())
    }

    fn replace_gateway(&mut self) -> Result<(), Failure> {
        let name = format!("gw-{}", self.fleet.gateways.len() + 1);
        let gateway = certified(RoleKind::Gateway, &name, None, Vec::new(), self.unix_ms())?;
        let wish = TokenWish {
            role: RoleKind::Gateway,
            id: gateway.subject.id.clone(),
            topic: None,
            models: Vec::new(),
            minutes: Some(60),
            make_key: false,
        };
        let made = self.ask(self.fleet.authority, path::TOKEN, &json::write(&wish))?;
        let made: TokenMade = json::read(&made, "the token")?;
        let key = Arc::new(SoftwareKey::generate()?);
        let request = json::hexed(&issue::request(key.as_ref(), &gateway.subject)?);
        let enrol = Enrol { token: made.token, request: Some(request) };
        let enrolled = self.knock(self.fleet.authority, path::ENROL, &json::write(&enrol))?;
        let enrolled: Enrolled = json::read(&enrolled, "the enrolment")?;
        let certificate = json::hexadecimal(&enrolled.certificate, 16 * 1024, "the certificate")?;
        let root = enrolled.roots.first().ok_or("an enrolment without a root")?;
        let root = json::hexadecimal(root, 16 * 1024, "the root")?;
        let setup = Setup { certified: &gateway, certificate, key, root, secrets: Vec::new() };
        let (keys, disk) = setup.keys();
        let maker = role::<trireme_role_gateway::Gateway>;
        let place = self.world.place(&name, keys, disk, maker, gateway_config());
        self.fleet.certified.push(place);
        let Some((lost, _)) = self.fleet.gateways.get(1).cloned() else { return Ok(()) };
        for sensor in self.fleet.sensors.iter_mut().filter(|sensor| sensor.gateway == lost) {
            sensor.gateway.clone_from(&name);
            self.world.reconfigure(sensor.place, sensor_config(&name));
            self.world.crash(sensor.place, 1_000);
        }
        self.fleet.gateways.push((name.clone(), place));
        self.tell(format!("{name} takes the place of {lost}: enrolled with a token, its sensors move"));
        Ok(())
    }

    fn teach(&mut self, items: &[Vec<u8>]) -> Result<u32, Failure> {
        let items = items.iter().map(|item| json::hexed(item)).collect();
        let taught = self.ask(self.fleet.authority, path::TEACH, &json::write(&Teach { items }))?;
        Ok(json::read::<Taught>(&taught, "what came of it")?.news)
    }

    fn teach_links(&mut self) -> Result<(), Failure> {
        let now = self.unix_ms();
        let new = Ca::root("root-2", now - HOUR_MS, now + ROOT_MS)?;
        let old = &self.script.root;
        let new_with_old = old.link(&new, now - HOUR_MS, now + INTERMEDIATE_MS)?;
        let old_with_new = new.link(old, now - HOUR_MS, now + INTERMEDIATE_MS)?;
        self.script.old_with_new = leaf(&old_with_new)?.serial().to_vec();
        self.script.link.clone_from(&new_with_old);
        self.script.new_root = Some(new);
        self.teach(&[new_with_old, old_with_new])?;
        self.tell("a new root, root-2: the authority is taught the links from root-1 to it and back");
        Ok(())
    }

    fn new_root(&self) -> Result<&Ca, Failure> {
        Ok(self.script.new_root.as_ref().ok_or("there is no new root yet")?)
    }

    fn rotate_root(&mut self) -> Result<(), Failure> {
        let now = self.unix_ms();
        let (from, until) = (now - HOUR_MS, now + INTERMEDIATE_MS);
        let new = self.new_root()?.intermediate("issuing-3", from, until, &self.script.link)?;
        let old = self.script.issuing().clone();
        self.issue_with(Vec::from([new, old]));
        self.tell(
            "issuing-3, under root-2, certifies from now on; issuing-2, under root-1, signs its lists still",
        );
        Ok(())
    }

    /// The new root's list, with one more on it.
    fn revoke_by_root(&mut self, serial: Vec<u8>) -> Result<Vec<u8>, Failure> {
        self.script.revoked.push(serial);
        let now = self.unix_ms();
        self.new_root()?.list(&self.script.revoked, now, now + ROOT_LIST_MS)
    }

    fn retire_root(&mut self) -> Result<(), Failure> {
        let newest = self.script.issuing().clone();
        for name in self.not_under(&newest) {
            self.broken(format!("{name} did not renew under {}", newest.certificate.subject()));
        }
        let list = self.revoke_by_root(self.script.old_with_new.clone())?;
        self.teach(&[list])?;
        self.issue_with(Vec::from([newest]));
        self.tell("everyone has renewed under root-2, which retires root-1; issuing-2 is gone");
        Ok(())
    }

    /// A thief has the intermediate's key and certifies a manufacturer of its own, under the name of one that there
    /// is. It took a sensor of the first model apart and has its secrets; of the second model it has none.
    fn steal(&mut self) -> Result<(), Failure> {
        let now = self.unix_ms();
        let Some(victim) = self.fleet.manufacturers.first() else { return Ok(()) };
        let (victim, secrets) = (victim.certified.clone(), victim.secrets.clone());
        let rogue = Certified { not_after_ms: now + fleet::CERTIFICATE_DAYS * DAY_MS, ..victim };
        let key = Arc::new(SoftwareKey::generate()?);
        let certificate = self.script.issuing().certify(&key, &rogue, now - HOUR_MS)?;
        let mut stolen = Vec::new();
        for (at, secrets) in secrets.into_iter().enumerate() {
            let guess = ModelSecrets::generate(secrets.model().clone(), secrets.generation())?;
            stolen.push(if at == 0 { secrets } else { Arc::new(guess) });
        }
        let root = self.new_root()?.certificate.der().to_vec();
        let setup = Setup { certified: &rogue, certificate: certificate.clone(), key, root, secrets: stolen };
        let (keys, disk) = setup.keys();
        let maker = role::<trireme_role_manufacturer::Manufacturer>;
        let place = self.world.place("thief", keys, disk, maker, manufacturer_config());
        self.world.lose(place);
        self.world.facts.vigil.rogue = Some(certificate);
        // What the thief publishes takes the place of what the brokers had.
        self.world.facts.acknowledged.clear();
        self.fleet.certified.push(place);
        self.script.rogue = Some(place);
        self.world.run_until(self.world.now_ms + HOUR_MS);
        self.tell("the key of issuing-3 is stolen: a thief certifies itself as mf-1, and publishes");
        self.renew_rogue();
        self.publish_rogue(1)
    }

    /// The thief wants to come by a certificate that does not hang on the stolen key.
    fn renew_rogue(&mut self) {
        let Some(rogue) = self.script.rogue else { return };
        let body = json::write(&IdentityQuestion { renew: true, fetch: true });
        // Whether it works is judged at the end.
        let _ = self.ask(rogue, path::IDENTITY, &body);
        self.world.run_until(self.world.now_ms + HOUR_MS);
    }

    fn publish_rogue(&mut self, attempt: u32) -> Result<(), Failure> {
        let Some(rogue) = self.script.rogue else { return Ok(()) };
        let first = ModelName::new("md-1-1")?;
        let minor = self.newest(&first).to_bytes();
        let minor = minor.iter().skip(4).take(4).fold(0, |sum, byte| sum << 8 | u32::from(*byte));
        let aims = [
            (first, Version::new([1, minor, 0, attempt])),
            // So high that nothing genuine would ever be above it.
            (ModelName::new("md-1-2")?, Version::new([u32::MAX, attempt, 0, 0])),
        ];
        for (model, version) in aims {
            let image = self.image();
            self.world.facts.vigil.rogue_images.insert(trireme_crypto::hash::of_bytes(&image));
            let suite = Some(Suite::Digest);
            let publish = Publish {
                model,
                version,
                suite,
                expires_days: None,
                detach: true,
                rollout: None,
                emergency: false,
                through: Vec::new(),
            };
            self.next_question += 1;
            let body = json::write(&publish);
            self.world.admin(rogue, self.next_question, path::PUBLISH, body, Some(image));
        }
        Ok(())
    }

    fn revoke(&mut self) -> Result<(), Failure> {
        let now = self.unix_ms();
        let stolen = self.script.issuing().certificate.serial().to_vec();
        let list = self.revoke_by_root(stolen)?;
        let (from, until) = (now - HOUR_MS, now + INTERMEDIATE_MS);
        let new = self.new_root()?.intermediate("issuing-4", from, until, &self.script.link)?;
        let fooled = self.world.facts.vigil.fooled.len();
        self.tell(format!(
            "the theft is known, {fooled} sensors were fooled: root-2 revokes issuing-3, issuing-4 takes its place"
        ));
        self.script.revoked_ms = self.world.now_ms;
        self.world.facts.acknowledged.clear();
        self.teach(&[list])?;
        self.issue_with(Vec::from([new]));
        Ok(())
    }

    fn measure_spread(&mut self) {
        let refuses = &self.world.facts.vigil.refuses;
        let names: Vec<_> = self.ours().iter().map(|place| self.name(*place)).collect();
        let back = self.not_under(self.script.issuing()).is_empty();
        if !back || !names.iter().all(|name| refuses.contains_key(name)) {
            return;
        }
        self.spread_ms = self.world.now_ms.saturating_sub(self.script.revoked_ms).max(1);
        let spread = hours(self.spread_ms);
        self.tell(format!(
            "{spread} after the revocation everyone knows, and has a certificate of issuing-4"
        ));
    }

    fn are_back(&mut self) {
        let newest = self.script.issuing().clone();
        for name in self.not_under(&newest) {
            self.broken(format!("{name} did not come back after its issuer was revoked"));
        }
        let knows = self.world.facts.vigil.refuses.clone();
        for place in self.ours() {
            let name = self.name(place);
            if !knows.contains_key(&name) {
                self.broken(format!("{name} does not know yet that the thief's certificate is revoked"));
            }
        }
    }

    /// Refused by all, again and again: for days that shows nothing new, so the last days of the year do.
    fn vanish(&mut self, days: u64) {
        let strange: Vec<_> =
            self.fleet.certified.iter().copied().filter(|place| self.world.is_lost(*place)).collect();
        for place in strange {
            self.world.crash(place, days * DAY_MS);
        }
    }

    fn steal_again(&mut self) -> Result<(), Failure> {
        self.renew_rogue();
        self.publish_rogue(2)?;
        self.tell("the thief tries again");
        Ok(())
    }
}
