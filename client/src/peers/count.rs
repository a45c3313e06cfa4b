//! How many peers there may be.

/// What a program has of peer connections, as `maxPeerConnections` counts them.
///
/// One slot is taken by publishing to peers at all (listening), one by each peer that we
/// have to do with in any direction (incoming), one by sending to any of them (outgoing), and
/// one is kept for who is being connected (connecting). The sum has to stay below the limit:
/// with 8, a publisher has 1 + 4 + 1 + 1 = 7 with four peers, so that five people can talk
/// and the sixth is refused; with 12, eight peers go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Count {
    /// Streams of ours that peers may play.
    pub(crate) listening: usize,
    /// Peers that play from us or that we play from.
    pub(crate) incoming: usize,
}

/// For sending, however many there are who receive.
const OUTGOING: usize = 1;

/// For who is being connected.
const CONNECTING: usize = 1;

impl Count {
    /// Whether one more peer may come.
    pub(crate) const fn has_room(self, max: usize) -> bool {
        self.listening + (self.incoming + 1) + OUTGOING + CONNECTING < max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many peers a publisher gets at most.
    fn peers(max: usize, listening: usize) -> usize {
        (0..)
            .find(|&incoming| {
                !Count {
                    listening,
                    incoming,
                }
                .has_room(max)
            })
            .unwrap()
    }

    #[test]
    fn five_can_talk_with_the_usual_limit_and_the_sixth_cannot() {
        assert_eq!(peers(8, 1), 4);
        assert_eq!(peers(12, 1), 8);
    }

    #[test]
    fn who_publishes_nothing_has_one_slot_more_and_no_limit_is_too_small_to_count() {
        assert_eq!(peers(8, 0), 5);
        for max in 0..4 {
            assert_eq!(peers(max, 1), 0);
        }
    }
}
