//! Carries out what an actor asks for. Nothing here waits: what takes long goes to the runtime's pools and comes
//! back as an event.

use std::io::Read;
use std::sync::Arc;

use trireme_actor::{Effect, Intake, Shipment, Work};
use trireme_core::message::Verdict;
use trireme_core::role::{Answer, LinkId, Then, code};
use trireme_core::{Digest, Fault, RoleKind, Version, cbor};
use trireme_net::http::{HttpConfig, Who};
use trireme_net::link::{self, BodySource, Link, LinkCommand};
use trireme_net::{http, lan, mqtt};
use trireme_store::BlobReader;

use crate::body::{FromStore, IntoStore, take};
use crate::cell::{Cell, Ticket, blob_answer};
use crate::checks::checked;
use crate::device::Device;
use crate::ports::Port;

pub(crate) fn carry_out(cell: &Arc<Cell>, effect: Effect) {
    match effect {
        Effect::Connect { address, link } => connect(cell, &address, link),
        Effect::Close { link, reason } => close(cell, link, &reason),
        Effect::Adopt { link, peer } => {
            let main = cell.main();
            let front = main.as_ref().and_then(|main| main.front.get());
            if let (Some(front), Some(link)) = (front, cell.ports.link(link)) {
                front.adopt(&link, &peer);
            }
        }
        Effect::Send { link, kind, payload } => command(cell, link, LinkCommand::Send { kind, payload }),
        Effect::Broadcast { network, kind, payload } => broadcast(cell, &network, &kind, &payload),
        Effect::Subscribe { link, filter } => command(cell, link, LinkCommand::Subscribe(filter)),
        Effect::Unsubscribe { link, filter } => command(cell, link, LinkCommand::Unsubscribe(filter)),
        Effect::Acknowledge { link } => command(cell, link, LinkCommand::Acknowledge),
        Effect::Receive { link, intake, done } => receive(cell, link, intake, done),
        Effect::Compute { work, done } => compute(cell, *work, done),
        Effect::Deliver { link, shipment, done } => deliver(cell, link, shipment, done),
        Effect::Ask { hook, questions, done } => ask(cell, hook, questions, done),
        Effect::Request { role, url, body, done, anonymous } => {
            request(cell, role, url, body, done, if anonymous { Who::Anonymous } else { Who::Certified });
        }
        Effect::Install { blob, version, done } => install(cell, blob, version, done),
        Effect::SelfTest { done } => on_device(cell, cell.job(done), |device| device.self_test()),
        Effect::Confirm { done } => on_device(cell, cell.job(done), |device| device.confirm()),
        Effect::Revert { done } => on_device(cell, cell.job(done), |device| device.revert()),
        Effect::Reply { to, result } => cell.ports.answer(to, result),
        Effect::Progress { to, body } => cell.ports.progress(to, body),
        Effect::Tell { shard, payload } => cell.flock.tell(cell.shard, shard, payload),
        Effect::HandOver { link, shard, kind, payload } => {
            cell.flock.hand_over(cell, link, shard, kind, payload);
        }
        Effect::Failed { during, fault } => {
            tracing::warn!(role = cell.name, during, code = %fault.code, "{}", fault.detail);
        }
        // The cell does that itself, when all else is done.
        Effect::Reboot => {}
    }
}

fn connect(cell: &Arc<Cell>, address: &str, id: LinkId) {
    let _inside = cell.runtime.enter();
    let (events, receiver) = link::events();
    let (kind, link) = if address.starts_with("lan://") {
        ("lan", lan::connect(address, lan::LanConfig::default(), events))
    } else {
        let config = mqtt::client::ClientConfig::new(cell.id.clone());
        let config = mqtt::client::ClientConfig { tls: cell.tls.clone(), ..config };
        ("mqtt", mqtt::client::connect(address, config, events))
    };
    let number = link.id();
    let life = cell.ports.outgoing(id, Port { link, kind, info: None });
    cell.follow(id, life, number, receiver);
}

fn close(cell: &Arc<Cell>, link: LinkId, reason: &str) {
    tracing::debug!(role = cell.name, link, reason, "closing a link");
    if let Some(link) = cell.ports.link(link) {
        // After what was sent before it: the last message may be the reason.
        if link.send(LinkCommand::Close(reason.into())).is_err() {
            link.close(reason);
        }
    }
}

/// A command to a link. One that is gone has said so already, by its `Closed`.
fn command(cell: &Arc<Cell>, link: LinkId, command: LinkCommand) {
    if let Some(link) = cell.ports.link(link) {
        let _ = link.send(command);
    }
}

fn broadcast(cell: &Arc<Cell>, network: &str, kind: &str, payload: &[u8]) {
    for link in cell.ports.of_kind(network) {
        let _ = link.send(LinkCommand::Send { kind: kind.into(), payload: payload.into() });
    }
}

