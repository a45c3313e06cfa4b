//! What an edge says to operators.

use std::sync::{Arc, OnceLock};

use model::EdgeId;
use node::admin::{Admin, NotFollowed};
use node::shutdown::Drain;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};

use crate::accept::Permits;
use crate::follow::Asked;
use crate::limits::{TRACE_FRAMES_MAX, TRACE_PATIENCE};
use crate::metrics;
use crate::shard::{ShardHandle, ToShard};
use crate::upstream::Reachable;

/// What operators see of an edge, which is bound before it runs.
#[derive(Clone)]
pub(crate) struct Operators {
    id: EdgeId,
    drain: Drain,
    running: Arc<OnceLock<Running>>,
}

struct Running {
    shards: Vec<ShardHandle>,
    permits: Permits,
    origins: watch::Receiver<Reachable>,
}

impl Operators {
    pub(crate) fn new(id: EdgeId, drain: Drain) -> Self {
        Self {
            id,
            drain,
            running: Arc::default(),
        }
    }

    /// The edge runs.
    pub(crate) fn run(
        &self,
        shards: Vec<ShardHandle>,
        permits: Permits,
        origins: watch::Receiver<Reachable>,
    ) {
        let running = Running {
            shards,
            permits,
            origins,
        };
        // It runs once.
        let _ = self.running.set(running);
    }

    /// What they are shown and may do.
    pub(crate) fn admin(&self) -> Admin {
        let (asked, counted, following) = (self.clone(), self.clone(), self.clone());
        Admin {
            drain: self.drain.clone(),
            left: Arc::new(move || {
                let running = counted.running.get();
                running.map_or(0, |running| running.permits.held())
            }),
            status: Arc::new(move || {
                let asked = asked.clone();
                Box::pin(async move { asked.told().await })
            }),
            follow: Some(Arc::new(move |stream, frames| {
                let following = following.clone();
                Box::pin(async move { following.follow(stream, frames).await })
            })),
        }
    }

    /// Has the next key frames of a stream traced, and waits for them.
    async fn follow(&self, stream: String, frames: u32) -> Result<String, NotFollowed> {
        let running = self.running.get();
        let shards = running.map_or(&[][..], |running| &running.shards);
        if !node::telemetry::is_traced() {
            let why =
                "this edge exports no traces: set trace.endpoint, or OTEL_EXPORTER_OTLP_ENDPOINT";
            return Err(NotFollowed::Wrong(why.into()));
        }
        if !(1..=TRACE_FRAMES_MAX).contains(&frames) {
            let why = format!("frames: {frames} is not a number from 1 to {TRACE_FRAMES_MAX}");
            return Err(NotFollowed::Wrong(why));
        }
        let (tell, mut told) = mpsc::unbounded_channel();
        let stream: Arc<str> = stream.into();
        let answers: Vec<_> = shards
            .iter()
            .map(|shard| {
                let (answer, answered) = oneshot::channel();
                shard.send(ToShard::Trace {
                    stream: stream.clone(),
                    asked: Asked {
                        frames,
                        tell: tell.clone(),
                    },
                    answer,
                });
                answered
            })
            .collect();
        drop(tell);
        let mut taken = false;
        for answered in answers {
            taken |= answered.await.unwrap_or_default();
        }
        if !taken {
            let why = format!(
                "{stream} is not published at {}, or too many ask for it; selvage status at an \
                 origin says where each stream is published",
                self.id
            );
            return Err(NotFollowed::Unknown(why));
        }
        let mut traces = Vec::new();
        let all = async {
            while let Some(trace) = told.recv().await {
                traces.push(trace);
                if traces.len() >= frames as usize {
                    return;
                }
            }
        };
        // What has come by then is told.
        let in_time = tokio::time::timeout(TRACE_PATIENCE, all).await;
        if traces.is_empty() {
            let why = match in_time {
                Ok(()) => format!("the publisher of {stream} has left"),
                Err(_) => format!("no key frame of {stream} in {TRACE_PATIENCE:?}"),
            };
            return Err(NotFollowed::Late(why));
        }
        let told = json!({"stream": &*stream, "traces": traces});
        Ok(format!("{told}\n"))
    }

    async fn told(&self) -> String {
        let Some(running) = self.running.get() else {
            return format!("{}\n", json!({"error": "this edge starts"}));
        };
        let load = metrics::load(&running.shards, &running.permits).await;
        let origins: Vec<Value> = running
            .origins
            .borrow()
            .iter()
            .map(|origin| json!({"name": origin.as_str(), "link": "up"}))
            .collect();
        let told = json!({
            "node": self.id.as_str(),
            "role": "edge",
            "draining": self.drain.is_draining(),
            "connections": load.connections,
            "viewers": load.viewers,
            "published": load.published,
            "watched": load.watched,
            "origins": origins,
        });
        format!("{told}\n")
    }
}
