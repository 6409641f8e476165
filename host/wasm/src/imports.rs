//! What a role may call: the imports of `trireme:host`, over the [`Host`] of the call in hand.

use trireme_core::{
    api::TimeAnswer,
    bytes::Digest,
    role::{Agreement, Certified, Fault, Host, Offer, code},
};
use wasmtime::{
    Engine, Result,
    component::{Component, HasSelf, Linker},
};

use crate::{
    bindings::imports::trireme::host::{element, keys, sessions, shards, state, trust, tx, types as wit},
    convert::{self, fixed, formula, parse},
    error::Error,
    limits::{Cap, Imports},
    scope,
};

/// Whether the component imports only what exists and was granted.
pub(crate) fn check(
    engine: &Engine,
    component: &Component,
    granted: Imports,
) -> std::result::Result<(), Error> {
    for (name, _) in component.component_type().imports(engine) {
        let interface = name.strip_prefix("trireme:host/").and_then(|rest| rest.split('@').next());
        let given = match interface {
            Some("types") => continue,
            Some("keys") => granted.keys,
            Some("trust") => granted.keys,
            Some("sessions") => granted.sessions,
            Some("element") => granted.element,
            Some("state") => granted.state,
            Some("tx" | "shards") => granted.tx,
            _ => {
                let reason = "no role gets; build it without, or with another version of the SDK".into();
                return Err(Error::Import { name: name.into(), reason });
            }
        };
        if !given {
            let reason = "it was not granted; grant it in the plugin's configuration".into();
            return Err(Error::Import { name: name.into(), reason });
        }
    }
    Ok(())
}

/// Everything that a role may import.
pub(crate) fn link(linker: &mut Linker<Cap>) -> Result<()> {
    keys::add_to_linker::<_, HasSelf<Cap>>(linker, |cap| cap)?;
    trust::add_to_linker::<_, HasSelf<Cap>>(linker, |cap| cap)?;
    sessions::add_to_linker::<_, HasSelf<Cap>>(linker, |cap| cap)?;
    element::add_to_linker::<_, HasSelf<Cap>>(linker, |cap| cap)?;
    state::add_to_linker::<_, HasSelf<Cap>>(linker, |cap| cap)?;
    tx::add_to_linker::<_, HasSelf<Cap>>(linker, |cap| cap)?;
    shards::add_to_linker::<_, HasSelf<Cap>>(linker, |cap| cap)
}

/// What a function with a fault gives.
type Answer<T> = Result<std::result::Result<T, wit::Fault>>;

/// A call that may give a fault; what the guest gave wrong is one, too.
fn answer<T>(act: impl FnOnce(&mut dyn Host) -> std::result::Result<T, Refused>) -> Answer<T> {
    Ok(scope::host(act)?.map_err(|refused| match refused {
        Refused::Fault(fault) => convert::fault(fault),
        Refused::Wrong(detail) => convert::fault(Fault::new(code::MALFORMED, detail)),
    }))
}

enum Refused {
    /// The host's own.
    Fault(Fault),
    /// The guest gave what cannot be read.
    Wrong(String),
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<String> for Refused {
    fn from(detail: String) -> Self {
        Self::Wrong(detail)
    }
}

/// What traps, since the function has no fault to give.
fn or_trap<T>(read: std::result::Result<T, String>) -> Result<T> {
    read.map_err(wasmtime::Error::msg)
}

impl wit::Host for Cap {}

impl keys::Host for Cap {
    fn identity(&mut self) -> Result<wit::OwnIdentity> {
        scope::host(|host| convert::identity(host.identity()))
    }

    fn random(&mut self, length: u32) -> Result<Vec<u8>> {
        scope::host(|host| host.random(length))
    }

    fn sign(&mut self, what: wit::Formula) -> Answer<Vec<u8>> {
        answer(|host| Ok(host.sign(&formula(what))?.0.into()))
    }

    fn hash(&mut self, what: wit::Formula) -> Result<Vec<u8>> {
        scope::host(|host| host.hash(&formula(what)).0.into())
    }

    fn certificate(&mut self, der: Vec<u8>) -> Answer<wit::Certified> {
        answer(|host| Ok(convert::certified(host.certificate(&der)?)))
    }

