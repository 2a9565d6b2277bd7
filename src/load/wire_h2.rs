//! Event streams over HTTP/2: a task a connection, at the level of frames.
//!
//! Invariant: whatever it waits for, it goes on reading and writing.

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    io,
};

use bytes::{BufMut as _, BytesMut};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf},
    sync::{mpsc, oneshot},
};

use super::{
    frames::{self, Frame, MAX_WINDOW, TooLarge, flag, kind},
    ledger::Subscriber,
    seat::{Opening, Order, Seat},
    stopped,
};
use crate::client::Stream;

/// How much it reads at a time.
const READ: usize = 64 << 10;
/// How much may be read before the window is opened again.
const WINDOW_SLACK: u32 = MAX_WINDOW / 2;
/// How much of a refusal is kept, to say it.
const DETAIL: usize = 512;
/// Streams without a word of the server on how many it grants.
const UNTOLD: u32 = u32::MAX;

/// Drives a connection until it is told to stop.
pub(super) async fn drive(
    wire: Box<dyn Stream>,
    mut seat: Seat,
    mut orders: mpsc::Receiver<Order>,
    leave: oneshot::Sender<Vec<Subscriber>>,
) {
    let (read, write) = tokio::io::split(wire);
    let mut driver = Driver::new(seat.clone());
    tokio::select! {
        ended = driver.run(read, write, &mut orders) => {
            let Err(why) = ended;
            driver.lost(&why);
        }
        () = stopped(&mut seat.stop) => {}
    }
    // Nobody counts them if the run was cut short.
    let _: Result<(), _> = leave.send(driver.into_subscribers());
}

const CLOSED: &str = "the server closed the connection";

fn lost(error: &io::Error) -> String {
    match error.kind() {
        // TLS without a farewell.
        io::ErrorKind::UnexpectedEof => CLOSED.into(),
        _ => format!("connection lost: {error}"),
    }
}

/// Writes what there is, and sends it on its way. Cancel-safe: what is written is no longer in the buffer.
async fn push(write: &mut WriteHalf<Box<dyn Stream>>, output: &mut BytesMut) -> io::Result<()> {
    write.write_all_buf(output).await?;
    write.flush().await
}

/// What a stream is for.
#[derive(Debug)]
enum Use {
    /// Asked for at this moment; the head has not come.
    Asked(Subscriber, u64),
    /// How much of its window is used up.
    Open(Subscriber, u32),
    /// An answer with an error, whose text is being read.
    Refused(Subscriber, u16, Vec<u8>),
    /// An ordinary request that was due at this moment, and the status of its answer.
    Request(u64, u16),
}

/// What waits to be asked for.
#[derive(Debug)]
enum Wish {
    Stream(Subscriber),
    Request(u64),
}

struct Driver {
    seat: Seat,
    output: BytesMut,
    /// Whether something is to be written, or may not be on its way.
    unflushed: bool,
    uses: HashMap<u32, Use>,
    next: u32,
    wishes: VecDeque<Wish>,
    /// How many streams the server grants; `None` before it has said so.
    granted: Option<u32>,
    opening: Opening,
    /// How many streams are asked for and have no answer.
    asked: usize,
    /// How many streams are not open yet, and whom it is told when all are.
    unopened: usize,
    opened: Option<oneshot::Sender<()>>,
    /// Whether a request is followed by another.
    again: bool,
    /// How much of the connection's window is used up.
    used_window: u32,
    left: Vec<Subscriber>,
}

impl Driver {
    fn new(seat: Seat) -> Self {
        let mut output = BytesMut::new();
        frames::put_hello(&mut output);
        Self {
            seat,
            output,
            unflushed: true,
            uses: HashMap::new(),
            next: 1,
            wishes: VecDeque::new(),
            granted: None,
            opening: Opening::Together,
            asked: 0,
            unopened: 0,
            opened: None,
            again: false,
            used_window: 0,
            left: Vec::new(),
        }
    }

    /// Comes back when the connection is lost.
    async fn run(
        &mut self,
        mut read: ReadHalf<Box<dyn Stream>>,
        mut write: WriteHalf<Box<dyn Stream>>,
        orders: &mut mpsc::Receiver<Order>,
    ) -> Result<Infallible, String> {
        let mut input = BytesMut::new();
        loop {
            input.reserve(READ);
            tokio::select! {
                read = read.read_buf(&mut input) => {
                    if read.map_err(|error| lost(&error))? == 0 {
                        return Err(CLOSED.into());
                    }
                    self.take(&mut input)?;
                }
                wrote = push(&mut write, &mut self.output), if self.unflushed => {
                    wrote.map_err(|error| lost(&error))?;
                    self.unflushed = !self.output.is_empty();
                }
                Some(order) = orders.recv() => self.follow(order),
            }
            self.ask();
            self.unflushed |= !self.output.is_empty();
        }
    }

