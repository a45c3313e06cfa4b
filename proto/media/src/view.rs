//! A player's view: a cursor, and what of the stream its player wants.

use model::{Class, Kind, Position, Sequenced, Slot};

use crate::backlog::{Backlog, Read};
use crate::cursor::{Cursor, JoinAt, Lag};

/// What a player reads with: a [`Cursor`] behind a [`Selection`].
///
/// Links between processes read with a plain cursor, since their other end needs every
/// frame; players read with a view, which leaves out what they cannot decode or do not want
/// and never hands out a `Clear`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    cursor: Cursor,
    selection: Selection,
}

impl View {
    /// A player that begins live and wants everything.
    #[must_use]
    pub fn join() -> Self {
        Self::default()
    }

    /// What the player gets next.
    pub fn read<'a>(&mut self, backlog: &'a Backlog) -> Read<'a> {
        loop {
            match backlog.read(&mut self.cursor) {
                Read::Frame(item) if !self.selection.admits(item) => {}
                read @ (Read::Frame(_) | Read::Pending) => return read,
                read @ (Read::InForce { .. } | Read::Skipped { .. }) => {
                    self.selection.restart();
                    return read;
                }
            }
        }
    }

    /// NetStream `receiveAudio`.
    pub const fn receive_audio(&mut self, wanted: bool) {
        self.selection.receive_audio(wanted);
    }

    /// NetStream `receiveVideo`. Without video the player no longer waits for key frames;
    /// when it wants video again, it gets it from the next key frame on, and audio
    /// meanwhile.
    pub const fn receive_video(&mut self, wanted: bool) {
        self.selection.receive_video(wanted);
        self.cursor
            .set_join_at(if wanted { JoinAt::Key } else { JoinAt::Head });
    }

    /// Whether the player wants pictures.
    #[must_use]
    pub const fn wants_video(&self) -> bool {
        self.selection.video
    }

    /// Goes to the live end, see [`Cursor::rejoin`].
    pub const fn rejoin(&mut self) {
        self.cursor.rejoin();
    }

    /// How far the player is behind.
    #[must_use]
    pub fn lag(&self, backlog: &Backlog) -> Lag {
        self.cursor.lag(backlog)
    }

    /// The cursor.
    #[must_use]
    pub const fn cursor(&self) -> &Cursor {
        &self.cursor
    }
}

/// Which frames a player is given of those that its cursor reads.
///
/// Configurations always: they are small, and a player that turns video on again needs the
/// present one. Pictures of a track only after a key frame of that track. It notices from
/// the frames' positions when the cursor has lost some.
///
/// A slot below [`Selection::TRACKS`] is a track; any greater one is a bundle of several
/// tracks in one message, whose key frame is taken as one for all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    audio: bool,
    video: bool,
    /// The position behind the last frame looked at.
    next: Option<Position>,
    /// The video tracks that can be decoded, one bit each.
    open: [u64; 4],
}

impl Selection {
    /// Track ids have eight bits.
    pub const TRACKS: u32 = 256;

    /// Everything.
    #[must_use]
    pub const fn all() -> Self {
        Self {
            audio: true,
            video: true,
            next: None,
            open: [0; 4],
        }
    }

    /// Turns audio on or off.
    pub const fn receive_audio(&mut self, wanted: bool) {
        self.audio = wanted;
    }

    /// Turns video on or off.
    pub const fn receive_video(&mut self, wanted: bool) {
        self.video = wanted;
    }

    /// The player begins anew: pictures wait for a key frame.
    pub const fn restart(&mut self) {
        self.open = [0; 4];
    }

    /// Whether the player is given this frame. Must be asked for every frame, in order.
    pub fn admits(&mut self, item: &Sequenced) -> bool {
        if self.next != Some(item.at) {
            self.restart();
        }
        self.next = Some(Position {
            seq: item.at.seq + 1,
            ..item.at
        });
        let frame = &item.frame;
        match frame.class {
            Class::Clear => false,
            Class::Config => true,
            Class::Data => true,
            Class::Audio => self.audio,
            Class::Key if self.video => {
                self.open(frame.slot);
                true
            }
            Class::Delta if self.video => self.is_open(frame.slot),
            Class::Key | Class::Delta => {
                // What it does not get, the next picture cannot lean on.
                if frame.kind == Kind::Video {
                    self.close(frame.slot);
                }
                false
            }
        }
    }

    fn open(&mut self, slot: Slot) {
        match Self::bit(slot) {
            Some((word, bit)) => self.open[word] |= bit,
            None => self.open = [u64::MAX; 4],
        }
    }

    fn close(&mut self, slot: Slot) {
        match Self::bit(slot) {
            Some((word, bit)) => self.open[word] &= !bit,
            None => self.open = [0; 4],
        }
    }

    fn is_open(&self, slot: Slot) -> bool {
        match Self::bit(slot) {
            Some((word, bit)) => self.open[word] & bit != 0,
            None => self.open != [0; 4],
        }
    }

    fn bit(slot: Slot) -> Option<(usize, u64)> {
        (slot.0 < Self::TRACKS).then_some((slot.0 as usize / 64, 1 << (slot.0 % 64)))
    }
}

impl Default for Selection {
    fn default() -> Self {
        Self::all()
    }
}
