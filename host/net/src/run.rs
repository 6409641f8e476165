//! The task of a link: one loop for all of them. What is on the wire is a [`Wire`]'s business, what goes in and out of it
//! is the loop's: back pressure, times, bodies.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, ReadBuf};
use tokio::time::{Instant, sleep_until};
use trireme_actor::Shipment;
use trireme_core::Fault;
use trireme_core::role::code;
use trireme_mqtt::lane::Out;

use crate::inlet::Inlet;
use crate::link::{BodySource, Commands, DoneUnit, LinkCommand, LinkEvent, Pace};
use crate::outlet::Outlet;
use crate::queue::{Refused, Sender};
use crate::reception::{Progress, Reception};
use crate::wire::{Arrival, Audience, Wire};
use crate::writer::{Answer, Body, Job, Report, Writer};

/// Deliveries that may wait on one link.
const DELIVERIES: usize = 16;
/// Bytes read at a time while a body passes.
const BODY_READ: usize = 128 * 1024;
/// Bytes read at a time otherwise.
const READ: usize = 8 * 1024;

/// Bytes of small frames that are written together.
const TOGETHER: usize = 16 * 1024;

/// Bytes that may wait to be understood: more than any packet but a body has.
const MOST_INPUT: usize = 1024 * 1024;

/// A link that runs. Boxed, and what is seldom needed in boxes of its own: there are thousands of them, and nearly all
/// wait for their peers.
pub(crate) type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs a link to its end.
pub(crate) fn run<W, R, S>(
    wire: W,
    (reader, stream): (R, S),
    input: BytesMut,
    commands: Commands,
    audience: Audience,
    pace: Pace,
) -> Running
where
    W: Wire,
    R: Inlet + 'static,
    S: Outlet,
{
    let now = Instant::now();
    let mut runner = Runner {
        outgoing: wire.info().outgoing,
        wire,
        reader,
        writer: Writer::start(stream, pace),
        commands,
        audience,
        held: VecDeque::new(),
        told: false,
        input,
        phase: Phase::Free,
        empty_offer: false,
        loads: HashMap::new(),
        stuck: None,
        ahead: None,
        body_leaves: false,
        pace,
        started: now,
        read_at: now,
        packet_since: None,
        was_reading: false,
    };
    Box::pin(async move {
        let reason = loop {
            match runner.turn().await {
                Ok(()) => {}
                Err(reason) => break reason,
            }
        };
        Box::pin(runner.end(reason)).await;
    })
}

struct Runner<W, R> {
    outgoing: bool,
    wire: W,
    reader: R,
    writer: Writer,
    commands: Commands,
    audience: Audience,
    /// Events that wait for room.
    held: VecDeque<LinkEvent>,
    told: bool,
    input: BytesMut,
    phase: Phase,
    /// The last body offered was empty: it may still be received, and nothing waits for that.
    empty_offer: bool,
    loads: HashMap<u16, Load>,
    /// What the writer has no room for yet.
    stuck: Option<Job>,
    /// What the wire has given after the frames that went before.
    ahead: Option<Out>,
    body_leaves: bool,
    pace: Pace,
    started: Instant,
    read_at: Instant,
    /// When the first byte of an unfinished packet was here.
    packet_since: Option<Instant>,
    was_reading: bool,
}

enum Phase {
    Free,
    /// A body waits to be received.
    Offered(u64),
    Receiving(Box<Reception>),
}

/// The end of a link.
enum End {
    /// The peer left in order.
    Left,
    Reason(String),
}

impl From<String> for End {
    fn from(reason: String) -> Self {
        Self::Reason(reason)
    }
}

struct Load {
    source: Option<Arc<dyn BodySource>>,
    size: u64,
    trailer: Bytes,
    done: Answer,
}

