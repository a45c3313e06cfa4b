//! Acknowledgements and windows (RTMP 1.0 §5.4.3 to §5.4.5).
//!
//! Ours are sent so that peers who hold back unacknowledged data go on. Theirs only inform:
//! what limits us is TCP, and the shell's high-water mark.

use crate::limits;

/// Both directions' windows of one connection.
#[derive(Debug)]
pub(crate) struct Window {
    /// The peer wants an acknowledgement at least every so many bytes.
    asked: u32,
    /// The total that was acknowledged last.
    acknowledged: u64,
    /// The window we named in our last Window Acknowledgement Size.
    announced: Option<u32>,
}

impl Window {
    pub(crate) const fn new() -> Self {
        Self {
            asked: limits::WINDOW_DEFAULT,
            acknowledged: 0,
            announced: None,
        }
    }

    /// A Window Acknowledgement Size came. 0 is no window; the one before stays.
    pub(crate) const fn handle_size(&mut self, size: u32) {
        if size > 0 {
            self.asked = size;
        }
    }

    /// A Set Peer Bandwidth came. Gives the Window Acknowledgement Size to answer with, if
    /// it is not the one named before (§5.4.5). The limit type does not matter to that.
    pub(crate) fn handle_peer_bandwidth(&mut self, size: u32) -> Option<u32> {
        if size == 0 || self.announced == Some(size) {
            return None;
        }
        self.announce(size);
        Some(size)
    }

    pub(crate) const fn announce(&mut self, size: u32) {
        self.announced = Some(size);
    }

    /// The sequence number to acknowledge, if it is time, after `received` bytes in all.
    /// It is time after half a window, as real servers do: a peer that waits for a whole
    /// one never has to.
    pub(crate) fn acknowledge(&mut self, received: u64) -> Option<u32> {
        let due = u64::from((self.asked / 2).max(1));
        if received - self.acknowledged < due {
            return None;
        }
        self.acknowledged = received;
        Some((received & 0xffff_ffff) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_window_is_acknowledged_with_the_total() {
        let mut window = Window::new();
        window.handle_size(1000);
        assert_eq!(window.acknowledge(499), None);
        assert_eq!(window.acknowledge(500), Some(500));
        assert_eq!(window.acknowledge(999), None);
        assert_eq!(window.acknowledge(5000), Some(5000));
    }

    #[test]
    fn the_sequence_number_wraps_with_32_bits() {
        let mut window = Window::new();
        assert_eq!(window.acknowledge(0xffff_ffff), Some(0xffff_ffff));
        assert_eq!(window.acknowledge(0x1_0000_0005), None);
        assert_eq!(window.acknowledge(0x1_0020_0000), Some(0x20_0000));
    }

    #[test]
    fn a_window_of_zero_changes_nothing_and_of_one_acknowledges_each_byte() {
        let mut window = Window::new();
        window.handle_size(0);
        assert_eq!(window.acknowledge(1), None);
        window.handle_size(1);
        assert_eq!(window.acknowledge(1), Some(1));
        assert_eq!(window.acknowledge(1), None);
    }

    #[test]
    fn peer_bandwidth_is_answered_once_for_each_size() {
        let mut window = Window::new();
        window.announce(2_500_000);
        assert_eq!(window.handle_peer_bandwidth(2_500_000), None);
        assert_eq!(window.handle_peer_bandwidth(5_000_000), Some(5_000_000));
        assert_eq!(window.handle_peer_bandwidth(5_000_000), None);
        assert_eq!(window.handle_peer_bandwidth(0), None);
    }
}
