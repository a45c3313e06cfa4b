//! A command message: name, transaction, command object, arguments (RTMP 1.0 §7.1.1).

use amf::Value;
use bytes::{BufMut, BytesMut};
use rtmp::{Message, MessageKind, StreamId};

use crate::event::ObjectEncoding;

/// A command as it came.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Command {
    pub(crate) name: String,
    /// Absent when the peer wants no answer: 0, or not a usable number.
    pub(crate) transaction: Option<Transaction>,
    pub(crate) object: Value,
    pub(crate) args: Vec<Value>,
}

/// A transaction number other than 0. It is echoed as it came and never counted with,
/// so any finite number will do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Transaction(f64);

impl Transaction {
    /// The first transaction, which `connect` always has (RTMP 1.0 §7.2.1.1).
    pub(crate) const CONNECT: Self = Self(1.0);

    pub(crate) fn new(number: f64) -> Option<Self> {
        (number.is_finite() && number != 0.0).then_some(Self(number))
    }

    pub(crate) const fn number(self) -> f64 {
        self.0
    }
}

impl Command {
    /// Reads the body of a command message of either kind.
    pub(crate) fn read(message: &Message) -> Result<Self, String> {
        let body = behind_selector(message.kind, &message.payload);
        let mut values = amf::command::read(body)
            .map_err(|e| e.to_string())?
            .into_iter();
        let Some(Value::String(name)) = values.next() else {
            return Err("the name is not a string".into());
        };
        let transaction = values
            .next()
            .as_ref()
            .and_then(Value::as_f64)
            .and_then(Transaction::new);
        let object = values.next().unwrap_or_default();
        Ok(Self {
            name: name.as_ref().to_owned(),
            transaction,
            object,
            args: values.collect(),
        })
    }

    /// Argument `index`, if it is there.
    pub(crate) fn arg(&self, index: usize) -> Option<&Value> {
        self.args.get(index)
    }

    /// Argument `index`, if it is a string.
    pub(crate) fn text(&self, index: usize) -> Option<&str> {
        self.arg(index)?.as_str()
    }

    /// Argument `index`, if it is a number (which may still be NaN).
    pub(crate) fn number(&self, index: usize) -> Option<f64> {
        self.arg(index)?.as_f64()
    }
}

/// What follows the encoding selector of type 17. Only selector 0 exists; a body that
/// begins otherwise was written without one.
fn behind_selector(kind: MessageKind, payload: &[u8]) -> &[u8] {
    match payload {
        [0, rest @ ..] if kind == MessageKind::CommandAmf3 => rest,
        _ => payload,
    }
}

/// Writes a command. Type 20 is understood by every client; type 17 is used only where
/// it is needed, for a client of encoding 3 that is to get a value which only AMF3 has.
///
/// `None` when a value cannot be written, or not for this client.
pub(crate) fn command(
    stream: StreamId,
    encoding: ObjectEncoding,
    name: &str,
    transaction: f64,
    object: Value,
    args: impl IntoIterator<Item = Value>,
) -> Option<Message> {
    let mut values = vec![name.into(), Value::Number(transaction), object];
    values.extend(args);
    let amf3 = values.iter().any(needs_amf3);
    if amf3 && encoding == ObjectEncoding::Amf0 {
        return None;
    }
    let body = amf::amf0::write_all(&values).ok()?;
    let (kind, payload) = if amf3 {
        let mut selected = BytesMut::with_capacity(body.len() + 1);
        selected.put_u8(0);
        selected.extend_from_slice(&body);
        (MessageKind::CommandAmf3, selected.freeze())
    } else {
        (MessageKind::CommandAmf0, body)
    };
    Some(Message {
        kind,
        stream,
        time: 0,
        payload,
    })
}

/// Writes a data message of type 18.
pub(crate) fn data(stream: StreamId, values: &[Value]) -> Option<Message> {
    let payload = amf::amf0::write_all(values).ok()?;
    Some(Message {
        kind: MessageKind::DataAmf0,
        stream,
        time: 0,
        payload,
    })
}

/// A number as 32 bits without sign, when it is whole and in range.
#[allow(
    clippy::cast_possible_truncation,
    reason = "checked to be whole and in range"
)]
pub(crate) fn whole(number: f64) -> Option<u32> {
    let fits = number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number);
    fits.then_some(number as u32)
}

/// Whether a value has no place in AMF0; the writer switches to AMF3 for it.
fn needs_amf3(value: &Value) -> bool {
    match value {
        Value::ByteArray(_) | Value::Vector(_) | Value::Dictionary(_) => true,
        Value::EcmaArray(array) => {
            !array.dense.is_empty() || array.pairs.iter().any(|(_, v)| needs_amf3(v))
        }
        Value::TypedObject(object) => {
            let traits = object.sealed > 0 || object.dynamic || object.external.is_some();
            traits || object.pairs.iter().any(|(_, v)| needs_amf3(v))
        }
        Value::Object(pairs) => pairs.iter().any(|(_, v)| needs_amf3(v)),
        Value::StrictArray(values) => values.iter().any(needs_amf3),
        Value::Undefined
        | Value::Null
        | Value::Boolean(_)
        | Value::Number(_)
        | Value::Integer(_)
        | Value::String(_)
        | Value::Date { .. }
        | Value::XmlDocument(_)
        | Value::Xml(_)
        | Value::Unsupported
        | Value::Reference(_) => false,
    }
}
