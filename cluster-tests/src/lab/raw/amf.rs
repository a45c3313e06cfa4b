//! As much AMF0 as a test needs, written apart from the product's codec so that the two
//! can disagree.

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub enum Amf {
    /// 0x00.
    Number(f64),
    /// 0x01.
    Boolean(bool),
    /// 0x02 and 0x0C.
    Text(String),
    /// 0x03 and, read only, 0x08.
    Object(Vec<(String, Self)>),
    /// 0x05.
    Null,
    /// 0x06.
    Undefined,
    /// 0x0A.
    Array(Vec<Self>),
    /// 0x0B, milliseconds.
    Date(f64),
}

impl Amf {
    /// A string.
    pub fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    /// A member of an object.
    pub fn get(&self, key: &str) -> Option<&Self> {
        let Self::Object(pairs) = self else {
            return None;
        };
        pairs
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value)
    }

    /// The text, if it is text.
    pub fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self {
            Some(text)
        } else {
            None
        }
    }

    /// The number, if it is one.
    pub fn as_number(&self) -> Option<f64> {
        if let Self::Number(number) = self {
            Some(*number)
        } else {
            None
        }
    }

    /// Appends the value's bytes.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Number(number) => {
                out.push(0x00);
                out.extend(number.to_be_bytes());
            }
            Self::Boolean(value) => out.extend([0x01, u8::from(*value)]),
            Self::Text(text) => match u16::try_from(text.len()) {
                Ok(length) => {
                    out.push(0x02);
                    out.extend(length.to_be_bytes());
                    out.extend(text.as_bytes());
                }
                Err(_) => {
                    out.push(0x0c);
                    out.extend(
                        u32::try_from(text.len())
                            .expect("a test's text")
                            .to_be_bytes(),
                    );
                    out.extend(text.as_bytes());
                }
            },
            Self::Object(pairs) => {
                out.push(0x03);
                for (name, value) in pairs {
                    write_key(name, out);
                    value.write(out);
                }
                out.extend([0, 0, 9]);
            }
            Self::Null => out.push(0x05),
            Self::Undefined => out.push(0x06),
            Self::Array(values) => {
                out.push(0x0a);
                out.extend(
                    u32::try_from(values.len())
                        .expect("a test's array")
                        .to_be_bytes(),
                );
                values.iter().for_each(|value| value.write(out));
            }
            Self::Date(millis) => {
                out.push(0x0b);
                out.extend(millis.to_be_bytes());
                out.extend([0, 0]);
            }
        }
    }
}

/// The bytes of these values, one after the other.
pub fn bytes(values: &[Amf]) -> Vec<u8> {
    let mut out = Vec::new();
    values.iter().for_each(|value| value.write(&mut out));
    out
}

/// All values of a body; `None` when it is not well-formed or holds what is not known
/// here.
pub fn values(mut body: &[u8]) -> Option<Vec<Amf>> {
    let mut values = Vec::new();
    while !body.is_empty() {
        values.push(read(&mut body)?);
    }
    Some(values)
}

fn write_key(name: &str, out: &mut Vec<u8>) {
    out.extend(
        u16::try_from(name.len())
            .expect("a test's key")
            .to_be_bytes(),
    );
    out.extend(name.as_bytes());
}

fn take<const N: usize>(body: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = body.split_first_chunk::<N>()?;
    *body = rest;
    Some(*head)
}

fn take_text(body: &mut &[u8], length: usize) -> Option<String> {
    let (text, rest) = body.split_at_checked(length)?;
    *body = rest;
    String::from_utf8(text.to_vec()).ok()
}

fn read(body: &mut &[u8]) -> Option<Amf> {
    let [marker] = take(body)?;
    Some(match marker {
        0x00 => Amf::Number(f64::from_be_bytes(take(body)?)),
        0x01 => Amf::Boolean(take::<1>(body)? != [0]),
        0x02 => {
            let length = u16::from_be_bytes(take(body)?);
            Amf::Text(take_text(body, length.into())?)
        }
        0x03 => Amf::Object(read_pairs(body)?),
        0x05 => Amf::Null,
        0x06 => Amf::Undefined,
        0x08 => {
            let _count: [u8; 4] = take(body)?;
            Amf::Object(read_pairs(body)?)
        }
        0x0a => {
            let count = u32::from_be_bytes(take(body)?);
            (0..count)
                .map(|_| read(body))
                .collect::<Option<_>>()
                .map(Amf::Array)?
        }
        0x0b => {
            let millis = f64::from_be_bytes(take(body)?);
            let _zone: [u8; 2] = take(body)?;
            Amf::Date(millis)
        }
        0x0c => {
            let length = u32::from_be_bytes(take(body)?);
            Amf::Text(take_text(body, usize::try_from(length).ok()?)?)
        }
        _ => return None,
    })
}

fn read_pairs(body: &mut &[u8]) -> Option<Vec<(String, Amf)>> {
    let mut pairs = Vec::new();
    loop {
        let length = u16::from_be_bytes(take(body)?);
        let name = take_text(body, length.into())?;
        if name.is_empty() && body.first() == Some(&9) {
            *body = &body[1..];
            return Some(pairs);
        }
        pairs.push((name, read(body)?));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let written = vec![
            Amf::text("connect"),
            Amf::Number(1.0),
            Amf::Object(vec![
                ("app".into(), Amf::text("live")),
                ("fpad".into(), Amf::Boolean(false)),
            ]),
            Amf::Array(vec![Amf::Null, Amf::Undefined, Amf::Date(5.0)]),
        ];
        assert_eq!(values(&bytes(&written)), Some(written));
    }
}
