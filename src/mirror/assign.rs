//! Which existing columns can hold values of a type.
//!
//! The rule: every value arrives exactly, or Postgres raises an error. Casts that round or cut off silently are refused.
//! So casts go to the type *without* length or precision, and the assignment to the column, which complains, does the
//! rest; where even the assignment rounds (numbers, times), the digits are compared or checked.

use super::types::{TargetType, Wire, oid};

/// What the encoder checks because Postgres would round without a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Limit {
    /// Digits behind the point that the column keeps.
    pub(super) scale: Option<u16>,
    /// Microseconds of the smallest step that the column keeps; 0 or 1 for all of them.
    pub(super) step: i64,
    /// Whether pairs are written in the form of `hstore`, and not as their JSON.
    pub(super) hstore: bool,
    /// Whether texts are written in the form that PostGIS reads, and not as Debezium's JSON.
    pub(super) postgis: bool,
}

/// How a staged value gets into an existing column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Assignment {
    /// The type to cast to, as SQL; `None` where the staged type is the column's.
    pub(super) cast: Option<String>,
    /// What to check on the way.
    pub(super) limit: Limit,
}

/// How values staged as `wire` can be stored exactly in a column of type `target`; `None` where they cannot.
pub(super) fn assignment(wire: &Wire, target: &TargetType) -> Option<Assignment> {
    let direct = |limit| Some(Assignment { cast: None, limit });
    let cast = |limit| Some(Assignment { cast: Some(target.name.clone()), limit });
    let any = Limit::default();
    let step = Limit { step: target.step(), ..any };
    let is_text = matches!(target.oid, oid::TEXT | oid::VARCHAR | oid::BPCHAR);
    if let Wire::Array(element) = wire {
        return array(element, target);
    }
    let span = matches!(wire, Wire::Interval | Wire::Text) && target.oid == oid::INTERVAL;
    if span && !target.keeps_all_fields() {
        return None;
    }
    match (wire, target.oid) {
        (Wire::Bool, oid::BOOL)
        | (Wire::Int2, oid::INT2)
        | (Wire::Int4, oid::INT4)
        | (Wire::Int8, oid::INT8)
        | (Wire::Float4, oid::FLOAT4)
        | (Wire::Float8, oid::FLOAT8)
        | (Wire::Uuid, oid::UUID)
        | (Wire::Json, oid::JSON)
        | (Wire::Jsonb, oid::JSONB)
        | (Wire::Bytea, oid::BYTEA)
        | (Wire::Date, oid::DATE)
        | (Wire::Text | Wire::Pairs, oid::TEXT) => direct(any),
        (Wire::Interval, oid::INTERVAL)
        | (Wire::Time, oid::TIME)
        | (Wire::Timestamp, oid::TIMESTAMP)
        | (Wire::Timestamptz, oid::TIMESTAMPTZ) => direct(step),
        // Session time zone is UTC: the wall clock of a timestamp is kept.
        (Wire::Timestamp, oid::TIMESTAMPTZ)
        | (Wire::Timestamptz | Wire::Date, oid::TIMESTAMP)
        | (Wire::Time, oid::INTERVAL) => cast(step),
        (Wire::Bool, oid::BIT) => Some(Assignment { cast: Some("integer::bit".to_owned()), limit: any }),
        // Out of range is an error, not a loss.
        (Wire::Int2 | Wire::Int4 | Wire::Int8, oid::INT2 | oid::INT4 | oid::INT8 | oid::OID)
        | (Wire::Bool, oid::INT4)
        | (Wire::Int2, oid::FLOAT4)
        | (Wire::Int2 | Wire::Int4 | Wire::Float4, oid::FLOAT8)
        | (Wire::Numeric(Some(0)), oid::INT2 | oid::INT4 | oid::INT8)
        | (Wire::Numeric(Some(0..=2)), oid::MONEY)
        | (Wire::Json, oid::JSONB)
        | (Wire::Jsonb, oid::JSON)
        | (Wire::Pairs, oid::JSON | oid::JSONB) => cast(any),
        (Wire::Int2 | Wire::Int4 | Wire::Int8, oid::NUMERIC) => match target.precision_and_scale() {
            Some((_, scale)) if scale < 0 => None,
            _ => cast(any),
        },
        (Wire::Numeric(scale), oid::NUMERIC) => {
            numeric(scale.map(i32::from), target).map(|limit| Assignment { cast: None, limit })
        }
        (Wire::Bytea, _) => None,
        (Wire::Pairs, _) if target.bare_name() == "hstore" => cast(Limit { hstore: true, ..any }),
        (Wire::Text, _) if matches!(target.bare_name(), "geometry" | "geography") => {
            cast(Limit { postgis: true, ..any })
        }
        (Wire::Text, _) => text(target).and_then(cast),
        _ if is_text => cast(any),
        _ => None,
    }
}

/// What to check of numbers with `scale` digits behind the point, where that is known, on their way into a column of numbers.
fn numeric(scale: Option<i32>, target: &TargetType) -> Option<Limit> {
    let any = Limit::default();
    match (scale, target.precision_and_scale()) {
        (_, None) => Some(any),
        (Some(from), Some((_, to))) => (from <= to).then_some(any),
        (None, Some((_, to))) => Some(Limit { scale: Some(u16::try_from(to).ok()?), ..any }),
    }
}

