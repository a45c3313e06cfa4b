//! `selvage so trace`: the SharedObjectTracer.
//!
//! Every instance writes the time to a slot of its own now and then, and prints whatever
//! happens to the object. With several instances at several edges it shows whether they all
//! see one history, also while servers come and go.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use client::{MultiConnection, SoOutcome};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{Manner, Object, check, sleep_until, warn};
use crate::exit::Failure;
use crate::remote::seconds;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Flags {
    /// rtmp://host[:port]/app[/instance], or rtmps://; one or several.
    #[arg(value_name = "URL", required = true)]
    urls: Vec<String>,
    /// The object.
    #[arg(long, value_name = "NAME", default_value = "trace")]
    name: String,
    /// The slot of this instance; otherwise Object_ and a number below 100.
    #[arg(long, value_name = "SLOT")]
    slot: Option<String>,
    /// Seconds between two time stamps.
    #[arg(long, value_name = "S", default_value = "7.5", value_parser = seconds)]
    every: Duration,
    /// Stop after so many seconds.
    #[arg(long, value_name = "S", value_parser = seconds)]
    duration: Option<Duration>,
    #[command(flatten)]
    manner: Manner,
}

pub(super) async fn run(flags: &Flags) -> Result<(), Failure> {
    if flags.every.is_zero() {
        return Err(Failure::Usage("--every must be more than 0".to_owned()));
    }
    let slot = flags.slot.clone().unwrap_or_else(|| {
        let number = RandomState::new().hash_one(std::process::id()) % 100;
        format!("Object_{number}")
    });
    let urls: Vec<&str> = flags.urls.iter().map(String::as_str).collect();
    let mut object = Object::open(&urls, &flags.name, &flags.manner).await?;
    warn(&format!("this is {slot} of {}", flags.name));
    let path = format!("{}.data.{slot}", flags.name);
    let until = flags.duration.map(|time| Instant::now() + time);
    let mut clock = interval(flags.every);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut writes = JoinSet::new();
    loop {
        tokio::select! {
            () = sleep_until(until) => return object.close().await,
            event = object.next() => object.print(&event?)?,
            _ = clock.tick() => {
                writes.spawn(stamp(object.mc.clone(), path.clone()));
            }
            Some(written) = writes.join_next() => match written {
                // While no server is there, each new stamp takes the place of the one before.
                Ok(Ok(SoOutcome::Success { .. } | SoOutcome::Replaced)) => {}
                Ok(Ok(outcome)) => {
                    if let Err(failure) = check(&slot, &outcome) {
                        warn(&failure.to_string());
                    }
                }
                Ok(Err(error)) => warn(&format!("{slot}: {error}")),
                Err(error) => warn(&format!("{slot}: {error}")),
            },
        }
    }
}

/// Writes the milliseconds since 1970.
async fn stamp(mc: MultiConnection, path: String) -> Result<SoOutcome, client::Error> {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let millis = (since.as_secs_f64() * 1000.0).round();
    mc.set_so_value(&path, millis.into()).await
}