impl<W: Wire, R: Inlet> Runner<W, R> {
    /// Everything that can be done at once, then one wait.
    async fn turn(&mut self) -> Result<(), End> {
        self.pump()?;
        if !self.told && self.wire.is_open() {
            self.tell(None);
        }
        self.hand_over()?;
        let may_take = self.may_take();
        if may_take {
            let before = self.input.len();
            let arrival = match self.wire.next(&mut self.input) {
                Ok(arrival) => arrival,
                Err(reason) => {
                    // What came before it counts all the same.
                    let _ = self.wire.settle().await;
                    return Err(reason.into());
                }
            };
            if self.input.len() < before {
                self.packet_since = None;
            }
            if let Some(arrival) = arrival {
                if matches!(arrival, Arrival::Left) {
                    // The same; that it failed makes the leaving no less orderly.
                    let _ = self.wire.settle().await;
                }
                self.arrived(arrival)?;
                if self.wire.must_settle() {
                    self.wire.settle().await?;
                }
                return Ok(());
            }
        }
        self.wire.settle().await?;
        // `next` may have queued answers, such as PINGRESP, on its way to nothing.
        self.pump()?;
        // A wire may leave bytes in the input because it has no room for what they say.
        let reading = may_take && self.input.len() <= MOST_INPUT;
        self.note_reading(reading);
        self.wait(reading).await
    }

    async fn wait(&mut self, reading: bool) -> Result<(), End> {
        let deadline = self.deadline(reading);
        let body = matches!(self.phase, Phase::Receiving(_));
        if reading && body {
            self.input.reserve(BODY_READ);
        } else if self.input.is_empty() {
            // A link that waits for its peer keeps no room for what may come: there are thousands of them.
            self.input = BytesMut::new();
        }
        let stuck = self.stuck.is_some();
        let full = !self.held.is_empty();
        let may_send = !stuck && self.ahead.is_none() && !self.body_leaves;
        let writer_room = self.writer.room();
        let event_room = room(self.audience.channel(), full);
        tokio::select! {
            command = self.commands.next() => self.command(command),
            report = self.writer.report() => match report {
                Report::Body(length) => {
                    self.body_leaves = false;
                    self.read_at = Instant::now();
                    Ok(self.wire.body_written(length)?)
                }
                Report::Failed(reason) => Err(End::Reason(reason)),
            },
            () = writer_room, if stuck => Ok(()),
            taken = event_room, if full || self.told => taken,
            progress = work(&mut self.phase) => self.worked(progress),
            read = read(&mut self.reader, &mut self.input, body), if reading => match read {
                Ok(Some(0)) => Err(End::Reason("the peer closed the connection".to_owned())),
                Ok(None) => Ok(()),
                Ok(Some(_)) => {
                    self.read_at = Instant::now();
                    Ok(())
                }
                Err(error) => Err(End::Reason(format!("reading from the peer failed: {error}"))),
            },
            side = self.wire.side(may_send) => Ok(side?),
            () = until(deadline) => Err(End::Reason(self.too_late())),
        }
    }

    /// Gives the writer what it has room for.
    fn pump(&mut self) -> Result<(), String> {
        loop {
            let job = match self.stuck.take() {
                Some(job) => job,
                None => match self.ahead.take().or_else(|| self.wire.poll()) {
                    None => return Ok(()),
                    Some(Out::Frame(frame)) => Job::Frame(self.together(frame)),
                    Some(Out::Release { head, packet_id, .. }) => {
                        let Some(Load { source, size, trailer, done }) = self.loads.remove(&packet_id) else {
                            return Err("a body left its queue that nobody put there".to_owned());
                        };
                        self.body_leaves = true;
                        Job::Body(Box::new(Body { head, source, size, trailer, done }))
                    }
                },
            };
            if let Err(job) = self.writer.offer(job) {
                self.stuck = Some(job);
                return Ok(());
            }
        }
    }

    /// A frame, with those small ones that follow it: one write for all.
    fn together(&mut self, first: Bytes) -> Bytes {
        let mut all: Option<BytesMut> = None;
        loop {
            let length = all.as_ref().map_or(first.len(), BytesMut::len);
            match self.wire.poll() {
                Some(Out::Frame(next)) if length + next.len() <= TOGETHER => {
                    let all = all.get_or_insert_with(|| BytesMut::from(first.as_ref()));
                    all.extend_from_slice(&next);
                }
                other => {
                    self.ahead = other;
                    return all.map_or(first, BytesMut::freeze);
                }
            }
        }
    }

    fn may_take(&self) -> bool {
        self.held.is_empty()
            && match &self.phase {
                Phase::Free => true,
                Phase::Offered(_) => false,
                Phase::Receiving(reception) => reception.wants(),
            }
    }

