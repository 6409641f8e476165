//! A policy as a component.

use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::marker::PhantomData;

use trireme_core::message::Verdict;
use trireme_core::policy::{Decision, Diagnostic, Policy};

use crate::policy_bindings::exports::trireme::policy::policy as exports;

/// Makes a component of a [`trireme_core::policy::Policy`]; once in a crate.
#[macro_export]
macro_rules! export_policy {
    ($policy:ty) => {
        const _: () = {
            $crate::std::thread_local! {
                // A guest has one thread and one policy, once it is loaded.
                static POLICY: ::core::cell::RefCell<::core::option::Option<$policy>> =
                    const { ::core::cell::RefCell::new(::core::option::Option::None) };
            }

            struct Place;

            impl $crate::policy::Place for Place {
                type Policy = $policy;
                fn with<T>(
                    act: impl FnOnce(&::core::cell::RefCell<::core::option::Option<$policy>>) -> T,
                ) -> T {
                    POLICY.with(act)
                }
            }

            type Component = $crate::policy::Exported<Place>;
    $crate::policy_bindings::export_policy_plugin!(Component with_types_in $crate::policy_bindings);
        };
    };
}

/// Where the one policy of a component lives; [`export_policy!`] makes it.
#[doc(hidden)]
pub trait Place {
    /// The policy.
    type Policy: Policy;
    /// Calls `act` with the place of the policy.
    fn with<T>(act: impl FnOnce(&RefCell<Option<Self::Policy>>) -> T) -> T;
}

/// The exports of a component, for the policy in `P`.
#[doc(hidden)]
pub struct Exported<P>(PhantomData<P>);

impl<P: Place> exports::Guest for Exported<P> {
    fn load(source: String, settings: String) -> Result<Vec<String>, Vec<exports::Diagnostic>> {
        let policy = <P::Policy as Policy>::load(&source, &settings)
            .map_err(|mistakes| mistakes.into_iter().map(diagnostic).collect::<Vec<_>>())?;
        let hooks = policy.hooks();
        P::with(|place| place.replace(Some(policy)));
        Ok(hooks)
    }

    fn decide(hook: String, question: String) -> Result<exports::Decision, exports::Diagnostic> {
        let decided = P::with(|place| match &mut *place.borrow_mut() {
            Some(policy) => policy.decide(&hook, &question),
            None => Err(Diagnostic::nowhere("it was not loaded")),
        });
        decided.map(decision).map_err(diagnostic)
    }
}

fn decision(Decision { verdict, line, column }: Decision) -> exports::Decision {
    let verdict = match verdict {
        Verdict::Allow => exports::Verdict::Allow,
        Verdict::RetryAfter(ms, reason) => exports::Verdict::RetryAfter((ms, reason)),
        Verdict::Deny(reason) => exports::Verdict::Deny(reason),
    };
    exports::Decision { verdict, line, column }
}

fn diagnostic(Diagnostic { line, column, message }: Diagnostic) -> exports::Diagnostic {
    exports::Diagnostic { line, column, message }
}
