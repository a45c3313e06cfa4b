//! What an origin says to operators: the cluster as it sees it, as JSON.

use std::sync::Arc;

use fabric::v1::ClusterStatus;
use serde_json::{Value, json};

use crate::hub::Hub;
use crate::raft::Desk;

/// Streams that are listed. Who has more of them looks at the metrics.
const STREAMS_MAX: usize = 1000;

/// The cluster as this origin sees it.
pub(crate) async fn told(desk: &Desk, hub: &Arc<Hub>) -> String {
    let status = match desk.status(false).await {
        Ok(status) => status,
        Err(status) => return format!("{}\n", json!({"error": status.message()})),
    };
    let streams = desk.streams(STREAMS_MAX).await.unwrap_or_default();
    let streams: Vec<Value> = streams
        .iter()
        .map(|(key, state)| {
            json!({
                "stream": key.to_string(),
                "epoch": state.epoch.0,
                "edge": state.holder.as_ref().map(|holder| holder.edge.as_str()),
                "origin": state.origin.as_ref().map(|origin| origin.as_str()),
            })
        })
        .collect();
    let edges: Vec<Value> = hub
        .edges()
        .iter()
        .map(|(edge, load)| {
            json!({
                "edge": edge.as_str(),
                "connections": load.connections,
                "viewers": load.viewers,
                "published": load.published,
                "watched": load.watched,
            })
        })
        .collect();
    let told = json!({
        "node": status.name,
        "role": "origin",
        "term": status.term,
        "committed": status.committed,
        "applied": status.applied,
        "origins": members(&status),
        "edges": edges,
        "streams": streams,
    });
    format!("{told}\n")
}

fn members(status: &ClusterStatus) -> Vec<Value> {
    let leads = status.leader == status.node;
    let members = status.members.iter();
    members
        .map(|member| {
            let role = match (member.node == status.leader, member.voter) {
                (true, _) => "leader",
                (false, true) => "voter",
                (false, false) => "learner",
            };
            // Only the leader knows how far the others are.
            let lag = leads.then(|| status.last.saturating_sub(member.matched));
            json!({
                "name": member.name,
                "number": member.node,
                "address": member.address,
                "role": role,
                "active": leads.then_some(member.active),
                "lag": lag,
            })
        })
        .collect()
}