    fn arrived(&mut self, arrival: Arrival) -> Result<(), End> {
        let event = match arrival {
            Arrival::Message { kind, payload } => LinkEvent::Message { kind, payload: payload.into() },
            Arrival::Subscribed(filters) => LinkEvent::Subscribed(filters),
            Arrival::Unsubscribed(filters) => LinkEvent::Unsubscribed(filters),
            Arrival::Body { header, rest } => {
                self.empty_offer = rest == 0;
                self.phase = if rest == 0 { Phase::Free } else { Phase::Offered(rest) };
                LinkEvent::BodyOffered { header: header.into(), rest }
            }
            Arrival::Chunk(bytes) => {
                return match &mut self.phase {
                    Phase::Receiving(reception) if bytes.len() as u64 <= reception.left() => {
                        reception.take(&bytes);
                        Ok(())
                    }
                    _ => Err(End::Reason("bytes of a body came that nobody waits for".to_owned())),
                };
            }
            Arrival::BodyEnd | Arrival::Other => return Ok(()),
            Arrival::Left => return Err(End::Left),
        };
        self.tell(Some(event));
        Ok(self.hand_over()?)
    }

    fn tell(&mut self, event: Option<LinkEvent>) {
        if let Audience::Later(_) = self.audience
            && let Audience::Later(find) = std::mem::replace(&mut self.audience, Audience::Nobody)
        {
            self.audience = Audience::Known(find());
        }
        if !self.told {
            self.told = true;
            self.held.push_back(LinkEvent::Opened(Box::new(self.wire.info())));
        }
        self.held.extend(event);
    }

    /// Hands over the events for which there is room.
    fn hand_over(&mut self) -> Result<(), String> {
        let Audience::Known(events) = &self.audience else { return Ok(()) };
        while let Some(event) = self.held.pop_front() {
            match events.try_send(event) {
                Ok(()) => {}
                Err(Refused::Full(event)) => {
                    self.held.push_front(event);
                    break;
                }
                Err(Refused::Closed(_)) => return Err(NOBODY.to_owned()),
            }
        }
        Ok(())
    }

    fn command(&mut self, command: LinkCommand) -> Result<(), End> {
        match command {
            LinkCommand::Send { kind, payload } => self.wire.send(&kind, &payload)?,
            LinkCommand::Subscribe(filter) => self.wire.subscribe(&filter)?,
            LinkCommand::Unsubscribe(filter) => self.wire.unsubscribe(&filter)?,
            LinkCommand::Acknowledge => self.wire.acknowledge()?,
            LinkCommand::Receive { intake, sink, done } => {
                let rest = match self.phase {
                    Phase::Offered(rest) => rest,
                    Phase::Free if self.empty_offer => 0,
                    _ => {
                        done(Err(Fault::new(code::UNEXPECTED, "the peer offers no body on this link")));
                        return Ok(());
                    }
                };
                self.empty_offer = false;
                let deadline = Instant::now() + self.pace.body(rest);
                let reception = Reception::begin(rest, intake, sink, done, deadline)?;
                self.phase = Phase::Receiving(Box::new(reception));
            }
            LinkCommand::Deliver { shipment, body, done } => self.deliver(&shipment, body, done),
            LinkCommand::Close(reason) => return Err(End::Reason(reason)),
        }
        Ok(())
    }

    fn deliver(&mut self, shipment: &Shipment, source: Option<Arc<dyn BodySource>>, done: DoneUnit) {
        let size = shipment.blob.map_or(0, |(_, size)| size);
        let found = source.as_ref().map_or(0, |source| source.len());
        if found != size {
            let detail = format!("the image has {found} bytes where {size} were recorded");
            return done(Err(Fault::new(code::STORAGE, detail)));
        }
        if self.loads.len() >= DELIVERIES {
            let detail = format!("{DELIVERIES} deliveries wait on this link already");
            return done(Err(Fault::new(code::LIMIT, detail)));
        }
        match self.wire.deliver(shipment, size) {
            Ok(number) => {
                let trailer = Bytes::copy_from_slice(&shipment.trailer);
                self.loads.insert(number, Load { source, size, trailer, done: Answer::new(done) });
            }
            Err(fault) => done(Err(fault)),
        }
    }

    fn worked(&mut self, progress: Progress) -> Result<(), End> {
        match progress {
            Progress::Going => Ok(()),
            Progress::Complete => {
                self.phase = Phase::Free;
                // A link that is idle from here on does not keep the room that a body needed.
                self.input = BytesMut::from(self.input.as_ref());
                Ok(())
            }
            Progress::Broken(reason) => {
                self.phase = Phase::Free;
                Err(End::Reason(format!("a body was refused on its way: {reason}")))
            }
        }
    }

