//! Roles.

use std::borrow::Cow;

use trireme_core::role::{About, Event, Fault, Host, Role, Stamp, code};
use wasmtime::component::{Component, InstancePre, Linker};

use crate::{
    TRAP,
    bindings::{
        lifecycle::{FaceLifecycle, FaceLifecyclePre},
        links::{FaceLinks, FaceLinksPre},
        requests::{FaceRequests, FaceRequestsPre},
        shards::{FaceShards, FaceShardsPre},
        trust::{FaceTrust, FaceTrustPre},
    },
    convert,
    engine::{Engine, trusted},
    error::Error,
    guest::{Died, Guest, cut_text},
    imports,
    limits::{Cap, Limits},
    scope,
};

/// Makes instances of a role.
#[derive(Clone)]
pub struct RoleFactory {
    engine: Engine,
    pre: InstancePre<Cap>,
    limits: Limits,
    about: About,
}

impl RoleFactory {
    /// A role from outside. It is compiled, unless the engine's cache has it.
    ///
    /// # Errors
    /// [`Error::Component`] when the bytes are none, [`Error::Import`] when it wants what it does not get,
    /// [`Error::Export`] when it is no role, [`Error::Start`] when it traps at once.
    pub fn from_wasm(engine: &Engine, wasm: &[u8], limits: Limits) -> Result<Self, Error> {
        Self::of(engine, &engine.compile(wasm)?, limits)
    }

    /// A role that was compiled when this binary was built, by `trireme-precompile`, and embedded in it; hence
    /// `'static`. Never give it bytes that come from anywhere else: compiled code runs with no wall around it.
    ///
    /// # Errors
    /// [`Error::Compiled`] when it was compiled by another wasmtime or for other settings, and as
    /// [`RoleFactory::from_wasm`].
    pub fn from_compiled(engine: &Engine, code: &'static [u8], limits: Limits) -> Result<Self, Error> {
        Self::of(engine, &trusted(engine.wasmtime(), code)?, limits)
    }

    /// What the role says about itself.
    #[must_use]
    pub fn about(&self) -> &About {
        &self.about
    }

    /// A new instance, without any state. When it answers a fault of the code [`TRAP`] it is dead: drop it, and make
    /// another.
    ///
    /// # Errors
    /// [`Error::Start`] when it traps at once.
    pub fn instantiate(&self) -> Result<Box<dyn Role + Send>, Error> {
        Ok(Box::new(Instance {
            guest: self.start()?,
            about: self.about.clone(),
            call_bytes: self.limits.call_bytes,
        }))
    }

    fn of(engine: &Engine, component: &Component, limits: Limits) -> Result<Self, Error> {
        imports::check(engine.wasmtime(), component, limits.imports)?;
        let mut linker = Linker::new(engine.wasmtime());
        imports::link(&mut linker).map_err(|error| Error::Engine(format!("{error:#}")))?;
        let pre = linker.instantiate_pre(component).map_err(|error| Error::Import {
            name: "a function".into(),
            reason: format!("this version does not have: {error:#}"),
        })?;
        check_exports(engine, component, &pre)?;
        let about = About { kind: Cow::Borrowed(""), version: Cow::Borrowed(""), sharded: false };
        let mut factory = Self { engine: engine.clone(), pre, limits, about };
        factory.about = factory.describe()?;
        Ok(factory)
    }

    fn describe(&self) -> Result<About, Error> {
        let description = self
            .start()?
            .call(|store, faces| faces.lifecycle.trireme_role_about().call_describe(store))
            .map_err(|Died(reason)| Error::Start(reason))?;
        Ok(About {
            kind: Cow::Owned(cut_text(description.kind)),
            version: Cow::Owned(cut_text(description.version)),
            sharded: description.sharded,
        })
    }

    fn start(&self) -> Result<Guest<Faces>, Error> {
        Guest::start(&self.engine, &self.pre, self.limits, |store, instance| {
            Ok(Faces {
                lifecycle: FaceLifecycle::new(&mut *store, instance)?,
                // `check_exports` has seen that a family is whole or absent.
                links: FaceLinks::new(&mut *store, instance).ok(),
                requests: FaceRequests::new(&mut *store, instance).ok(),
                trust: FaceTrust::new(&mut *store, instance).ok(),
                shards: FaceShards::new(&mut *store, instance).ok(),
            })
        })
    }
}

/// What a role exports; a family may be absent.
struct Faces {
    lifecycle: FaceLifecycle,
    links: Option<FaceLinks>,
    requests: Option<FaceRequests>,
    trust: Option<FaceTrust>,
    shards: Option<FaceShards>,
}

fn check_exports(engine: &Engine, component: &Component, pre: &InstancePre<Cap>) -> Result<(), Error> {
    let wrong = |error: wasmtime::Error| Error::Export(format!("{error:#}"));
    FaceLifecyclePre::new(pre.clone()).map_err(wrong)?;
    for (name, _) in component.component_type().exports(engine.wasmtime()) {
        if name.starts_with("trireme:role/links@") {
            FaceLinksPre::new(pre.clone()).map_err(wrong)?;
        }
        if name.starts_with("trireme:role/requests@") {
            FaceRequestsPre::new(pre.clone()).map_err(wrong)?;
        }
        if name.starts_with("trireme:role/trust-events@") {
            FaceTrustPre::new(pre.clone()).map_err(wrong)?;
        }
        if name.starts_with("trireme:role/shards@") {
            FaceShardsPre::new(pre.clone()).map_err(wrong)?;
        }
    }
    Ok(())
}