    fn verify(&mut self, der: Vec<u8>, what: wit::Formula, signature: Vec<u8>) -> Answer<wit::Certified> {
        answer(|host| {
            let signature = fixed("signature", &signature)?;
            Ok(convert::certified(host.verify(&der, &formula(what), &signature)?))
        })
    }

    fn certify(&mut self, request: Vec<u8>, certified: wit::Certified) -> Answer<Vec<u8>> {
        answer(|host| Ok(host.certify(&request, &convert::certified_in(&certified)?)?))
    }
}

impl trust::Host for Cap {
    fn verify_key(&mut self, key: Vec<u8>, what: wit::Formula, signature: Vec<u8>) -> Answer<()> {
        answer(|host| {
            let (key, signature) = (fixed("key", &key)?, fixed("signature", &signature)?);
            Ok(host.verify_key(&key, &formula(what), &signature)?)
        })
    }

    fn describe(&mut self, der: Vec<u8>) -> Answer<trust::Described> {
        answer(|host| Ok(convert::described(host.describe(&der)?)))
    }

    fn learn(&mut self, item: Vec<u8>) -> Answer<bool> {
        answer(|host| Ok(host.learn(&item)?))
    }

    fn items(&mut self) -> Result<Vec<wit::TrustItem>> {
        scope::host(|host| {
            let items = host.trust_items().into_iter();
            items.map(|item| wit::TrustItem { id: item.id.0.into(), number: item.number }).collect()
        })
    }

    fn item(&mut self, id: Vec<u8>) -> Result<Option<Vec<u8>>> {
        let id = or_trap(fixed("trust item", &id))?;
        scope::host(|host| host.trust_item(&id))
    }

    fn roots(&mut self) -> Result<Vec<Vec<u8>>> {
        scope::host(|host| host.roots())
    }

    fn certify_new(&mut self, certified: wit::Certified, secret: Vec<u8>) -> Answer<trust::MadeIdentity> {
        answer(|host| {
            let made = host.certify_new(&convert::certified_in(&certified)?, &secret)?;
            Ok(trust::MadeIdentity { certificate: made.certificate, sealed_key: made.sealed_key })
        })
    }

    fn issuers(&mut self) -> Result<Vec<Vec<u8>>> {
        scope::host(|host| host.issuers().into_iter().map(|issuer| issuer.0.into()).collect())
    }

    fn revocation_list(&mut self, issuer: Vec<u8>, order: trust::ListOrder) -> Answer<Vec<u8>> {
        answer(|host| {
            let issuer = fixed("issuer", &issuer)?;
            Ok(host.revocation_list(&issuer, &convert::list_order(order))?)
        })
    }
}

impl sessions::Host for Cap {
    fn ephemeral(&mut self, link: u32) -> Answer<Vec<u8>> {
        answer(|host| Ok(host.ephemeral(link)?.0.into()))
    }

    fn agree(&mut self, link: u32, said: sessions::Agreement) -> Answer<(wit::Certified, Vec<u8>)> {
        agreed(said, |host, agreement| host.agree(link, agreement))
    }

    fn offer(&mut self, link: u32, tier: u8) -> Answer<sessions::Offered> {
        answer(|host| {
            let Offer { identity, key, signature } = host.offer(link, tier)?;
            let identity = convert::identity(identity);
            Ok(sessions::Offered { identity, key: key.0.into(), signature: signature.0.into() })
        })
    }

    fn conclude(
        &mut self,
        link: u32,
        said: sessions::Agreement,
        peer: wit::Subject,
        confirmation: Vec<u8>,
    ) -> Answer<(wit::Certified, Vec<u8>)> {
        let peer = convert::subject_in(&peer);
        let wrong = |text| Fault::new(code::MALFORMED, text);
        agreed(said, |host, agreement| {
            let confirmation = fixed("tag", &confirmation).map_err(wrong)?;
            host.conclude(link, agreement, &peer.map_err(wrong)?, &confirmation)
        })
    }

    fn mac(&mut self, link: u32, what: wit::Formula) -> Answer<Vec<u8>> {
        answer(|host| Ok(host.mac(link, &formula(what))?.0.into()))
    }

