//! The figures of an origin: what its hub has counted, and how its seat in the cluster stands.

use std::sync::Arc;

use model::StreamKey;
use node::metrics::{About, Metrics, Named, PerStream, SECONDS, Settings, catch_up, level};
use tokio::sync::watch;

use crate::hub::Hub;
use crate::log::worker::Timing;
use crate::raft::{Commits, Desk, Lead};
use crate::service::peers::Board;

/// How long the disk takes.
pub(crate) fn timing(metrics: &Metrics) -> Timing {
    Timing {
        append: metrics.histogram(
            "selvage_raft_append_seconds",
            "Writing and syncing what waited for the log.",
            SECONDS,
        ),
        sync: metrics.histogram(
            "selvage_raft_sync_seconds",
            "The sync (fsync) that makes what was written to the log durable.",
            SECONDS,
        ),
        save: metrics.histogram(
            "selvage_raft_snapshot_save_seconds",
            "Writing a state of the log to the disk.",
            SECONDS,
        ),
    }
}

/// What passes through the hub.
pub(crate) fn of_hub(metrics: &Metrics, hub: &Arc<Hub>) {
    let links = metrics.gauge("selvage_links", "Media links of edges.");
    let streams = metrics.gauge(
        "selvage_origin_streams",
        "Streams that are published or watched here.",
    );
    let published = metrics.gauge(
        "selvage_origin_streams_published",
        "Streams that are published here, or in their grace.",
    );
    let backlog = metrics.gauge(
        "selvage_origin_backlog_bytes",
        "What the backlogs of all streams cost.",
    );
    let frames = metrics.counters(
        "selvage_origin_frames_total",
        "Media frames: taken into a backlog, sent, ignored because they came twice or for no \
         publication, skipped because an edge lagged.",
        &["what"],
    );
    let bytes = metrics.counters(
        "selvage_origin_media_bytes_total",
        "Payload of media frames.",
        &["direction"],
    );
    let batches = metrics.counter(
        "selvage_origin_batches_sent_total",
        "Batches of frames sent to edges.",
    );
    let shed = metrics.counter(
        "selvage_origin_backlogs_shed_total",
        "Backlogs dropped because the bound on all of them was reached.",
    );
    let faulted = metrics.counter(
        "selvage_origin_links_faulted_total",
        "Links ended because of what the edge sent.",
    );
    let hub = Arc::clone(hub);
    metrics.on_scrape(move || {
        links.set(level(hub.links()));
        streams.set(level(hub.streams()));
        published.set(level(hub.published()));
        backlog.set(level(hub.bytes()));
        let counted = hub.counters();
        for (what, counter) in [
            ("taken", &counted.frames_in),
            ("sent", &counted.frames_out),
            ("ignored", &counted.frames_ignored),
            ("skipped", &counted.frames_skipped),
        ] {
            catch_up(&frames.with_label_values(&[what]), counter.get());
        }
        for (direction, counter) in [("in", &counted.bytes_in), ("out", &counted.bytes_out)] {
            catch_up(&bytes.with_label_values(&[direction]), counter.get());
        }
        catch_up(&batches, counted.batches_out.get());
        catch_up(&shed, counted.backlogs_shed.get());
        catch_up(&faulted, counted.links_faulted.get());
        std::future::ready(())
    });
}

/// Single streams, if somebody wants that.
pub(crate) fn of_streams(metrics: &Metrics, settings: Settings, hub: &Arc<Hub>) {
    let about = [
        About {
            name: "selvage_stream_published",
            help: "1 while this stream is published here, or in its grace.",
            grows: false,
        },
        About {
            name: "selvage_stream_edges",
            help: "Edges that take this stream from here.",
            grows: false,
        },
        About {
            name: "selvage_stream_frames_total",
            help: "Media frames that were taken into the backlog of this stream.",
            grows: true,
        },
        About {
            name: "selvage_stream_media_bytes_total",
            help: "Payload of the frames of this stream.",
            grows: true,
        },
    ];
    let Some(streams) = PerStream::new(metrics, settings, about) else {
        return;
    };
    let hub = Arc::clone(hub);
    metrics.on_scrape(move || {
        let present = hub.each_stream().into_iter().map(|(key, figures)| {
            let values = [
                u64::from(figures.published),
                figures.edges as u64,
                figures.frames,
                figures.bytes,
            ];
            (named(&key), values)
        });
        streams.show(&present.collect());
        std::future::ready(())
    });
}

fn named(key: &StreamKey) -> Named {
    Named {
        vhost: key.at.vhost.to_string(),
        app: key.at.app.to_string(),
        instance: key.at.instance.to_string(),
        stream: key.name.to_string(),
    }
}