struct Instance {
    guest: Guest<Faces>,
    about: About,
    call_bytes: usize,
}

impl Role for Instance {
    fn about(&self) -> About {
        self.about.clone()
    }

    fn started(&mut self, host: &mut dyn Host, now: Stamp, config: &[u8]) -> Result<(), Fault> {
        self.fits(config.len())?;
        self.call(host, |store, faces| {
            let lifecycle = faces.lifecycle.trireme_role_lifecycle();
            lifecycle.call_started(store, convert::stamp(now), config)
        })
    }

    fn handle(&mut self, host: &mut dyn Host, now: Stamp, event: Event) -> Result<(), Fault> {
        let event = match (self.fits(convert::event_size(&event)), event) {
            (Ok(()), event) => event,
            // The role waits for an answer, so it gets one.
            (Err(too_large), Event::Done(job, Ok(_))) => Event::Done(job, Err(too_large)),
            (Err(too_large), _) => return Err(too_large),
        };
        let now = convert::stamp(now);
        self.call(host, |store, faces| {
            let lifecycle = faces.lifecycle.trireme_role_lifecycle();
            if let Event::Timer(timer) = event {
                return lifecycle.call_timer(store, now, timer);
            }
            let event = match event {
                Event::Done(job, outcome) => {
                    let outcome = convert::outcome(outcome);
                    return lifecycle.call_done(store, now, job, outcome.as_ref());
                }
                Event::Request(request) => {
                    let Some(requests) = &faces.requests else { return Ok(Err(absent("requests"))) };
                    let question = convert::question(request);
                    return requests.trireme_role_requests().call_request(store, now, &question);
                }
                Event::TrustChanged => {
                    // Whoever keeps nothing that it accepted has nothing to judge anew.
                    let Some(trust) = &faces.trust else { return Ok(Ok(())) };
                    return trust.trireme_role_trust_events().call_changed(store, now);
                }
                Event::Told(shard, payload) => {
                    let Some(shards) = &faces.shards else { return Ok(Err(absent("shards"))) };
                    return shards.trireme_role_shards().call_told(store, now, shard, &payload);
                }
                Event::ShardEnded(shard) => {
                    let Some(shards) = &faces.shards else { return Ok(Ok(())) };
                    return shards.trireme_role_shards().call_ended(store, now, shard);
                }
                of_a_link => of_a_link,
            };
            let Some(links) = &faces.links else { return Ok(Err(absent("links"))) };
            let links = links.trireme_role_links();
            match event {
                Event::Opened(link, info) => links.call_opened(store, now, link, &convert::link_info(info)),
                Event::Closed(link, reason) => links.call_closed(store, now, link, &reason),
                Event::Subscribed(link, filters) => links.call_subscribed(store, now, link, &filters),
                Event::Unsubscribed(link, filters) => links.call_unsubscribed(store, now, link, &filters),
                Event::Message(link, kind, payload) => links.call_message(store, now, link, &kind, &payload),
                Event::BodyOffered(link, header, size) => {
                    links.call_body_offered(store, now, link, &header, size)
                }
                Event::Timer(_)
                | Event::Done(..)
                | Event::Request(_)
                | Event::TrustChanged
                | Event::Told(..)
                | Event::ShardEnded(_) => Ok(Ok(())),
            }
        })
    }
}

type Outcome = Result<(), crate::bindings::imports::trireme::host::types::Fault>;

impl Instance {
    fn call(
        &mut self,
        host: &mut dyn Host,
        call: impl FnOnce(&mut wasmtime::Store<Cap>, &Faces) -> wasmtime::Result<Outcome>,
    ) -> Result<(), Fault> {
        let Self { guest, about, .. } = self;
        match scope::with_host(host, || guest.call(call)) {
            Ok(outcome) => outcome.map_err(convert::fault_in),
            Err(Died(reason)) => Err(Fault {
                code: Cow::Borrowed(TRAP),
                detail: format!("the plugin {} stopped: {reason}", about.kind),
            }),
        }
    }

    /// What is handed to a guest is bounded as well as what it hands over.
    fn fits(&self, bytes: usize) -> Result<(), Fault> {
        if bytes > self.call_bytes {
            let detail =
                format!("an event of {bytes} bytes is more than a role takes ({} bytes)", self.call_bytes);
            return Err(Fault::new(code::LIMIT, detail));
        }
        Ok(())
    }
}

fn absent(family: &str) -> crate::bindings::imports::trireme::host::types::Fault {
    crate::bindings::imports::trireme::host::types::Fault {
        code: code::UNEXPECTED.into(),
        detail: format!("this role takes no events of trireme:role/{family}"),
    }
}
