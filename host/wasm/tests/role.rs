//! Roles as components, in `tests/fixtures`: they behave as the same code does natively, and cannot go beyond limits.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests, with helpers")]

mod support;

// The fixture's own source, to be run natively.
#[path = "../../../tests/fixtures/echo-role/src/role.rs"]
mod echo;

use std::{sync::LazyLock, time::Duration};

use support::{FakeHost, NOW};
use trireme_core::{
    bytes::Digest,
    names::{NodeId, RoleKind},
    role::{Answer, Event, Fault, LinkInfo, Origin, Request, Role, Subject, code},
};
use trireme_wasm::{Cache, Engine, Error, Imports, Limits, RoleFactory, TRAP};

const ECHO: &[u8] = include_bytes!("../../../tests/fixtures/echo-role.wasm");

static ENGINE: LazyLock<Engine> = LazyLock::new(|| Engine::new(None).unwrap());
static FACTORY: LazyLock<RoleFactory> = LazyLock::new(|| factory(Limits::default()).unwrap());

fn factory(limits: Limits) -> Result<RoleFactory, Error> {
    RoleFactory::from_wasm(&ENGINE, ECHO, limits)
}

/// A folder that goes with its test.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("trireme-wasm-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn message(kind: &str) -> Event {
    Event::Message(7, kind.into(), vec![1, 2, 3])
}

fn refusal(outcome: Result<RoleFactory, Error>) -> String {
    outcome.err().unwrap().to_string()
}

fn events() -> Vec<Event> {
    let info = LinkInfo {
        kind: "mqtt".into(),
        binding: "native".into(),
        address: "[::1]:1883".into(),
        claims: Some("GW-1".into()),
        outgoing: true,
    };
    let answer = Answer { blob: Some((Digest([1; 32]), u64::MAX)), values: vec![vec![], vec![1, 2]] };
    let request = Request {
        id: u64::MAX,
        origin: Origin::Network,
        caller: Some(Subject { role: RoleKind::Gateway, id: NodeId::new("GW-1").unwrap() }),
        path: "/v1/brokers-of".into(),
        body: b"{}".to_vec(),
        blob: Some((Digest([2; 32]), 3)),
    };
    let admin = Request { origin: Origin::Admin, caller: None, blob: None, ..request.clone() };
    vec![
        Event::Timer(u32::MAX),
        Event::Done(1, Ok(answer)),
        Event::Done(2, Err(Fault::new(code::NETWORK, "the peer is gone"))),
        Event::Opened(7, info),
        Event::Closed(7, "enough".into()),
        Event::Subscribed(7, vec!["trireme/fw/a/b".into(), "é".into()]),
        Event::Unsubscribed(7, vec![]),
        Event::BodyOffered(7, vec![0xa0], u64::MAX),
        Event::Request(request),
        Event::Request(admin),
        message("echo"),
        message("keys"),
        message("trust"),
        Event::TrustChanged,
        message("sessions"),
        message("element"),
        message("state"),
        message("tx"),
        message("jobs"),
        message("fault"),
    ]
}

#[test]
fn a_component_calls_its_host_exactly_as_the_same_role_does_natively() {
    let (mut component, mut native) = (FACTORY.instantiate().unwrap(), echo::Echo::default());
    assert_eq!(component.about(), native.about());
    let (mut of_component, mut of_native) = (FakeHost::default(), FakeHost::default());
    assert_eq!(component.started(&mut of_component, NOW, b"{}"), Ok(()));
    assert_eq!(native.started(&mut of_native, NOW, b"{}"), Ok(()));
    for event in events() {
        let outcome = component.handle(&mut of_component, NOW, event.clone());
        assert_eq!(outcome, native.handle(&mut of_native, NOW, event.clone()), "{event:?}");
        let calls = of_native.take();
        assert!(!calls.is_empty() || outcome.is_err(), "{event:?} called nothing");
        assert_eq!(of_component.take(), calls, "{event:?}");
    }
}

#[test]
fn a_trap_is_a_fault_and_the_instance_stays_dead() {
    let (mut role, mut host) = (FACTORY.instantiate().unwrap(), FakeHost::default());
    let fault = role.handle(&mut host, NOW, message("trap")).unwrap_err();
    assert_eq!(fault.code, TRAP);
    assert!(fault.detail.contains("echo") && fault.detail.contains("panic"), "{fault}");
    assert_eq!(role.handle(&mut host, NOW, message("echo")), Err(fault.clone()));
    assert_eq!(role.started(&mut host, NOW, b"{}"), Err(fault));
    assert!(host.take().is_empty());

    let mut another = FACTORY.instantiate().unwrap();
    assert_eq!(another.handle(&mut host, NOW, message("echo")), Ok(()));
}

#[test]
fn an_endless_loop_is_stopped_at_the_deadline() {
    let limits = Limits { call: Duration::from_millis(50), ..Limits::default() };
    let mut role = factory(limits).unwrap().instantiate().unwrap();
    let fault = role.handle(&mut FakeHost::default(), NOW, message("loop")).unwrap_err();
    assert_eq!(fault.code, TRAP);
    assert!(fault.detail.contains("longer than 50 ms"), "{fault}");
}

#[test]
fn the_deadline_begins_anew_with_each_call() {
    let limits = Limits { call: Duration::from_millis(50), ..Limits::default() };
    let (mut role, mut host) = (factory(limits).unwrap().instantiate().unwrap(), FakeHost::default());
    std::thread::sleep(Duration::from_millis(120));
    assert_eq!(role.handle(&mut host, NOW, message("echo")), Ok(()));
}

