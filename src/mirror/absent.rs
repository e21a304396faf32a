//! The absent cells of a batch, as the staging table has them: which columns of a row keep a stored value, and of which
//! stored row.
//!
//! Three columns say it, null for rows without absent cells (but for the number, where all rows are to have one): the row's number in the batch, the numbers of its absent
//! columns, and beside each of those the list of keys that its value is looked for under, or −1 for the row's own key.

use arrow::buffer::BooleanBuffer;
use bytes::{BufMut, BytesMut};

use super::types::oid;
use crate::change::{Folded, Origins};

/// The staged column with the number of the row.
pub(super) const ROW: &str = "__row";
/// The staged column that lists the absent columns of a row by number.
pub(super) const ABSENT: &str = "__absent";
/// The staged column that says for each absent column under which list of keys its value is stored.
pub(super) const ORIGINS: &str = "__origins";

const NULL: i32 = -1;
/// The value is in the stored row with the row's own key.
const OWN: i32 = -1;

/// Absent cells by column.
#[derive(Debug, Default)]
pub(super) struct Absent<'a> {
    masks: Vec<(i16, &'a BooleanBuffer)>,
    origins: Option<&'a Origins>,
    /// Whether rows without absent cells have their number, too.
    numbered: bool,
}

impl<'a> Absent<'a> {
    pub(super) fn of(folded: &'a Folded) -> Self {
        let numbered = folded.absent.iter().enumerate();
        let masks = numbered.filter_map(|(at, mask)| Some((i16::try_from(at).ok()?, mask.as_ref()?)));
        Self { masks: masks.collect(), origins: folded.origins.as_ref(), numbered: false }
    }

    /// The same with a number for every row.
    pub(super) fn numbered(self) -> Self {
        Self { numbered: true, ..self }
    }

    /// Columns with absent cells.
    pub(super) fn fields(&self) -> Vec<i16> {
        self.masks.iter().map(|(field, _)| *field).collect()
    }

    fn of_row(&self, row: usize) -> impl Iterator<Item = i16> + Clone {
        self.masks.iter().filter(move |(_, mask)| mask.value(row)).map(|(field, _)| *field)
    }

    pub(super) fn put_row_number(&self, row: usize, out: &mut BytesMut) {
        if !self.numbered && self.of_row(row).next().is_none() {
            return out.put_i32(NULL);
        }
        out.put_i32(4);
        out.put_i32(i32::try_from(row).unwrap_or(i32::MAX));
    }

    pub(super) fn put_fields(&self, row: usize, out: &mut BytesMut) {
        put_array(out, oid::INT2, self.of_row(row).map(i16::to_be_bytes));
    }

    pub(super) fn put_origins(&self, row: usize, out: &mut BytesMut) {
        let Some(origins) = self.origins else { return out.put_i32(NULL) };
        let list = |field: i16| {
            let lists = usize::try_from(field).ok().and_then(|field| origins.of.get(field)?.as_ref());
            let list = lists.and_then(|lists| lists.get(row)).and_then(|list| i32::try_from(*list).ok());
            list.unwrap_or(OWN).to_be_bytes()
        };
        put_array(out, oid::INT4, self.of_row(row).map(list));
    }
}

/// An array in the binary form, or null where it would be empty.
fn put_array<const N: usize>(out: &mut BytesMut, element: u32, items: impl Iterator<Item = [u8; N]> + Clone) {
    let count = items.clone().count() as i32;
    if count == 0 {
        return out.put_i32(NULL);
    }
    out.put_i32(20 + (4 + N as i32) * count);
    out.put_i32(1);
    out.put_i32(0);
    out.put_u32(element);
    out.put_i32(count);
    out.put_i32(1);
    for item in items {
        out.put_i32(N as i32);
        out.put_slice(&item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_columns_are_listed_by_number() {
        let some = BooleanBuffer::from(vec![true, false]);
        let none = BooleanBuffer::from(vec![false, false]);
        let absent = Absent { masks: vec![(3, &some), (7, &none)], origins: None, numbered: false };
        let (mut with, mut without) = (BytesMut::new(), BytesMut::new());
        absent.put_fields(0, &mut with);
        absent.put_fields(1, &mut without);
        assert_eq!(with.len(), 4 + 26);
        assert!(with.ends_with(&[0, 0, 0, 2, 0, 3]), "{with:?}");
        assert_eq!(without.as_ref(), [0xff, 0xff, 0xff, 0xff]);
    }
}