/// What is committed.
pub(crate) fn commits(metrics: &Metrics) -> Commits {
    let seconds = metrics.histogram(
        "selvage_raft_commit_seconds",
        "On the leader: from giving an entry to the disk and to the others to carrying it out.",
        SECONDS,
    );
    let objects = metrics.counter(
        "selvage_object_changes_total",
        "Changes of SharedObjects that were carried out here, as on every origin.",
    );
    Commits::new(seconds, objects)
}

/// How the seat in the cluster stands.
pub(crate) fn of_raft(metrics: &Metrics, desk: &Desk, lead: &watch::Receiver<Lead>) {
    let running = metrics.gauge(
        "selvage_raft_member",
        "1 when this origin takes part in the cluster.",
    );
    let leads = metrics.gauge("selvage_raft_leader", "1 when this origin leads.");
    let known = metrics.gauge(
        "selvage_raft_leader_known",
        "1 when a leader is known here.",
    );
    let term = metrics.gauge("selvage_raft_term", "The term of the log.");
    let index = metrics.gauges(
        "selvage_raft_index",
        "The newest entry here: in the log, known to be decided, carried out.",
        &["state"],
    );
    let members = metrics.gauges(
        "selvage_raft_members",
        "Members of the cluster that vote, and that only learn.",
        &["role"],
    );
    let lag = metrics.gauge(
        "selvage_raft_follower_lag_entries",
        "How far the last of the members is behind the leader; on the leader alone.",
    );
    let queued = metrics.gauge(
        "selvage_raft_commands_queued",
        "Commands that wait to be proposed here.",
    );
    let attached = metrics.gauge("selvage_edges_attached", "Edges that are attached here.");
    let ledger = metrics.gauges(
        "selvage_ledger_entries",
        "What the replicated state holds.",
        &["kind"],
    );
    let weight = metrics.gauge(
        "selvage_ledger_object_bytes",
        "What all SharedObjects weigh.",
    );
    let (desk, lead) = (desk.clone(), lead.clone());
    metrics.on_scrape(move || {
        let desk = desk.clone();
        let Lead { leader, here, .. } = *lead.borrow();
        leads.set(i64::from(here));
        known.set(i64::from(leader.is_some()));
        let (running, term, lag, queued) =
            (running.clone(), term.clone(), lag.clone(), queued.clone());
        let (index, members, attached) = (index.clone(), members.clone(), attached.clone());
        let (ledger, weight) = (ledger.clone(), weight.clone());
        async move {
            let Ok(status) = desk.status(false).await else {
                running.set(0);
                return;
            };
            running.set(i64::from(!status.blank));
            term.set(level(status.term));
            for (state, at) in [
                ("last", status.last),
                ("committed", status.committed),
                ("applied", status.applied),
            ] {
                index.with_label_values(&[state]).set(level(at));
            }
            let voters = status.members.iter().filter(|member| member.voter).count();
            for (role, count) in [
                ("voter", voters),
                ("learner", status.members.len() - voters),
            ] {
                members.with_label_values(&[role]).set(level(count));
            }
            let behind = |member: &fabric::v1::Member| status.last.saturating_sub(member.matched);
            let last = status.members.iter().map(behind).max();
            lag.set(if here { level(last.unwrap_or(0)) } else { 0 });
            queued.set(level(status.queued));
            attached.set(level(status.attached));
            let counts = status.counts.unwrap_or_default();
            for (kind, count) in [
                ("edge", counts.edges),
                ("session", counts.sessions),
                ("object", counts.objects),
                ("stream", counts.streams),
                ("instance", counts.instances),
            ] {
                ledger.with_label_values(&[kind]).set(level(count));
            }
            weight.set(level(counts.object_bytes));
        }
    });
}

/// What edges ask of the directory of peers.
pub(crate) fn of_directory(metrics: &Metrics, board: Board) {
    let shown = metrics.counters(
        "selvage_directory_lookups_total",
        "Peers that edges asked for, those that were found and told, those at no edge, \
         introductions handed to edges, and peers left out because there were too many.",
        &["what"],
    );
    metrics.on_scrape(move || {
        let counted = board.counts();
        for (what, counted) in [
            ("asked", counted.lookups),
            ("hit", counted.hits),
            ("miss", counted.misses),
            ("forwarded", counted.forwarded),
            ("left_out", counted.left_out),
        ] {
            catch_up(&shown.with_label_values(&[what]), counted);
        }
        std::future::ready(())
    });
}
