//! The thread that moves frames between the hosts' interfaces.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use tappers::Tap;

use crate::error::Error;
use crate::limits::{BURST_FRAMES, FRAME_BYTES_MAX};
use crate::wires::{Port, Wires};

/// The running switch of a lab; it stops with the value.
#[derive(Debug)]
pub(crate) struct Switch {
    /// The next host's interface. The switch ends when there can be no more.
    taps: Option<Sender<Tap>>,
    bell: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Switch {
    pub(crate) fn start(wires: Arc<Mutex<Wires>>) -> Result<Self, Error> {
        let what = "starting the switch";
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| Error::system(what, error.into()))?;
        let bell = Arc::new(bell);
        let (taps, coming) = channel();
        let heard = Arc::clone(&bell);
        let thread = std::thread::Builder::new()
            .name("netlab".to_owned())
            .spawn(move || run(&wires, &heard, &coming))
            .map_err(|error| Error::system(what, error))?;
        Ok(Self {
            taps: Some(taps),
            bell,
            thread: Some(thread),
        })
    }

    /// Plugs in a host. The first one has port 0, and so on.
    pub(crate) fn plug(&self, tap: Tap) {
        if let Some(taps) = &self.taps {
            // It listens as long as this value lives.
            let _listens = taps.send(tap);
        }
        self.ring();
    }

    fn ring(&self) {
        // A bell that rings already is as good.
        let _rings = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.taps = None;
        self.ring();
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

fn run(wires: &Mutex<Wires>, bell: &OwnedFd, coming: &Receiver<Tap>) {
    use std::sync::mpsc::TryRecvError;

    let mut taps: Vec<Tap> = Vec::new();
    let mut frame = [0; FRAME_BYTES_MAX];
    loop {
        let mut read = wait(bell, &taps, wires);
        if read.first() == Some(&true) {
            let mut rung = [0; 8];
            let _silent = rustix::io::read(bell, &mut rung);
        }
        loop {
            match coming.try_recv() {
                Ok(tap) => {
                    taps.push(tap);
                    read.push(true);
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return,
            }
        }
        let deliver = |to: Port, frame: &[u8]| {
            if let Some(tap) = taps.get(usize::from(to)) {
                // An interface that is down, or whose buffer is full, loses the frame.
                let _lost = tap.send(frame);
            }
        };
        let mut wires = wires.lock().unwrap_or_else(PoisonError::into_inner);
        for (port, tap) in taps.iter().enumerate() {
            if read.get(port + 1) != Some(&true) {
                continue;
            }
            let Ok(port) = Port::try_from(port) else {
                continue;
            };
            for _ in 0..BURST_FRAMES {
                let Ok(len) = tap.recv(&mut frame) else {
                    break;
                };
                wires.handle_frame(Instant::now(), port, &frame[..len], deliver);
            }
        }
        wires.poll_arrivals(Instant::now(), deliver);
    }
}

/// Waits until something can be done, and tells what can be read: the bell, then the
/// interfaces.
fn wait(bell: &OwnedFd, taps: &[Tap], wires: &Mutex<Wires>) -> Vec<bool> {
    let due = wires
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .poll_timeout();
    let timeout = due.map(|due| {
        let left = due.saturating_duration_since(Instant::now());
        Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        }
    });
    let sources = std::iter::once(bell.as_fd()).chain(taps.iter().map(AsFd::as_fd));
    let mut polled: Vec<_> = sources
        .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
        .collect();
    if poll(&mut polled, timeout.as_ref()).is_err() {
        // A signal: look again.
        return Vec::new();
    }
    polled
        .iter()
        .map(|fd| fd.revents().contains(PollFlags::IN))
        .collect()
}