    /// The peer's times run only while it is being read.
    fn note_reading(&mut self, reading: bool) {
        let now = Instant::now();
        if reading && !self.was_reading {
            self.read_at = now;
            self.packet_since = None;
        }
        if !self.input.is_empty() || self.reader.is_within() {
            if reading {
                self.packet_since.get_or_insert(now);
            }
        } else {
            self.packet_since = None;
        }
        self.was_reading = reading;
    }

    fn deadline(&self, reading: bool) -> Option<Instant> {
        let opening = (self.outgoing && !self.told).then_some(self.started + self.pace.opening);
        let peer = match &self.phase {
            _ if !reading => None,
            Phase::Receiving(reception) => Some(reception.deadline.min(self.read_at + self.pace.stall)),
            _ => {
                let packet = self
                    .packet_since
                    .map(|since| (since + self.pace.packet).min(self.read_at + self.pace.stall));
                let silent =
                    self.wire.silence().filter(|_| !self.body_leaves).map(|silence| self.read_at + silence);
                packet.into_iter().chain(silent).min()
            }
        };
        opening.into_iter().chain(peer).min()
    }

    fn too_late(&self) -> String {
        let what = match &self.phase {
            _ if self.outgoing && !self.told => "did not let us in",
            Phase::Receiving(_) => "sent its body too slowly",
            _ if self.packet_since.is_some() => "did not finish a packet",
            _ => "was silent for longer than its keep-alive allows",
        };
        format!("the peer {what} in time")
    }

    async fn end(mut self, end: End) {
        // What the protocol still says, such as why a connection is refused.
        self.wire.farewell();
        let _ = self.pump();
        let (reason, in_order) = match end {
            End::Left => ("the peer left".to_owned(), true),
            End::Reason(reason) => (reason, false),
        };
        let fault = Fault::new(code::NETWORK, format!("the link was closed: {reason}"));
        if let Phase::Receiving(reception) = self.phase {
            reception.fail(fault.clone()).await;
        }
        for (_, load) in self.loads.drain() {
            load.done.give(Err(fault.clone()));
        }
        drop(self.stuck.take());
        drop(self.commands);
        self.wire.ended(in_order).await;
        self.writer.end(!self.body_leaves).await;
        if let Audience::Known(events) = self.audience
            && (self.told || self.outgoing)
        {
            for event in self.held.drain(..).chain([LinkEvent::Closed(reason)]) {
                // Nobody listens: then nobody needs to know.
                if events.send(event).await.is_err() {
                    break;
                }
            }
        }
    }
}

const NOBODY: &str = "nobody takes the events of the link any more";

/// Waits until events can be handed over, or nobody takes them any more. While none wait, only for the latter.
async fn room(events: Option<Sender<LinkEvent>>, wanted: bool) -> Result<(), End> {
    let Some(events) = events else { return std::future::pending().await };
    if !wanted {
        events.closed().await;
    } else if events.room().await {
        return Ok(());
    }
    Err(End::Reason(NOBODY.to_owned()))
}

thread_local! {
    /// Where bytes are read to before it is known how many there are.
    static WINDOW: RefCell<[u8; READ]> = const { RefCell::new([0; READ]) };
}

/// Reads what has come: a body into the room that there is, all else by way of a window that links share. `None`: nothing
/// yet, but something was begun, or came to nothing. Cancel safe.
async fn read<R: Inlet>(reader: &mut R, input: &mut BytesMut, body: bool) -> std::io::Result<Option<usize>> {
    if body {
        return reader.read_buf(input).await.map(Some);
    }
    let within = reader.is_within();
    poll_fn(|context| {
        WINDOW.with_borrow_mut(|window| {
            let mut into = ReadBuf::new(window);
            match Pin::new(&mut *reader).poll_read(context, &mut into)? {
                Poll::Pending if reader.is_within() != within => return Poll::Ready(Ok(None)),
                polled => ready!(polled),
            }
            input.extend_from_slice(into.filled());
            Poll::Ready(Ok(Some(into.filled().len())))
        })
    })
    .await
}

async fn work(phase: &mut Phase) -> Progress {
    match phase {
        Phase::Receiving(reception) => reception.work().await,
        _ => std::future::pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
