//! A role as a component.

use alloc::string::String;
use alloc::vec::Vec;
use core::marker::PhantomData;

use trireme_core::role::{
    Answer, Event, Fault, LinkId, LinkInfo, Origin, Request, RequestId, Role, Then, TimerId, code,
};

use crate::convert::{self, blob, fault, fault_out, stamp, subject};
use crate::host::Imports;
use crate::role_bindings::exports::trireme::role as exports;
use crate::role_bindings::trireme::host::types as wit;

/// Makes a component of a [`trireme_core::Role`] that has a `Default`; once in a crate.
#[macro_export]
macro_rules! export_role {
    ($role:ty) => {
        const _: () = {
            $crate::std::thread_local! {
                // A guest has one thread and one role.
                static ROLE: $crate::std::cell::RefCell<$role> =
                    $crate::std::cell::RefCell::new(<$role as ::core::default::Default>::default());
            }

            struct Place;

            impl $crate::role::Place for Place {
                type Role = $role;
                fn with<T>(act: impl FnOnce(&mut $role) -> T) -> T {
                    ROLE.with(|role| act(&mut role.borrow_mut()))
                }
            }

            type Component = $crate::role::Exported<Place>;
    $crate::role_bindings::export_node_role!(Component with_types_in $crate::role_bindings);
        };
    };
}

/// Where the one role of a component lives; [`export_role!`] makes it.
#[doc(hidden)]
pub trait Place {
    /// The role.
    type Role: Role;
    /// Calls `act` with the role.
    fn with<T>(act: impl FnOnce(&mut Self::Role) -> T) -> T;
}

/// The exports of a component, for the role in `P`.
#[doc(hidden)]
pub struct Exported<P>(PhantomData<P>);

impl<P: Place> Exported<P> {
    fn handle(now: wit::Stamp, event: Event) -> Result<(), wit::Fault> {
        let now = stamp(now);
        P::with(|role| role.handle(&mut Imports::at(now), now, event)).map_err(fault_out)
    }
}

impl<P: Place> exports::about::Guest for Exported<P> {
    fn describe() -> exports::about::Description {
        let about = P::with(|role| role.about());
        exports::about::Description {
            kind: about.kind.into_owned(),
            version: about.version.into_owned(),
            sharded: about.sharded,
        }
    }
}

impl<P: Place> exports::lifecycle::Guest for Exported<P> {
    fn started(now: wit::Stamp, config: Vec<u8>) -> Result<(), wit::Fault> {
        let now = stamp(now);
        Imports::trust_changed();
        P::with(|role| role.started(&mut Imports::at(now), now, &config)).map_err(fault_out)
    }

    fn timer(now: wit::Stamp, timer: TimerId) -> Result<(), wit::Fault> {
        Self::handle(now, Event::Timer(timer))
    }

    fn done(now: wit::Stamp, job: Then, outcome: Result<wit::Answer, wit::Fault>) -> Result<(), wit::Fault> {
        let outcome = match outcome {
            Ok(answer) => Ok(Answer { blob: answer.blob.map(blob), values: answer.values }),
            Err(refused) => Err(fault(refused)),
        };
        Self::handle(now, Event::Done(job, outcome))
    }
}

impl<P: Place> exports::links::Guest for Exported<P> {
    fn opened(now: wit::Stamp, link: LinkId, info: exports::links::LinkInfo) -> Result<(), wit::Fault> {
        let exports::links::LinkInfo { kind, binding, address, claims, outgoing } = info;
        Self::handle(now, Event::Opened(link, LinkInfo { kind, binding, address, claims, outgoing }))
    }

    fn closed(now: wit::Stamp, link: LinkId, reason: String) -> Result<(), wit::Fault> {
        Self::handle(now, Event::Closed(link, reason))
    }

    fn subscribed(now: wit::Stamp, link: LinkId, filters: Vec<String>) -> Result<(), wit::Fault> {
        Self::handle(now, Event::Subscribed(link, filters))
    }

    fn unsubscribed(now: wit::Stamp, link: LinkId, filters: Vec<String>) -> Result<(), wit::Fault> {
        Self::handle(now, Event::Unsubscribed(link, filters))
    }

    fn message(now: wit::Stamp, link: LinkId, kind: String, payload: Vec<u8>) -> Result<(), wit::Fault> {
        Self::handle(now, Event::Message(link, kind, payload))
    }

    fn body_offered(now: wit::Stamp, link: LinkId, header: Vec<u8>, size: u64) -> Result<(), wit::Fault> {
        Self::handle(now, Event::BodyOffered(link, header, size))
    }
}

impl<P: Place> exports::requests::Guest for Exported<P> {
    fn request(now: wit::Stamp, question: exports::requests::Question) -> Result<(), wit::Fault> {
        Self::handle(now, Event::Request(request(question)?))
    }
}

impl<P: Place> exports::trust_events::Guest for Exported<P> {
    fn changed(now: wit::Stamp) -> Result<(), wit::Fault> {
        Imports::trust_changed();
        Self::handle(now, Event::TrustChanged)
    }
}

impl<P: Place> exports::shards::Guest for Exported<P> {
    fn told(now: wit::Stamp, shard: u32, payload: Vec<u8>) -> Result<(), wit::Fault> {
        Self::handle(now, Event::Told(shard, payload))
    }

    fn ended(now: wit::Stamp, shard: u32) -> Result<(), wit::Fault> {
        Self::handle(now, Event::ShardEnded(shard))
    }
}

fn request(question: exports::requests::Question) -> Result<Request, wit::Fault> {
    let exports::requests::Question { id, origin, caller, path, body, blob } = question;
    let id: RequestId = id;
    let origin = match origin.as_str() {
        "admin" => Origin::Admin,
        "network" => Origin::Network,
        other => {
            let detail = alloc::format!(
                "a request comes from {other:?}, which this role does not know; update the role"
            );
            return Err(fault_out(Fault::new(code::FORBIDDEN, detail)));
        }
    };
    let caller = caller.map(subject).transpose().map_err(fault_out)?;
    Ok(Request { id, origin, caller, path, body, blob: blob.map(convert::blob) })
}
