//! AMF0 and AMF3 values: bounded reading, canonical writing.
//!
//! AMF is how Flash peers write the arguments of commands, the metadata of streams and the
//! slots of shared objects. Bytes come in, a [`Value`] goes out, and back:
//!
//! ```text
//!             command::read ──(plain)──> rml_amf0 ──┐
//!   bytes ──>   amf0::read_all, read_prefix ────────┼──> Value ──> amf0::write, write_all ──> bytes
//!               amf3::read_all, read_prefix ────────┘              amf3::write, write_all
//! ```
//!
//! ```
//! # extern crate selvage_amf as amf;
//! use amf::{Value, amf0};
//!
//! let status = Value::object([
//!     ("level", Value::from("status")),
//!     ("code", Value::from("NetStream.Play.Start")),
//! ]);
//! let body = amf0::write_all(&["onStatus".into(), 0.0.into(), Value::Null, status])?;
//!
//! let values = amf0::read_all(&body)?;
//! assert_eq!(values[3].get("code").and_then(Value::as_str), Some("NetStream.Play.Start"));
//! # Ok::<(), amf::Error>(())
//! ```
//!
//! # One message, one table, one budget
//!
//! A reference in AMF points back into the message. [`amf0::Decoder`] and [`amf0::Encoder`]
//! (and those of [`amf3`]) live for one message; the `read_all` and `write_all` functions
//! are such a life. `read_prefix` and `write` are for a value that stands alone, like the slot
//! of a shared object.
//!
//! * A reference to a container resolves to another handle of it, never to a copy. A reference
//!   to a container that is still open is a cycle and stays a [`Value::Reference`].
//! * `write_all` writes a container whose handle appears again as a reference, as AMF0 §2.9
//!   demands. `write` repeats it, so that equal values have equal bytes: those can be compared
//!   and may go through a replicated log. It is also the way to write for peers that refuse
//!   references (librtmp does).
//! * Depth, number of values and bytes are limited ([`limits`]), and a reference costs what it
//!   refers to. Neither reading, nor walking what was read, nor writing takes time or memory
//!   beyond the limits. Recursion ends at [`limits::MAX_DEPTH`].
//!
//! # AMF3 inside AMF0
//!
//! The marker 0x11 switches to AMF3 for one value. The AMF3 tables (strings, traits, objects)
//! begin empty at every switch; AMF0 references do not reach in, nor AMF3 references out.
//! The AMF0 writer switches for what AMF0 does not have: byte arrays, vectors, dictionaries,
//! arrays with a dense part beside the named one, typed objects with sealed members or an
//! externalizable body. A container that such a part refers back to is switched with it.
//!
//! # What changes on the way
//!
//! Reading and writing in the same format gives the same value, with these exceptions.
//!
//! * Text that is not UTF-8 is read with U+FFFD in place of the broken sequences. Refusing a
//!   whole message for a title in Latin-1 would refuse streams that play everywhere else.
//! * AMF0: an [`Value::Integer`] becomes a number, [`Value::Xml`] an XML document.
//! * AMF3: [`Value::Unsupported`] becomes undefined, an integer of more than 29 bits a number, a
//!   date loses its zone, an ECMA array without names becomes a strict array, a typed object
//!   with members beside the sealed ones becomes dynamic, and without class or sealed members
//!   an object.
//! * An ECMA array at the end of a body may lack its end marker; it is written with one.
//! * Keys may appear twice and keep their order; [`Value::get`] gives the last.
//!
//! # What this is not
//!
//! No serde, no mapping to Rust types, no AMF packets (the HTTP envelope of Flash Remoting), no
//! registry of externalizable classes beyond [`amf3::SINGLE_VALUE_CLASSES`]: the body of any
//! other has no length, so the message ends with an error that names the class.

pub mod amf0;
pub mod amf3;
pub mod command;
pub mod error;
#[doc(hidden)]
pub mod fuzzing;
mod graph;
mod input;
pub mod limits;
mod meter;
pub mod value;

pub use error::Error;
pub use value::Value;

#[cfg(test)]
mod tests;
