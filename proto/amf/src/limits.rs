//! What one message may cost.
//!
//! A message is judged by its *expanded* size: a reference costs what it refers to, again.
//! Whoever walks a value that was read (prints it, compares it, writes it) therefore does
//! work within these limits, however few bytes described it.

/// Containers inside one another. Real messages stay below ten; 64 levels of the reader and
/// the writer take a small part of a 2 MB stack, unoptimised too.
pub const MAX_DEPTH: usize = 64;

/// Values in one message, keys not counted. The largest real ones are the keyframe tables of
/// `onMetaData`: six hours with a keyframe every half second are 86 400 numbers. In memory a
/// value takes 40 bytes, a pair 56.
pub const MAX_VALUES: usize = 131_072;

/// Bytes of strings, keys, class names, XML, byte arrays and numeric vectors in one message.
/// An RTMP message has a 24-bit length.
pub const MAX_BYTES: usize = 16 * 1024 * 1024;

/// Nesting up to which a message is handed to `rml_amf0`, which does not limit it.
pub const PLAIN_DEPTH: usize = 32;

/// The longest AMF0 string with a 16-bit length: keys, class names, short strings (AMF0 §1.3.1).
pub const SHORT_STRING: usize = 0xFFFF;

/// The largest length, count or index behind the flag bit of an AMF3 header (AMF3 §1.3.2).
pub(crate) const MAX_U28: usize = (1 << 28) - 1;

/// The largest number of sealed members (AMF3 §3.12, 25 bits).
pub(crate) const MAX_SEALED: usize = (1 << 25) - 1;

const _: () = assert!(PLAIN_DEPTH < MAX_DEPTH);

/// The limits one reader or writer works with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Containers inside one another. Recursion goes as deep as this: a caller who raises it
    /// answers for the stack.
    pub depth: usize,
    /// Values, references expanded.
    pub values: usize,
    /// Bytes of content, references expanded.
    pub bytes: usize,
}

impl Limits {
    /// [`MAX_DEPTH`], [`MAX_VALUES`], [`MAX_BYTES`].
    pub const DEFAULT: Self = Self {
        depth: MAX_DEPTH,
        values: MAX_VALUES,
        bytes: MAX_BYTES,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Which limit was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// [`Limits::depth`].
    Depth,
    /// [`Limits::values`].
    Values,
    /// [`Limits::bytes`].
    Bytes,
}
