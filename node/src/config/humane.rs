//! Values the way people write them: `5s`, `250ms`, `4MiB`.

use std::fmt;
use std::time::Duration;

use serde::de::{Error, Unexpected, Visitor};

const EXPECTED_DURATION: &str = "a duration with a unit, such as 250ms, 5s, 2m or 1h";
const EXPECTED_DURATION_OR_OFF: &str =
    "a duration with a unit, such as 250ms, 5s, 2m or 1h, or off";
const EXPECTED_BYTES: &str = "a size such as 65536, 256KiB, 4MiB or 1GB";

/// Reads `250ms`, `5s`, `1.5s`, `2m`, `1h`, `3d`, and `0`, which needs no unit.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_unit(text)?;
    let seconds = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86400.0,
        "" if number == 0.0 => 1.0,
        _ => return None,
    };
    // A tenth of a microsecond is beyond what any timer here resolves, so the rounding of the
    // binary fraction is removed.
    let exact = Duration::try_from_secs_f64(number * seconds).ok()?;
    let micros = u64::try_from(exact.as_nanos().saturating_add(500) / 1000).ok()?;
    Some(Duration::from_micros(micros))
}

/// Writes a duration so that [`parse_duration`] reads the same one.
pub fn format_duration(duration: Duration) -> String {
    let micros = duration.as_micros();
    if micros == 0 {
        return "0s".into();
    }
    let units: [(u128, &str); 4] = [
        (3_600_000_000, "h"),
        (60_000_000, "m"),
        (1_000_000, "s"),
        (1_000, "ms"),
    ];
    units
        .iter()
        .find(|(size, _)| micros.is_multiple_of(*size))
        .map_or_else(
            || format!("{micros}us"),
            |(size, unit)| format!("{}{unit}", micros / size),
        )
}

/// Reads `65536`, `256KiB`, `4MiB`, `1GB`. `KiB` is 1024 bytes, `KB` (or `kB`) 1000.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().ok()?;
    let scale: u64 = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "KB" | "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return None,
    };
    number.checked_mul(scale)
}

/// Writes a size so that [`parse_bytes`] reads the same one.
pub fn format_bytes(bytes: u64) -> String {
    let units: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    units
        .iter()
        .find(|(size, _)| bytes != 0 && bytes.is_multiple_of(*size))
        .map_or_else(
            || bytes.to_string(),
            |(size, unit)| format!("{}{unit}", bytes / size),
        )
}

fn split_unit(text: &str) -> Option<(f64, &str)> {
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    Some((number.parse().ok()?, unit.trim()))
}

/// `#[serde(with = "node::config::duration")]` for a `Duration` written as `5s`.
pub mod duration {
    use std::time::Duration;

    use serde::{Deserializer, Serialize, Serializer};

    /// Writes `5s`.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        super::format_duration(*duration).serialize(to)
    }

    /// Reads `5s`.
    ///
    /// # Errors
    /// Anything that is no duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        from.deserialize_str(super::Text {
            expected: super::EXPECTED_DURATION,
            parse: super::parse_duration,
        })
    }
}

/// `#[serde(with = "node::config::duration_option")]` for an `Option<Duration>`, where `off` means
/// none.
pub mod duration_option {
    use std::time::Duration;

    use serde::{Deserializer, Serialize, Serializer};

    /// Writes `5s` or `off`.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(duration: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        duration
            .map_or_else(|| "off".into(), super::format_duration)
            .serialize(to)
    }

    /// Reads `5s` or `off`.
    ///
    /// # Errors
    /// Anything that is neither.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        from.deserialize_str(super::Text {
            expected: super::EXPECTED_DURATION_OR_OFF,
            parse: |text| {
                if text == "off" {
                    Some(None)
                } else {
                    super::parse_duration(text).map(Some)
                }
            },
        })
    }
}

/// Reads a text by a function, and says what was expected when it is not one.
struct Text<V> {
    expected: &'static str,
    parse: fn(&str) -> Option<V>,
}

impl<V> Visitor<'_> for Text<V> {
    type Value = V;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<V, E> {
        (self.parse)(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

/// `#[serde(with = "node::config::bytes")]` for a size in any unsigned integer, written as `4MiB`
/// or as a plain number.
pub mod bytes {
    use std::fmt;
    use std::marker::PhantomData;

    use serde::de::{Deserializer, Error, Unexpected, Visitor};
    use serde::{Serialize, Serializer};

    /// Writes `4MiB`.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<N, S>(size: &N, to: S) -> Result<S::Ok, S::Error>
    where
        N: Copy + TryInto<u64>,
        S: Serializer,
    {
        let size: u64 = (*size).try_into().unwrap_or(u64::MAX);
        super::format_bytes(size).serialize(to)
    }

    /// Reads `4MiB` or a plain number.
    ///
    /// # Errors
    /// A text that is no size, or a size that the field cannot hold.
    pub fn deserialize<'de, N, D>(from: D) -> Result<N, D::Error>
    where
        N: TryFrom<u64>,
        D: Deserializer<'de>,
    {
        from.deserialize_any(Size(PhantomData))
    }

    struct Size<N>(PhantomData<N>);

    impl<N: TryFrom<u64>> Visitor<'_> for Size<N> {
        type Value = N;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(super::EXPECTED_BYTES)
        }

        fn visit_u64<E: Error>(self, size: u64) -> Result<N, E> {
            N::try_from(size).map_err(|_| E::invalid_value(Unexpected::Unsigned(size), &self))
        }

        fn visit_i64<E: Error>(self, size: i64) -> Result<N, E> {
            u64::try_from(size)
                .map_err(|_| E::invalid_value(Unexpected::Signed(size), &self))
                .and_then(|size| self.visit_u64(size))
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<N, E> {
            super::parse_bytes(text)
                .and_then(|size| N::try_from(size).ok())
                .ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
        }
    }
}