/// What to check of a text that becomes whatever the type's input function reads.
fn text(target: &TargetType) -> Option<Limit> {
    match target.oid {
        // These round.
        oid::TIME | oid::TIMETZ | oid::TIMESTAMP | oid::TIMESTAMPTZ | oid::INTERVAL => {
            Some(Limit { scale: target.digits(), ..Limit::default() })
        }
        oid::NUMERIC => numeric(None, target),
        // It is cut off without a word.
        oid::NAME => None,
        _ => Some(Limit::default()),
    }
}

/// An array is stored as its elements are, where those need no more than a cast to the column's own type.
fn array(element: &Wire, target: &TargetType) -> Option<Assignment> {
    let cast = Some(target.name.clone());
    let Some(stored) = target.element() else {
        // The extension's own casts.
        let vector = matches!(target.bare_name(), "vector" | "halfvec");
        let floats = matches!(element, Wire::Float4 | Wire::Float8);
        return (vector && floats).then(|| Assignment { cast, limit: Limit::default() });
    };
    let of_element = assignment(element, &stored)?;
    match &of_element.cast {
        None => Some(of_element),
        Some(name) if *name == stored.name => Some(Assignment { cast, limit: of_element.limit }),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(oid: u32, modifier: i32) -> TargetType {
        TargetType { oid, modifier, name: "t".to_owned(), element: None }
    }

    fn numeric(precision: i32, scale: i32) -> TargetType {
        target(oid::NUMERIC, ((precision << 16) | (scale & 0x7ff)) + 4)
    }

    #[test]
    fn a_numeric_column_that_would_round_is_refused() {
        assert!(assignment(&Wire::Numeric(Some(4)), &numeric(12, 2)).is_none());
        assert!(assignment(&Wire::Numeric(Some(2)), &numeric(12, 2)).unwrap().cast.is_none());
        assert_eq!(assignment(&Wire::Numeric(None), &numeric(60, 3)).unwrap().limit.scale, Some(3));
        assert!(assignment(&Wire::Int4, &numeric(5, -2)).is_none());
        assert!(assignment(&Wire::Float8, &numeric(12, 2)).is_none());
        assert!(assignment(&Wire::Float8, &target(oid::FLOAT4, -1)).is_none());
    }

    #[test]
    fn the_precision_of_a_time_becomes_a_step() {
        assert_eq!(assignment(&Wire::Timestamp, &target(oid::TIMESTAMP, 3)).unwrap().limit.step, 1000);
        assert_eq!(assignment(&Wire::Timestamp, &target(oid::TIMESTAMP, -1)).unwrap().limit.step, 1);
    }

    #[test]
    fn digits_that_a_text_brings_too_many_of_are_checked() {
        assert_eq!(assignment(&Wire::Text, &target(oid::TIMETZ, 3)).unwrap().limit.scale, Some(3));
        assert_eq!(assignment(&Wire::Text, &numeric(12, 2)).unwrap().limit.scale, Some(2));
        assert_eq!(assignment(&Wire::Text, &target(oid::INTERVAL, -1)).unwrap().limit.scale, None);
        let years_to_months = target(oid::INTERVAL, (6 << 16) | 0xffff);
        assert!(assignment(&Wire::Text, &years_to_months).is_none());
        assert!(assignment(&Wire::Interval, &years_to_months).is_none());
    }

    #[test]
    fn an_array_is_stored_as_its_elements_are() {
        let array_of = |oid, modifier, name: &str| TargetType {
            oid: 1,
            modifier,
            name: format!("{name}[]"),
            element: Some((oid, name.to_owned())),
        };
        let of = |wire, target: &TargetType| assignment(&Wire::Array(Box::new(wire)), target);
        let same = of(Wire::Int4, &array_of(oid::INT4, -1, "integer")).unwrap();
        assert_eq!(same.cast, None);
        let wider = of(Wire::Int4, &array_of(oid::INT8, -1, "bigint")).unwrap();
        assert_eq!(wider.cast.as_deref(), Some("bigint[]"));
        let native = of(Wire::Text, &array_of(869, -1, "inet")).unwrap();
        assert_eq!(native.cast.as_deref(), Some("inet[]"));
        let cut = of(Wire::Timestamp, &array_of(oid::TIMESTAMP, 3, "timestamp without time zone")).unwrap();
        assert_eq!((cut.cast, cut.limit.step), (None, 1000));
        assert!(of(Wire::Bool, &array_of(oid::BIT, 1, "\"bit\"")).is_none());
        assert!(of(Wire::Int4, &target(oid::TEXT, -1)).is_none());
        let mut vector = target(16_500, -1);
        vector.name = "public.vector".to_owned();
        assert_eq!(of(Wire::Float8, &vector).unwrap().cast.as_deref(), Some("public.vector"));
    }

    #[test]
    fn pairs_are_written_in_the_form_of_their_column() {
        let mut hstore = target(16_400, -1);
        hstore.name = "public.hstore".to_owned();
        assert!(assignment(&Wire::Pairs, &hstore).unwrap().limit.hstore);
        assert!(!assignment(&Wire::Pairs, &target(oid::JSONB, -1)).unwrap().limit.hstore);
        assert_eq!(assignment(&Wire::Pairs, &target(oid::TEXT, -1)).unwrap().cast, None);
    }

    #[test]
    fn texts_are_written_in_the_form_of_postgis_into_its_columns_alone() {
        let mut geometry = target(16_401, -1);
        geometry.name = "gis.geometry".to_owned();
        let assigned = assignment(&Wire::Text, &geometry).unwrap();
        assert_eq!((assigned.limit.postgis, assigned.cast.as_deref()), (true, Some("gis.geometry")));
        assert!(!assignment(&Wire::Text, &target(oid::POINT, -1)).unwrap().limit.postgis);
    }
}