fn receive(cell: &Arc<Cell>, link: LinkId, intake: Box<Intake>, done: Then) {
    let Some(open) = cell.ports.link(link) else {
        return cell.job(done).done(Err(gone()), None);
    };
    let (sink, shelf) = match IntoStore::new(&cell.blobs, intake.size()) {
        Ok(sink) => sink,
        // Nothing was read, and the link waits: its role can still say why, and has to close it, since the body
        // cannot be passed over.
        Err(error) => return cell.job(done).done(Err(storage(&error)), None),
    };
    let job = cell.job(done);
    let answer = Box::new(move |result: Result<(Digest, u64), Fault>| {
        job.done(result.map(blob_answer), take(&shelf));
    });
    // `send` answers for itself when the link is gone.
    let _ = open.send(LinkCommand::Receive { intake, sink: Box::new(sink), done: answer });
}

fn compute(cell: &Arc<Cell>, work: Work, done: Then) {
    let job = cell.job(done);
    checked(cell, work.image().0, move |image| match image {
        Ok(image) => job.blocking(move || compute_now(image, work)),
        Err(fault) => job.done(Err(fault), None),
    });
}

fn compute_now(mut reader: BlobReader, mut work: Work) -> Result<Answer, Fault> {
    let mut window = vec![0; Work::WINDOW];
    loop {
        match reader.read(&mut window).map_err(|error| storage(&error))? {
            0 => return work.finish(),
            read => work.feed(window.get(..read).unwrap_or_default())?,
        }
    }
}

fn deliver(cell: &Arc<Cell>, link: LinkId, shipment: Shipment, done: Then) {
    let Some(open) = cell.ports.link(link) else {
        return cell.job(done).done(Err(gone()), None);
    };
    let job = cell.job(done);
    let Some((digest, _)) = shipment.blob else { return hand_over(&open, shipment, None, job) };
    checked(cell, digest, move |image| match image {
        Ok(image) => hand_over(&open, shipment, Some(Arc::new(FromStore(image))), job),
        Err(fault) => job.done(Err(fault), None),
    });
}

fn hand_over(link: &Link, shipment: Shipment, body: Option<Arc<dyn BodySource>>, job: Ticket) {
    let answer = Box::new(move |result: Result<(), Fault>| {
        job.done(result.map(|()| Answer::default()), None);
    });
    // `send` answers for itself when the link is gone.
    let _ = link.send(LinkCommand::Deliver { shipment: Box::new(shipment), body, done: answer });
}

fn ask(cell: &Arc<Cell>, hook: String, questions: Vec<Vec<u8>>, done: Then) {
    let policies = cell.policies.get(&hook).cloned().unwrap_or_default();
    let answer =
        |verdicts: Vec<Verdict>| Answer { blob: None, values: verdicts.iter().map(cbor::encode).collect() };
    if policies.is_empty() {
        return cell.job(done).done(Ok(answer(vec![Verdict::Allow; questions.len()])), None);
    }
    let asked = cell.clone();
    cell.job(done)
        .blocking(move || Ok(answer(asked.desk.decide(asked.asker(), &hook, &policies, &questions))));
}

fn request(cell: &Arc<Cell>, role: RoleKind, url: String, body: Vec<u8>, done: Then, who: Who) {
    let Some(tls) = cell.tls.clone() else {
        let fault =
            Fault::new(code::CONFIGURATION, format!("{} has no certificate to ask {url} with", cell.name));
        return cell.job(done).done(Err(fault), None);
    };
    let job = cell.job(done);
    let mut stopping = cell.stopping.subscribe();
    cell.runtime.spawn(async move {
        let config = HttpConfig::default();
        let outcome = tokio::select! {
            outcome = http::post(&tls, who, &config, role, &url, body) => outcome,
            // An answer may be held open for long, and nobody waits for it any more.
            _ = stopping.wait_for(|stops| *stops) => Err(Fault::new(code::NETWORK, "the node stops")),
        };
        job.done(outcome.map(|body| Answer { blob: None, values: vec![body] }), None);
    });
}

fn install(cell: &Arc<Cell>, blob: Digest, version: Version, done: Then) {
    let (asked, job) = (cell.clone(), cell.job(done));
    checked(cell, blob, move |image| {
        on_device(&asked, job, move |device| device.install(&image?, version));
    });
}

fn on_device(
    cell: &Arc<Cell>,
    job: Ticket,
    work: impl FnOnce(&Device) -> Result<(), Fault> + Send + 'static,
) {
    let Some(device) = cell.device.clone() else {
        let fault = Fault::new(code::NOT_GRANTED, format!("{} has no device", cell.name));
        return job.done(Err(fault), None);
    };
    job.blocking(move || work(&device).map(|()| Answer::default()));
}

fn gone() -> Fault {
    Fault::new(code::NETWORK, "the link is closed")
}

fn storage(error: &dyn std::fmt::Display) -> Fault {
    Fault::new(code::STORAGE, error.to_string())
}