#[test]
fn a_role_gets_no_more_memory_than_its_limit() {
    let mut role = FACTORY.instantiate().unwrap();
    let fault = role.handle(&mut FakeHost::default(), NOW, message("hog")).unwrap_err();
    assert_eq!(fault.code, TRAP);
    assert!(fault.detail.contains("65536 KiB of memory"), "{fault}");
}

#[test]
fn a_call_with_too_many_bytes_never_reaches_the_host() {
    let (mut role, mut host) = (FACTORY.instantiate().unwrap(), FakeHost::default());
    assert_eq!(role.handle(&mut host, NOW, message("large")).unwrap_err().code, TRAP);
    assert!(host.take().is_empty());
}

#[test]
fn an_event_with_too_many_bytes_is_refused_and_harms_nobody() {
    let (mut role, mut host) = (FACTORY.instantiate().unwrap(), FakeHost::default());
    let large = Event::Message(7, "echo".into(), vec![0; 65 * 1024]);
    assert_eq!(role.handle(&mut host, NOW, large).unwrap_err().code, code::LIMIT);
    assert_eq!(role.handle(&mut host, NOW, message("echo")), Ok(()));
}

#[test]
fn an_answer_with_too_many_bytes_becomes_a_fault_that_the_role_sees() {
    let (mut role, mut host) = (FACTORY.instantiate().unwrap(), FakeHost::default());
    let answer = Answer { blob: None, values: vec![vec![0; 65 * 1024]] };
    assert_eq!(role.handle(&mut host, NOW, Event::Done(4, Ok(answer))), Ok(()));
    let calls = host.take();
    assert!(calls[0].contains("Done(4, Err(Fault") && calls[0].contains("66560 bytes"), "{calls:?}");
}

#[test]
fn an_import_that_was_not_granted_is_named() {
    let imports = Imports { element: false, ..Imports::default() };
    let error = refusal(factory(Limits { imports, ..Limits::default() }));
    assert!(error.contains("trireme:host/element@0.1.0") && error.contains("not granted"), "{error}");
}

#[test]
fn a_component_that_is_no_role_is_refused() {
    let policy = include_bytes!("../../../tests/fixtures/echo-policy.wasm");
    let error = refusal(RoleFactory::from_wasm(&ENGINE, policy, Limits::default()));
    assert!(error.contains("trireme:role/about"), "{error}");
    let model = include_bytes!("../../../tests/fixtures/echo-model.wasm");
    let error = refusal(RoleFactory::from_wasm(&ENGINE, model, Limits::default()));
    assert!(error.contains("trireme:model/device@0.1.0"), "{error}");
    let error = refusal(RoleFactory::from_wasm(&ENGINE, b"\0asm\x01\0\0\0", Limits::default()));
    assert!(error.contains("no WASM component"), "{error}");
}

#[test]
fn an_event_family_that_a_role_does_not_export_is_a_fault() {
    // The empty families: a role that exports `about` and `lifecycle` only.
    let quiet = include_bytes!("../../../tests/fixtures/quiet-role.wasm");
    let factory = RoleFactory::from_wasm(&ENGINE, quiet, Limits::default()).unwrap();
    let (mut role, mut host) = (factory.instantiate().unwrap(), FakeHost::default());
    assert_eq!(role.handle(&mut host, NOW, Event::Timer(1)), Ok(()));
    let fault = role.handle(&mut host, NOW, message("echo")).unwrap_err();
    assert_eq!(fault.code, code::UNEXPECTED);
    assert!(fault.detail.contains("trireme:role/links"), "{fault}");
    assert_eq!(role.handle(&mut host, NOW, Event::Timer(1)), Ok(()));
}

#[test]
fn compiled_code_runs_like_the_component_that_it_was_made_from() {
    let (code, key) = trireme_wasm::precompile(ECHO, None).unwrap();
    let code: &'static [u8] = code.unwrap().leak();
    let factory = RoleFactory::from_compiled(&ENGINE, code, Limits::default()).unwrap();
    let (mut role, mut host) = (factory.instantiate().unwrap(), FakeHost::default());
    assert_eq!(role.handle(&mut host, NOW, message("echo")), Ok(()));
    assert_eq!(host.take(), ["send (7, \"echo\", [1, 2, 3])"]);

    assert_eq!(trireme_wasm::precompile(ECHO, Some(&key)).unwrap(), (None, key));
}

#[test]
fn compiled_code_for_another_engine_is_refused() {
    let policy = include_bytes!("../../../tests/fixtures/echo-policy.wasm");
    let code: &'static [u8] = trireme_wasm::precompile(policy, None).unwrap().0.unwrap().leak();
    let error = refusal(RoleFactory::from_compiled(&ENGINE, code, Limits::default()));
    assert!(error.contains("does not fit this build"), "{error}");
}

#[test]
fn a_component_is_compiled_once_and_a_damaged_cache_is_made_again() {
    let place = Folder::new("once");
    let folder = place.0.join("cache");
    let load = || {
        let engine = Engine::new(Some(Cache::open(&folder).unwrap())).unwrap();
        RoleFactory::from_wasm(&engine, ECHO, Limits::default()).unwrap()
    };
    let file = || {
        let mut files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        let only = files.next().unwrap();
        assert!(files.next().is_none());
        only
    };
    load();
    let whole = std::fs::read(file()).unwrap();
    let mut damaged = whole.clone();
    *damaged.last_mut().unwrap() ^= 1;
    std::fs::write(file(), damaged).unwrap();
    load();
    assert_eq!(std::fs::read(file()).unwrap(), whole);
}

#[test]
fn a_cache_that_others_may_use_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Folder::new("others");
    std::fs::set_permissions(&place.0, std::fs::Permissions::from_mode(0o755)).unwrap();
    let error = Cache::open(&place.0).unwrap_err().to_string();
    assert!(error.contains("755") && error.contains("0700"), "{error}");
}