    fn follow(&mut self, order: Order) {
        match order {
            Order::Open {
                subscribers,
                opening,
                opened,
            } => {
                self.opening = opening;
                self.unopened += subscribers.len();
                self.opened = Some(opened);
                self.wishes
                    .extend(subscribers.into_iter().map(Wish::Stream));
                self.tell_opened();
            }
            Order::Request { due } => self.wishes.push_back(Wish::Request(due)),
            Order::Requests { at_a_time } => {
                self.again = true;
                let now = self.seat.ledger.now();
                self.wishes
                    .extend((0..at_a_time).map(|_| Wish::Request(now)));
            }
        }
    }

    /// Asks for what is wished and granted.
    fn ask(&mut self) {
        let Some(granted) = self.granted else { return };
        while let Some(wish) = self.wishes.front() {
            let is_stream = matches!(wish, Wish::Stream(_));
            if is_stream && self.opening == Opening::Paced && self.asked > 0 {
                return;
            }
            if self.uses.len() >= granted as usize {
                let wanted = self.uses.len() + self.wishes.len();
                let is_request = |use_: &Use| matches!(use_, Use::Request(..));
                if is_stream {
                    self.seat.ledger.trouble(|| {
                        format!(
                            "the server grants {granted} streams a connection, and {wanted} were asked for; \
                             take more connections with fewer streams"
                        )
                    });
                } else if !self.uses.values().any(is_request) {
                    self.seat.ledger.trouble(|| {
                        format!(
                            "the server grants {granted} streams a connection, and event streams have them all; \
                             take fewer streams on more connections to have room for ordinary requests"
                        )
                    });
                }
                return;
            }
            let Some(wish) = self.wishes.pop_front() else {
                return;
            };
            self.asked += usize::from(is_stream);
            self.ask_for(wish);
        }
    }

    fn ask_for(&mut self, wish: Wish) {
        let destination = &self.seat.destination;
        let (path, id) = match &wish {
            Wish::Stream(subscriber) => {
                (destination.path(subscriber), subscriber.scanner.last_id())
            }
            Wish::Request(_) => (destination.request.clone(), &b""[..]),
        };
        let mut fields: Vec<(&str, &[u8])> = Vec::new();
        if matches!(wish, Wish::Stream(_)) {
            fields.push(("accept", b"text/event-stream"));
        }
        if !id.is_empty() {
            fields.push(("last-event-id", id));
        }
        let origin = &destination.origin;
        let (secure, authority) = (origin.is_secure(), origin.authority());
        frames::put_get(
            &mut self.output,
            self.next,
            secure,
            &authority,
            &path,
            &fields,
        );
        let use_ = match wish {
            Wish::Stream(subscriber) => Use::Asked(subscriber, self.seat.ledger.now()),
            Wish::Request(due) => Use::Request(due, 0),
        };
        self.uses.insert(self.next, use_);
        self.next += 2;
    }

    /// Takes all whole frames of the input.
    fn take(&mut self, input: &mut BytesMut) -> Result<(), String> {
        let now = self.seat.ledger.now();
        loop {
            match Frame::take(input) {
                Ok(None) => return Ok(()),
                Ok(Some(frame)) => self.take_frame(&frame, now)?,
                Err(TooLarge(length)) => {
                    return Err(format!("the server sent a frame of {length} bytes"));
                }
            }
        }
    }

    fn take_frame(&mut self, frame: &Frame, now: u64) -> Result<(), String> {
        match frame.kind {
            kind::DATA => {
                self.used_window += frame.payload.len() as u32;
                if self.used_window > WINDOW_SLACK {
                    frames::put_window(&mut self.output, 0, self.used_window);
                    self.used_window = 0;
                }
                self.take_data(frame, now);
            }
            kind::HEADERS => self.take_head(frame)?,
            kind::SETTINGS if !frame.has(flag::ACK) => {
                let granted = frame.granted_streams().or(self.granted);
                self.granted = Some(granted.unwrap_or(UNTOLD));
                frames::put(&mut self.output, kind::SETTINGS, flag::ACK, 0, &[]);
            }
            kind::PING if !frame.has(flag::ACK) => {
                frames::put(&mut self.output, kind::PING, flag::ACK, 0, &frame.payload);
            }
            kind::RST_STREAM => {
                let code = code(&frame.payload);
                if let Some(use_) = self.uses.remove(&frame.stream) {
                    self.end(use_, || {
                        format!("the server reset a stream with code {code}")
                    });
                }
            }
            kind::GOAWAY => {
                let code = code(frame.payload.get(4..).unwrap_or_default());
                let text = String::from_utf8_lossy(frame.payload.get(8..).unwrap_or_default());
                return Err(format!("the server said GOAWAY with code {code} {text}"));
            }
            _ => {}
        }
        Ok(())
    }

