//! Values, common to AMF0 and AMF3.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// One AMF value.
///
/// Objects keep the order of their pairs, so that what is written again is what was
/// read. Containers are behind [`Arc`]: a reference in the input resolves to another
/// handle, never to a copy.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    /// AMF0 0x06, AMF3 0x00.
    #[default]
    Undefined,
    /// AMF0 0x05, AMF3 0x01.
    Null,
    /// AMF0 0x01, AMF3 0x02 and 0x03.
    Boolean(bool),
    /// AMF0 0x00, AMF3 0x05.
    Number(f64),
    /// AMF3 0x04: -2^28 ..= 2^28 - 1. Written to AMF0 as a number.
    Integer(i32),
    /// AMF0 0x02 and 0x0C, AMF3 0x06.
    String(Arc<str>),
    /// AMF0 0x03, AMF3 0x0A anonymous and dynamic.
    Object(Arc<Vec<(Arc<str>, Self)>>),
    /// AMF0 0x08, AMF3 0x09 with an associative part: named pairs, then the dense part
    /// (always empty when read from AMF0).
    EcmaArray(Arc<EcmaArray>),
    /// AMF0 0x0A, AMF3 0x09 without an associative part.
    StrictArray(Arc<Vec<Self>>),
    /// AMF0 0x0B, AMF3 0x08.
    Date {
        /// Milliseconds since 1970-01-01 UTC.
        millis: f64,
        /// Minutes from UTC; reserved, 0 in practice. AMF0 only.
        zone: i16,
    },
    /// AMF0 0x0F, AMF3 0x07.
    XmlDocument(Arc<str>),
    /// AMF3 0x0B. Written to AMF0 as an XML document.
    Xml(Arc<str>),
    /// AMF0 0x10, AMF3 0x0A with a class name.
    TypedObject(Arc<TypedObject>),
    /// AMF3 0x0C.
    ByteArray(Bytes),
    /// AMF3 0x0D ..= 0x10.
    Vector(Arc<Vector>),
    /// AMF3 0x11.
    Dictionary(Arc<Dictionary>),
    /// AMF0 0x0D.
    Unsupported,
    /// A reference to a container that is still open (a cycle), because a tree cannot hold
    /// one: its number among the containers of the top-level value it is in, in order of
    /// first appearance. Of a message's first complex value this is the AMF0 reference index.
    /// Counting from the top-level value lets an argument move to another message.
    Reference(u32),
}

/// An associative array.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EcmaArray {
    /// The named pairs, in order.
    pub pairs: Vec<(Arc<str>, Value)>,
    /// The dense part (AMF3).
    pub dense: Vec<Value>,
}

/// An object with a class.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TypedObject {
    /// The class name.
    pub class: Arc<str>,
    /// The sealed members, then the dynamic ones, in order.
    pub pairs: Vec<(Arc<str>, Value)>,
    /// How many of `pairs` are sealed (AMF3 traits). AMF0 has 0.
    pub sealed: usize,
    /// Whether more members than the sealed ones may follow (AMF3 traits).
    pub dynamic: bool,
    /// The body of an externalizable class that is understood (a single value for
    /// `flex.messaging.io.ArrayCollection` and `ObjectProxy`).
    pub external: Option<Value>,
}

/// An AMF3 vector.
#[derive(Clone, Debug, PartialEq)]
pub enum Vector {
    /// 0x0D.
    Int(Vec<i32>, bool),
    /// 0x0E.
    Uint(Vec<u32>, bool),
    /// 0x0F.
    Double(Vec<f64>, bool),
    /// 0x10: element class name, elements, fixed.
    Object(Arc<str>, Vec<Value>, bool),
}

/// An AMF3 dictionary.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dictionary {
    /// Keys are weak references.
    pub weak: bool,
    /// The entries, in order.
    pub entries: Vec<(Value, Value)>,
}

impl Value {
    /// A string.
    #[must_use]
    pub fn string(text: impl Into<Arc<str>>) -> Self {
        Self::String(text.into())
    }

    /// An anonymous object with these pairs, in this order.
    pub fn object<K: Into<Arc<str>>>(pairs: impl IntoIterator<Item = (K, Self)>) -> Self {
        Self::Object(Arc::new(
            pairs.into_iter().map(|(k, v)| (k.into(), v)).collect(),
        ))
    }

    /// An ECMA array with these pairs, in this order.
    pub fn ecma_array<K: Into<Arc<str>>>(pairs: impl IntoIterator<Item = (K, Self)>) -> Self {
        Self::EcmaArray(Arc::new(EcmaArray {
            pairs: pairs.into_iter().map(|(k, v)| (k.into(), v)).collect(),
            dense: Vec::new(),
        }))
    }

    /// A strict array.
    pub fn array(values: impl IntoIterator<Item = Self>) -> Self {
        Self::StrictArray(Arc::new(values.into_iter().collect()))
    }

    /// The named pairs of an object, ECMA array or typed object.
    #[must_use]
    pub fn pairs(&self) -> Option<&[(Arc<str>, Self)]> {
        match self {
            Self::Object(pairs) => Some(pairs),
            Self::EcmaArray(array) => Some(&array.pairs),
            Self::TypedObject(object) => Some(&object.pairs),
            Self::Undefined
            | Self::Null
            | Self::Boolean(_)
            | Self::Number(_)
            | Self::Integer(_)
            | Self::String(_)
            | Self::StrictArray(_)
            | Self::Date { .. }
            | Self::XmlDocument(_)
            | Self::Xml(_)
            | Self::ByteArray(_)
            | Self::Vector(_)
            | Self::Dictionary(_)
            | Self::Unsupported
            | Self::Reference(_) => None,
        }
    }

    /// The value under a name, if this has named pairs. The last pair of a name wins.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.pairs()?
            .iter()
            .rev()
            .find(|(k, _)| &**k == key)
            .map(|(_, v)| v)
    }

    /// The text of a string.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        if let Self::String(text) = self {
            Some(text)
        } else {
            None
        }
    }

    /// The number, whichever of the two number types holds it.
    #[must_use]
    pub fn as_f64(&self) -> Option<f64> {
        if let Self::Number(n) = self {
            Some(*n)
        } else if let Self::Integer(n) = self {
            Some(f64::from(*n))
        } else {
            None
        }
    }

    /// The boolean.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        if let Self::Boolean(b) = self {
            Some(*b)
        } else {
            None
        }
    }

    /// Null or undefined.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        matches!(self, Self::Null | Self::Undefined)
    }
}

impl From<f64> for Value {
    fn from(n: f64) -> Self {
        Self::Number(n)
    }
}

impl From<bool> for Value {
    fn from(b: bool) -> Self {
        Self::Boolean(b)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::String(text.into())
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
