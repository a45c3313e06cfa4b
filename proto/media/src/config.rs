//! The configuration in force.

use std::sync::Arc;

use model::{Class, Frame, Kind};

use crate::limits::Limits;

/// The configurations in force, as a slice that key frames and readers share.
///
/// In the order a joining reader needs them: data first (a player reads `onMetaData` before
/// it sets up its decoders), then video, then audio; within a kind in the order they were
/// set, so that of two that overlap the later one wins.
#[derive(Clone, Debug)]
pub(crate) struct Configs {
    frames: Arc<[Frame]>,
    /// Counts the changes, so that a reader half way through notices one.
    version: u64,
}

impl Configs {
    pub(crate) fn new() -> Self {
        Self {
            frames: Arc::from([]),
            version: 0,
        }
    }

    pub(crate) const fn frames(&self) -> &Arc<[Frame]> {
        &self.frames
    }

    pub(crate) const fn version(&self) -> u64 {
        self.version
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        if !self.frames.is_empty() {
            self.set(Arc::from([]));
        }
    }

    /// Takes note of a frame: a `Config` replaces the one of its kind and slot, a `Clear`
    /// ends it, others change nothing.
    pub(crate) fn note(&mut self, frame: &Frame, limits: &Limits) {
        let keep = match frame.class {
            Class::Config => true,
            Class::Clear => false,
            Class::Key | Class::Delta | Class::Audio | Class::Data => return,
        };
        let mut frames: Vec<Frame> = self
            .frames
            .iter()
            .filter(|old| (old.kind, old.slot) != (frame.kind, frame.slot))
            .cloned()
            .collect();
        let bytes: usize = frames.iter().map(|old| old.payload.len()).sum();
        if keep
            && frames.len() < limits.configs
            && bytes + frame.payload.len() <= limits.config_bytes
        {
            frames.push(frame.clone());
            frames.sort_by_key(|frame| rank(frame.kind));
        }
        self.set(frames.into());
    }

    fn set(&mut self, frames: Arc<[Frame]>) {
        self.frames = frames;
        self.version += 1;
    }
}

const fn rank(kind: Kind) -> u8 {
    match kind {
        Kind::Data => 0,
        Kind::Video => 1,
        Kind::Audio => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use model::{FourCc, MediaTime, Slot};

    fn config(kind: Kind, slot: u32, len: usize) -> Frame {
        Frame {
            kind,
            class: Class::Config,
            slot: Slot(slot),
            codec: FourCc::NONE,
            time: MediaTime(0),
            payload: Bytes::from(vec![0; len]),
        }
    }

    fn slots(configs: &Configs) -> Vec<(Kind, u32)> {
        configs
            .frames()
            .iter()
            .map(|frame| (frame.kind, frame.slot.0))
            .collect()
    }

    #[test]
    fn data_comes_before_video_and_video_before_audio_and_the_latest_last() {
        let mut configs = Configs::new();
        for (kind, slot) in [
            (Kind::Audio, 0),
            (Kind::Video, 0),
            (Kind::Video, 1),
            (Kind::Data, 7),
            (Kind::Video, 0),
        ] {
            configs.note(&config(kind, slot, 1), &Limits::DEFAULT);
        }
        assert_eq!(
            slots(&configs),
            [
                (Kind::Data, 7),
                (Kind::Video, 1),
                (Kind::Video, 0),
                (Kind::Audio, 0)
            ]
        );
    }

    #[test]
    fn clear_ends_one_slot_of_one_kind() {
        let mut configs = Configs::new();
        configs.note(&config(Kind::Data, 1, 1), &Limits::DEFAULT);
        configs.note(&config(Kind::Video, 1, 1), &Limits::DEFAULT);
        let clear = Frame {
            class: Class::Clear,
            ..config(Kind::Data, 1, 0)
        };
        configs.note(&clear, &Limits::DEFAULT);
        assert_eq!(slots(&configs), [(Kind::Video, 1)]);
    }

    #[test]
    fn what_does_not_fit_is_not_kept_and_does_not_leave_an_outdated_one_behind() {
        let limits = Limits {
            configs: 2,
            config_bytes: 10,
            ..Limits::DEFAULT
        };
        let mut configs = Configs::new();
        configs.note(&config(Kind::Data, 1, 4), &limits);
        configs.note(&config(Kind::Data, 2, 4), &limits);
        configs.note(&config(Kind::Data, 3, 1), &limits);
        assert_eq!(slots(&configs), [(Kind::Data, 1), (Kind::Data, 2)]);
        configs.note(&config(Kind::Data, 2, 7), &limits);
        assert_eq!(slots(&configs), [(Kind::Data, 1)]);
    }
}
