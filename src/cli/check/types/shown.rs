//! Cells as the page shows them: as readers of Delta would, but with infinity written out.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{Date32Type, TimestampMicrosecondType};
use arrow::util::display::array_value_to_string;

use crate::change::ColumnType;

/// The only cell of a column; `None` where it is null.
pub(super) fn cell(column_type: &ColumnType, array: &ArrayRef) -> Option<String> {
    text(column_type, array, 0)
}

fn text(column_type: &ColumnType, array: &ArrayRef, row: usize) -> Option<String> {
    if array.is_null(row) {
        return None;
    }
    // What the library cannot show it shows as an error.
    let plain = || array_value_to_string(array, row).ok().filter(|text| !text.starts_with("ERROR"));
    match column_type {
        ColumnType::Date => match array.as_primitive_opt::<Date32Type>()?.value(row) {
            i32::MAX => Some("infinity".to_owned()),
            i32::MIN => Some("-infinity".to_owned()),
            // Beyond what the library can show.
            days => Some(plain().unwrap_or_else(|| format!("day {days}"))),
        },
        ColumnType::Timestamp | ColumnType::TimestampTz => {
            match array.as_primitive_opt::<TimestampMicrosecondType>()?.value(row) {
                i64::MAX => Some("infinity".to_owned()),
                i64::MIN => Some("-infinity".to_owned()),
                micros => Some(plain().unwrap_or_else(|| format!("{micros} µs"))),
            }
        }
        ColumnType::Array(element) => {
            let elements = array.as_list_opt::<i32>()?.value(row);
            let texts: Vec<String> = (0..elements.len())
                .map(|index| text(element, &elements, index).unwrap_or_else(|| "null".to_owned()))
                .collect();
            Some(format!("[{}]", texts.join(", ")))
        }
        _ => plain(),
    }
}