    fn take_head(&mut self, frame: &Frame) -> Result<(), String> {
        let Some(use_) = self.uses.remove(&frame.stream) else {
            return Ok(());
        };
        let trailers = match use_ {
            Use::Open(..) | Use::Refused(..) => true,
            Use::Request(_, status) => status != 0,
            Use::Asked(..) => false,
        };
        let status = match frames::status(frame.content()) {
            Some(status) => status,
            None if trailers => 0,
            None => return Err("the server sent an answer without a status".into()),
        };
        let use_ = match use_ {
            // More is to come after an informational answer (RFC 9110, section 15.2).
            Use::Asked(..) if status < 200 => use_,
            Use::Asked(subscriber, asked) if status == 200 => {
                self.seat.ledger.opened(asked);
                self.asked -= 1;
                self.unopened -= 1;
                self.tell_opened();
                Use::Open(subscriber, 0)
            }
            Use::Asked(subscriber, _) => Use::Refused(subscriber, status, Vec::new()),
            Use::Request(due, 0) if status >= 200 => Use::Request(due, status),
            other => other,
        };
        self.uses.insert(frame.stream, use_);
        self.end_if_last(frame);
        Ok(())
    }

    fn take_data(&mut self, frame: &Frame, now: u64) {
        let Some(use_) = self.uses.get_mut(&frame.stream) else {
            return;
        };
        let content = frame.content();
        match use_ {
            Use::Open(subscriber, used) => {
                let Seat { shard, ledger, .. } = &self.seat;
                subscriber.take(content, now, *shard, ledger);
                *used += frame.payload.len() as u32;
                if *used > WINDOW_SLACK {
                    frames::put_window(&mut self.output, frame.stream, *used);
                    *used = 0;
                }
            }
            Use::Refused(_, _, detail) => {
                let room = DETAIL.saturating_sub(detail.len());
                detail.put_slice(&content[..content.len().min(room)]);
            }
            Use::Asked(..) | Use::Request(..) => {}
        }
        self.end_if_last(frame);
    }

    fn end_if_last(&mut self, frame: &Frame) {
        if frame.has(flag::END_STREAM)
            && let Some(use_) = self.uses.remove(&frame.stream)
        {
            match use_ {
                Use::Request(due, status) if status != 0 => self.answered(due, status),
                Use::Open(ref subscriber, _) => {
                    let why = subscriber.end();
                    self.end(use_, || why);
                }
                _ => self.end(use_, || "the server ended a stream".into()),
            }
        }
    }

    /// An ordinary request has its whole answer.
    fn answered(&mut self, due: u64, status: u16) {
        let ledger = &self.seat.ledger;
        ledger.answered(self.seat.shard, due, (200..400).contains(&status));
        if self.again {
            self.wishes.push_back(Wish::Request(ledger.now()));
        }
    }

    /// A stream has ended before its time.
    fn end(&mut self, use_: Use, why: impl FnOnce() -> String) {
        let ledger = &self.seat.ledger;
        let subscriber = match use_ {
            Use::Request(..) => {
                return ledger.trouble(|| format!("an ordinary request: {}", why()));
            }
            Use::Open(subscriber, _) => {
                ledger.ended(true, why);
                subscriber
            }
            Use::Asked(subscriber, _) => {
                ledger.ended(false, why);
                subscriber
            }
            Use::Refused(subscriber, status, detail) => {
                ledger.ended(false, || super::refusal(status, &detail));
                subscriber
            }
        };
        self.left.push(subscriber);
    }

    /// The connection is gone, and with it all that goes on.
    fn lost(&mut self, why: &str) {
        for (_, use_) in std::mem::take(&mut self.uses) {
            self.end(use_, || why.to_owned());
        }
        self.seat.ledger.trouble(|| why.to_owned());
        self.opened = None;
    }

    fn tell_opened(&mut self) {
        if self.unopened == 0
            && let Some(opened) = self.opened.take()
        {
            // Nobody waits any more if the run was cut short.
            let _: Result<(), ()> = opened.send(());
        }
    }

    fn into_subscribers(self) -> Vec<Subscriber> {
        let ledger = &self.seat.ledger;
        let in_use = self.uses.into_values().filter_map(|use_| match use_ {
            Use::Open(subscriber, _) => {
                ledger.left(1);
                Some(subscriber)
            }
            Use::Asked(subscriber, _) | Use::Refused(subscriber, ..) => Some(subscriber),
            Use::Request(..) => None,
        });
        let waiting = self.wishes.into_iter().filter_map(|wish| match wish {
            Wish::Stream(subscriber) => Some(subscriber),
            Wish::Request(_) => None,
        });
        self.left.into_iter().chain(in_use).chain(waiting).collect()
    }
}

/// An error code (section 7), as a number.
fn code(payload: &[u8]) -> u32 {
    payload
        .first_chunk()
        .map_or(0, |code| u32::from_be_bytes(*code))
}
