//! AMF values as text: `null 1 "text" true {key: value} [value, value] bytes(0a0b)`.

use amf::Value;

/// Writes a value.
pub(crate) fn show(value: &Value) -> String {
    let list = |values: &[Value]| values.iter().map(show).collect::<Vec<_>>().join(", ");
    match value {
        Value::Undefined => "undefined".into(),
        Value::Null => "null".into(),
        Value::Boolean(b) => b.to_string(),
        Value::Number(n) => n.to_string(),
        Value::Integer(n) => format!("int({n})"),
        Value::String(text) if text.len() > 100 => format!("(a string of {} bytes)", text.len()),
        Value::String(text) => format!("{text:?}"),
        Value::Object(pairs) => format!("{{{}}}", show_pairs(pairs)),
        Value::EcmaArray(array) => format!("array{{{}}}", show_pairs(&array.pairs)),
        Value::StrictArray(values) => format!("[{}]", list(values)),
        Value::ByteArray(bytes) => format!("bytes({})", hex(bytes)),
        other => format!("{other:?}"),
    }
}

fn show_pairs(pairs: &[(std::sync::Arc<str>, Value)]) -> String {
    pairs
        .iter()
        .map(|(k, v)| format!("{k}: {}", show(v)))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Hexadecimal digits as bytes.
pub(crate) fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "half a byte in {text}");
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap())
        .collect()
}

/// Reads all values of a line.
pub(crate) fn read_all(text: &str) -> Vec<Value> {
    let mut reader = Reader(text);
    let mut values = Vec::new();
    while !reader.skip().is_empty() {
        values.push(reader.value());
    }
    values
}

struct Reader<'a>(&'a str);

impl<'a> Reader<'a> {
    fn skip(&mut self) -> &'a str {
        self.0 = self.0.trim_start_matches([' ', ',']);
        self.0
    }

    fn take(&mut self, prefix: &str) -> bool {
        self.skip();
        let rest = self.0.strip_prefix(prefix);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn until(&mut self, ends: &[char]) -> &'a str {
        let end = self.0.find(ends).unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(end);
        self.0 = rest;
        word
    }

    fn value(&mut self) -> Value {
        if self.take("\"") {
            let text = self.until(&['"']);
            assert!(self.take("\""), "a string without end");
            // `"x"*1000` is a long string.
            if self.0.starts_with('*') {
                let count = self.until(&[' ', ',', '}', ']'])[1..].parse().unwrap();
                return text.repeat(count).into();
            }
            return text.into();
        }
        if self.take("array{") {
            return Value::ecma_array(self.pairs());
        }
        if self.take("{") {
            return Value::object(self.pairs());
        }
        if self.take("[") {
            let mut values = Vec::new();
            while !self.take("]") {
                values.push(self.value());
            }
            return Value::array(values);
        }
        if self.take("bytes(") {
            let bytes = unhex(self.until(&[')']));
            assert!(self.take(")"));
            return Value::ByteArray(bytes.into());
        }
        match self.until(&[' ', ',', '}', ']']) {
            "null" => Value::Null,
            "undefined" => Value::Undefined,
            "true" => true.into(),
            "false" => false.into(),
            number => Value::Number(number.parse().unwrap_or_else(|_| panic!("{number}?"))),
        }
    }

    fn pairs(&mut self) -> Vec<(&'a str, Value)> {
        let mut pairs = Vec::new();
        while !self.take("}") {
            self.skip();
            let key = self.until(&[':']);
            assert!(self.take(":"), "a key without value");
            pairs.push((key, self.value()));
        }
        pairs
    }
}
