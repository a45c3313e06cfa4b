//! What an edge says to operators.

use std::sync::{Arc, OnceLock};

use model::EdgeId;
use node::admin::Admin;
use node::shutdown::Drain;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::accept::Permits;
use crate::metrics;
use crate::shard::ShardHandle;
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
        let (asked, counted) = (self.clone(), self.clone());
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
        }
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