    fn check(&mut self, link: u32, what: wit::Formula, tag: Vec<u8>) -> Answer<()> {
        answer(|host| Ok(host.check(link, &formula(what), &fixed("tag", &tag)?)?))
    }
}

/// An agreement as the host takes it, and what comes of it.
fn agreed(
    said: sessions::Agreement,
    act: impl FnOnce(&mut dyn Host, &Agreement<'_>) -> std::result::Result<(Certified, Digest), Fault>,
) -> Answer<(wit::Certified, Vec<u8>)> {
    answer(|host| {
        let agreement = Agreement {
            tier: said.tier,
            binding: &said.binding,
            initiator: said.initiator,
            certificate: &said.certificate,
            key: &fixed("ephemeral key", &said.key)?,
            signature: &fixed("signature", &said.signature)?,
            signed: formula(said.signed),
            push: &said.push,
            response: &said.response,
        };
        let (certified, transcript) = act(host, &agreement)?;
        Ok((convert::certified(certified), transcript.0.into()))
    })
}

impl element::Host for Cap {
    fn check_token(&mut self, what: wit::Formula, token: Vec<u8>) -> Answer<()> {
        answer(|host| Ok(host.check_token(&formula(what), &fixed("Token", &token)?)?))
    }

    fn receipt(&mut self, what: wit::Formula) -> Answer<(u64, Option<Vec<u8>>)> {
        answer(|host| {
            let (counter, tag) = host.receipt(&formula(what))?;
            Ok((counter, tag.map(|tag| tag.0.into())))
        })
    }

    fn check_receipt(
        &mut self,
        model: String,
        sensor: String,
        what: wit::Formula,
        tag: Vec<u8>,
    ) -> Answer<()> {
        answer(|host| {
            let (model, sensor) = (parse("model", &model)?, parse("sensor", &sensor)?);
            Ok(host.check_receipt(&model, &sensor, &formula(what), &fixed("tag", &tag)?)?)
        })
    }

    fn generations(&mut self, model: String) -> Result<Vec<u32>> {
        let model = or_trap(parse("model", &model))?;
        scope::host(|host| host.generations(&model))
    }

    fn running(&mut self) -> Answer<element::RunningImage> {
        answer(|host| Ok(convert::running(host.running()?)))
    }
}

impl state::Host for Cap {
    fn get(&mut self, key: String) -> Result<Option<Vec<u8>>> {
        scope::host(|host| host.get(&key))
    }

    fn scan(&mut self, prefix: String, after: Option<String>, most: u32) -> Result<Vec<String>> {
        scope::host(|host| host.scan(&prefix, after.as_deref(), most))
    }

    fn blob_size(&mut self, blob: Vec<u8>) -> Result<Option<u64>> {
        let blob = or_trap(fixed("digest", &blob))?;
        scope::host(|host| host.blob_size(&blob))
    }
}

impl tx::Host for Cap {
    fn put(&mut self, key: String, value: Vec<u8>) -> Result<()> {
        scope::host(|host| host.put(&key, value))
    }

    fn delete(&mut self, key: String) -> Result<()> {
        scope::host(|host| host.delete(&key))
    }

    fn pin(&mut self, blob: Vec<u8>) -> Result<()> {
        let blob = or_trap(fixed("digest", &blob))?;
        scope::host(|host| host.pin(&blob))
    }

    fn unpin(&mut self, blob: Vec<u8>) -> Result<()> {
        let blob = or_trap(fixed("digest", &blob))?;
        scope::host(|host| host.unpin(&blob))
    }

    fn audit(&mut self, entry: String) -> Result<()> {
        scope::host(|host| host.audit(&entry))
    }

    fn connect(&mut self, address: String, link: u32) -> Result<()> {
        scope::host(|host| host.connect(&address, link))
    }

    fn close(&mut self, link: u32, reason: String) -> Result<()> {
        scope::host(|host| host.close(link, &reason))
    }

    fn adopt(&mut self, link: u32, peer: String) -> Result<()> {
        let peer = or_trap(parse("peer", &peer))?;
        scope::host(|host| host.adopt(link, &peer))
    }

    fn send(&mut self, link: u32, kind: String, payload: Vec<u8>) -> Result<()> {
        scope::host(|host| host.send(link, &kind, payload))
    }

    fn broadcast(&mut self, network: String, kind: String, payload: Vec<u8>) -> Result<()> {
        scope::host(|host| host.broadcast(&network, &kind, payload))
    }

    fn subscribe(&mut self, link: u32, filter: String) -> Result<()> {
        scope::host(|host| host.subscribe(link, &filter))
    }

    fn unsubscribe(&mut self, link: u32, filter: String) -> Result<()> {
        scope::host(|host| host.unsubscribe(link, &filter))
    }

    fn acknowledge(&mut self, link: u32) -> Result<()> {
        scope::host(|host| host.acknowledge(link))
    }

    fn arm(&mut self, timer: u32, ms: u64) -> Result<()> {
        scope::host(|host| host.arm(timer, ms))
    }

    fn disarm(&mut self, timer: u32) -> Result<()> {
        scope::host(|host| host.disarm(timer))
    }

    fn receive(&mut self, link: u32, reception: tx::Reception, done: u64) -> Result<()> {
        let reception = or_trap(convert::reception(reception))?;
        scope::host(|host| host.receive(link, reception, done))
    }

    fn compute(&mut self, job: tx::Job, done: u64) -> Result<()> {
        let job = or_trap(convert::job(job))?;
        scope::host(|host| host.compute(job, done))
    }

    fn deliver(&mut self, link: u32, delivery: tx::Delivery, done: u64) -> Result<()> {
        let delivery = or_trap(convert::delivery(&delivery))?;
        scope::host(|host| host.deliver(link, delivery, done))
    }

    fn ask(&mut self, hook: String, questions: Vec<Vec<u8>>, done: u64) -> Result<()> {
        scope::host(|host| host.ask(&hook, questions, done))
    }

    fn request(&mut self, role: String, url: String, body: Vec<u8>, done: u64) -> Result<()> {
        let role = or_trap(parse("role", &role))?;
        scope::host(|host| host.request(role, &url, body, done))
    }

    fn install(&mut self, blob: Vec<u8>, version: String, done: u64) -> Result<()> {
        let (blob, version) = (or_trap(fixed("digest", &blob))?, or_trap(parse("version", &version))?);
        scope::host(|host| host.install(&blob, version, done))
    }

    fn reboot(&mut self) -> Result<()> {
        scope::host(|host| host.reboot())
    }

    fn self_test(&mut self, done: u64) -> Result<()> {
        scope::host(|host| host.self_test(done))
    }

    fn confirm(&mut self, done: u64) -> Result<()> {
        scope::host(|host| host.confirm(done))
    }

    fn revert(&mut self, done: u64) -> Result<()> {
        scope::host(|host| host.revert(done))
    }

    fn reply(&mut self, to: u64, outcome: std::result::Result<Vec<u8>, wit::Fault>) -> Result<()> {
        scope::host(|host| host.reply(to, outcome.map_err(convert::fault_in)))
    }

    fn progress(&mut self, to: u64, body: Vec<u8>) -> Result<()> {
        scope::host(|host| host.progress(to, body))
    }

    fn time_challenge(&mut self) -> Result<Vec<u8>> {
        scope::host(|host| host.time_challenge())
    }

    fn prove_time(&mut self, json: Vec<u8>) -> Answer<()> {
        answer(|host| {
            let read: TimeAnswer = serde_json::from_slice(&json)
                .map_err(|error| format!("it gave what is no answer of an authority: {error}"))?;
            Ok(host.prove_time(&read)?)
        })
    }
}

impl shards::Host for Cap {
    fn this(&mut self) -> Result<shards::Shard> {
        scope::host(|host| {
            let shard = host.shard();
            shards::Shard { number: shard.number, count: shard.count }
        })
    }

    fn tell(&mut self, shard: u32, payload: Vec<u8>) -> Result<()> {
        scope::host(|host| host.tell(shard, payload))
    }

    fn hand_over(&mut self, link: u32, shard: u32, kind: String, payload: Vec<u8>) -> Result<()> {
        scope::host(|host| host.hand_over(link, shard, &kind, payload))
    }
}
