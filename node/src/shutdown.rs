//! How a process ends: the first signal drains, the second ends at once.
//!
//! A [`Drain`] is handed to everything that accepts work. Whoever holds a connection holds a
//! [`Guard`]; the process waits until the guards are gone or the grace time is over.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! use node::shutdown::Drain;
//! use std::time::Duration;
//!
//! let drain = Drain::new();
//! let connection = drain.guard();
//! let served = tokio::spawn({
//!     let draining = drain.draining();
//!     async move {
//!         draining.await; // stop accepting, tell the peer to go elsewhere
//!         drop(connection);
//!     }
//! });
//! drain.start();
//! assert_eq!(drain.idle_within(Duration::from_secs(30)).await, Ok(()));
//! # served.await.unwrap();
//! # }
//! ```

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The wish that this process stops taking new work, and the count of the work it still has.
///
/// Clones are the same drain.
#[derive(Debug, Clone)]
pub struct Drain {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    draining: watch::Sender<bool>,
    guards: watch::Sender<usize>,
}

impl Drain {
    /// A drain that has not started.
    pub fn new() -> Self {
        let inner = Inner {
            draining: watch::Sender::new(false),
            guards: watch::Sender::new(0),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Starts draining. Starting twice is starting once.
    pub fn start(&self) {
        self.inner.draining.send_replace(true);
    }

    /// Whether draining has started.
    pub fn is_draining(&self) -> bool {
        *self.inner.draining.borrow()
    }

    /// Resolves when draining starts, at once when it already has.
    pub fn draining(&self) -> impl Future<Output = ()> + Send + 'static {
        let this = self.clone();
        async move {
            // The sender lives as long as `this`, so waiting cannot fail.
            let _ = this
                .inner
                .draining
                .subscribe()
                .wait_for(|draining| *draining)
                .await;
        }
    }

    /// Counts one piece of work, such as a connection, until the guard is dropped.
    pub fn guard(&self) -> Guard {
        self.inner.guards.send_modify(|guards| *guards += 1);
        Guard {
            drain: self.clone(),
        }
    }

    /// How many guards are held.
    pub fn guards(&self) -> usize {
        *self.inner.guards.borrow()
    }

    /// Resolves when no guard is held. Work that arrives later is not waited for.
    pub fn idle(&self) -> impl Future<Output = ()> + Send + 'static {
        let this = self.clone();
        async move {
            let _ = this
                .inner
                .guards
                .subscribe()
                .wait_for(|guards| *guards == 0)
                .await;
        }
    }

    /// Waits for [`Drain::idle`], at most for `grace`.
    ///
    /// # Errors
    /// How many guards are still held when the grace is over.
    pub async fn idle_within(&self, grace: Duration) -> Result<(), usize> {
        match tokio::time::timeout(grace, self.idle()).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.guards()),
        }
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self::new()
    }
}

/// One piece of work that a draining process waits for.
#[derive(Debug)]
#[must_use = "work is counted only while its guard lives"]
pub struct Guard {
    drain: Drain,
}

impl Guard {
    /// The drain that this guard belongs to.
    pub fn drain(&self) -> &Drain {
        &self.drain
    }
}

impl Clone for Guard {
    fn clone(&self) -> Self {
        self.drain.guard()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.drain.inner.guards.send_modify(|guards| *guards -= 1);
    }
}

/// Starts `drain` at the first SIGTERM or SIGINT and ends the process at the second, with the
/// status that a shell would show for the signal (143 or 130).
///
/// # Errors
/// The system refuses the handlers.
pub fn on_signals(drain: Drain) -> io::Result<JoinHandle<()>> {
    on_signals_or(drain, |status| std::process::exit(status))
}

fn on_signals_or(
    drain: Drain,
    end: impl FnOnce(i32) + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(tokio::spawn(async move {
        let mut next = async move || {
            tokio::select! {
                _ = terminate.recv() => ("SIGTERM", 143),
                _ = interrupt.recv() => ("SIGINT", 130),
            }
        };
        let (name, _) = next().await;
        tracing::info!(
            signal = name,
            "draining; a second signal ends the process at once"
        );
        drain.start();
        let (name, status) = next().await;
        tracing::warn!(signal = name, left = drain.guards(), "ending at once");
        end(status);
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everyone_who_waits_and_everyone_who_comes_later_learns_of_the_drain() {
        let drain = Drain::new();
        let waiting = tokio::spawn(drain.clone().draining());
        assert!(!drain.is_draining());
        drain.start();
        drain.start();
        waiting.await.unwrap();
        drain.draining().await;
        assert!(drain.is_draining());
    }

    #[tokio::test(start_paused = true)]
    async fn the_grace_ends_with_the_count_of_what_is_left() {
        let drain = Drain::new();
        let one = drain.guard();
        let two = one.clone();
        assert_eq!(drain.guards(), 2);
        assert_eq!(drain.idle_within(Duration::from_secs(30)).await, Err(2));
        drop(one);
        assert_eq!(drain.idle_within(Duration::from_secs(30)).await, Err(1));
        let idle = tokio::spawn(drain.idle());
        drop(two);
        idle.await.unwrap();
        assert_eq!(drain.idle_within(Duration::ZERO).await, Ok(()));
    }

    #[tokio::test]
    async fn the_first_signal_drains_and_the_second_ends() {
        let kill = |signal: &str| {
            let command = format!("kill -{signal} {}", std::process::id());
            let status = std::process::Command::new("sh")
                .args(["-c", &command])
                .status();
            assert!(status.unwrap().success());
        };
        let drain = Drain::new();
        let (ended, end) = tokio::sync::oneshot::channel();
        let task = on_signals_or(drain.clone(), |status| ended.send(status).unwrap()).unwrap();
        kill("TERM");
        drain.draining().await;
        kill("INT");
        assert_eq!(end.await.unwrap(), 130);
        task.await.unwrap();
    }
}
