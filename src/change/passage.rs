//! Which types can become which: by type alone, or by a look at each value.
//!
//! A column of a source changes its type by `ALTER TABLE … TYPE`, which rewrites the rows without an event for any of
//! them. So what a sink makes of the values it has stored must be what Postgres' own cast made of them in the source.
//! Only passages of which that is known are [`Passage::Lossless`]; whatever depends on a session (its time zone), or is
//! rounded by Postgres, is not among them.

use super::ColumnType;

/// How values of one type become values of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    /// They are stored alike: nothing has to be done to them.
    Same,
    /// Every value has its counterpart, the one that Postgres' cast gives.
    Lossless,
    /// Some values have a counterpart, and each can be checked.
    Checked,
    /// There is no way that is the same for everybody.
    None,
}

impl Passage {
    /// Whether no value can be lost on it.
    pub fn is_lossless(self) -> bool {
        matches!(self, Self::Same | Self::Lossless)
    }
}

/// The passage from one type to another.
pub fn passage(from: &ColumnType, to: &ColumnType) -> Passage {
    if let (ColumnType::Array(from), ColumnType::Array(to)) = (from, to) {
        // An array goes the way of its elements.
        return passage(from, to);
    }
    if from == to || stored_alike(from, to) {
        Passage::Same
    } else if is_lossless(from, to) {
        Passage::Lossless
    } else if is_checked(from, to) {
        Passage::Checked
    } else {
        Passage::None
    }
}

/// Texts of any meaning are stored as they are.
fn stored_alike(from: &ColumnType, to: &ColumnType) -> bool {
    from.is_text() && to.is_text()
}

fn is_lossless(from: &ColumnType, to: &ColumnType) -> bool {
    use ColumnType as T;
    match (from, to) {
        (T::Int16, T::Int32 | T::Int64 | T::Float32 | T::Float64)
        | (T::Int32, T::Int64 | T::Float64)
        | (T::Float32, T::Float64)
        | (T::Int16 | T::Int32 | T::Int64 | T::Decimal { .. }, T::Numeric)
        | (T::Date, T::Timestamp)
        // As text each of these has one form, which says everything.
        | (
            T::Boolean
            | T::Int16
            | T::Int32
            | T::Int64
            | T::Float32
            | T::Float64
            | T::Decimal { .. }
            | T::Binary
            | T::Date
            | T::Time
            | T::Timestamp,
            T::Text,
        ) => true,
        (T::Int16 | T::Int32 | T::Int64, T::Decimal { precision, scale }) => {
            i16::from(*precision) - i16::from(*scale) >= digits_of(from)
        }
        (T::Decimal { precision, scale }, T::Decimal { precision: more, scale: finer }) => {
            let (whole, larger) =
                (i16::from(*precision) - i16::from(*scale), i16::from(*more) - i16::from(*finer));
            finer >= scale && larger >= whole
        }
        _ => false,
    }
}

fn is_checked(from: &ColumnType, to: &ColumnType) -> bool {
    use ColumnType as T;
    let is_integer = |of: &T| matches!(of, T::Int16 | T::Int32 | T::Int64);
    let is_number =
        |of: &T| is_integer(of) || matches!(of, T::Decimal { .. } | T::Numeric | T::Float32 | T::Float64);
    match (from, to) {
        // A float is exact in a decimal only by luck, and a decimal in a float: Postgres rounds both ways.
        (T::Float32 | T::Float64, T::Decimal { .. } | T::Numeric)
        | (T::Decimal { .. } | T::Numeric, T::Float32 | T::Float64) => false,
        (from, to) if is_number(from) && is_number(to) => true,
        (T::Text, T::Int16 | T::Int32 | T::Int64 | T::Decimal { .. })
        | (T::Timestamp, T::Date)
        | (T::TimestampTz, T::Text) => true,
        _ => false,
    }
}

/// Decimal digits of the largest value.
fn digits_of(integer: &ColumnType) -> i16 {
    match integer {
        ColumnType::Int16 => 5,
        ColumnType::Int32 => 10,
        _ => 19,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(precision: u8, scale: i8) -> ColumnType {
        ColumnType::Decimal { precision, scale }
    }

    #[test]
    fn integers_widen_and_narrow_by_check() {
        assert_eq!(passage(&ColumnType::Int16, &ColumnType::Int64), Passage::Lossless);
        assert_eq!(passage(&ColumnType::Int64, &ColumnType::Int16), Passage::Checked);
        assert_eq!(passage(&ColumnType::Int64, &ColumnType::Float64), Passage::Checked, "beyond 2^53");
        assert_eq!(passage(&ColumnType::Int32, &decimal(12, 2)), Passage::Lossless);
        assert_eq!(passage(&ColumnType::Int32, &decimal(11, 2)), Passage::Checked);
    }

    #[test]
    fn a_decimal_grows_on_both_sides_of_its_point() {
        assert_eq!(passage(&decimal(10, 2), &decimal(12, 4)), Passage::Lossless);
        assert_eq!(passage(&decimal(10, 2), &decimal(12, 2)), Passage::Lossless);
        assert_eq!(passage(&decimal(10, 2), &decimal(10, 4)), Passage::Checked, "two digits less before it");
        assert_eq!(passage(&decimal(10, 2), &decimal(20, 1)), Passage::Checked);
        assert_eq!(passage(&decimal(38, 2), &ColumnType::Numeric), Passage::Lossless);
    }

    #[test]
    fn what_depends_on_a_session_or_is_rounded_is_not_lossless() {
        for (from, to) in [
            (ColumnType::Timestamp, ColumnType::TimestampTz),
            (ColumnType::TimestampTz, ColumnType::Timestamp),
            (ColumnType::TimestampTz, ColumnType::Text),
            (ColumnType::Date, ColumnType::TimestampTz),
            (ColumnType::Float64, ColumnType::Float32),
            (ColumnType::Timestamp, ColumnType::Date),
            (ColumnType::Float64, decimal(10, 2)),
            (ColumnType::Int64, ColumnType::Time),
        ] {
            assert!(!passage(&from, &to).is_lossless(), "{from:?} to {to:?}");
        }
    }

    #[test]
    fn texts_are_stored_alike() {
        assert_eq!(passage(&ColumnType::Uuid, &ColumnType::Text), Passage::Same);
        assert_eq!(passage(&ColumnType::Json, &ColumnType::Jsonb), Passage::Same);
        assert_eq!(passage(&ColumnType::Time, &ColumnType::Int64), Passage::None, "both are 64 bits");
    }
}
