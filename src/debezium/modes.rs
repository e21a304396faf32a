//! The connector's settings that decide how values are written, where the events themselves do not say.
//!
//! A schema block says nearly all of it, and the form of a value much: a number, an object and a text are told apart
//! without it. What is left is which unit a number of time has, whether a text of digits is base64, and how bytes became
//! a text. The defaults are Debezium's own.

use serde::Serialize;

use super::instant::Unit;
use super::wire::Wire;
use crate::change::policy::Choice;

/// `decimal.handling.mode`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Decimals {
    /// Unscaled bytes.
    #[default]
    Precise,
    /// Numbers of double precision.
    Double,
    /// Decimal text.
    String,
}

/// `time.precision.mode`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Times {
    /// Milliseconds up to three digits behind the second, else microseconds.
    #[default]
    Adaptive,
    /// The same, but a time of day is always in microseconds.
    AdaptiveTimeMicroseconds,
    /// Milliseconds.
    Connect,
    /// ISO 8601 text, told by its form.
    Isostring,
    /// Microseconds.
    Microseconds,
    /// Nanoseconds.
    Nanoseconds,
    /// Objects, told by their form.
    Structured,
}

/// `binary.handling.mode`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Binary {
    /// Bytes, which JSON writes as base64.
    #[default]
    Bytes,
    /// Base64 text.
    Base64,
    /// Base64 text of the alphabet for URLs.
    Base64UrlSafe,
    /// Hexadecimal text.
    Hex,
}

impl Choice for Decimals {
    const ALL: &'static [(&'static str, Self)] =
        &[("precise", Self::Precise), ("double", Self::Double), ("string", Self::String)];
}

impl Choice for Times {
    const ALL: &'static [(&'static str, Self)] = &[
        ("adaptive", Self::Adaptive),
        ("adaptive_time_microseconds", Self::AdaptiveTimeMicroseconds),
        ("connect", Self::Connect),
        ("isostring", Self::Isostring),
        ("microseconds", Self::Microseconds),
        ("nanoseconds", Self::Nanoseconds),
        ("structured", Self::Structured),
    ];
}

impl Choice for Binary {
    const ALL: &'static [(&'static str, Self)] = &[
        ("bytes", Self::Bytes),
        ("base64", Self::Base64),
        ("base64-url-safe", Self::Base64UrlSafe),
        ("hex", Self::Hex),
    ];
}

/// How a connector writes values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Modes {
    /// Decimals.
    pub decimal: Decimals,
    /// Dates and times.
    pub time: Times,
    /// Bytes.
    pub binary: Binary,
}

impl Modes {
    /// The unit of a time or timestamp whose digits behind the second are not known.
    pub(super) fn unit(self) -> Unit {
        match self.time {
            Times::Connect => Unit::Millis,
            Times::Nanoseconds => Unit::Nanos,
            _ => Unit::Micros,
        }
    }

    /// How decimals of a declared precision are written.
    pub(super) fn decimal(self, precision: u8, scale: i8) -> Wire {
        match self.decimal {
            Decimals::String => Wire::DecimalText { precision, scale },
            Decimals::Precise | Decimals::Double => Wire::Decimal { precision, scale },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_printed_as_they_are_written() {
        fn check<T: Choice + Serialize + 'static>() {
            for (name, value) in T::ALL {
                assert_eq!(serde_json::to_value(value).ok(), Some((*name).into()));
            }
        }
        check::<Decimals>();
        check::<Times>();
        check::<Binary>();
    }
}
