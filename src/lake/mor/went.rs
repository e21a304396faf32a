//! Where the live rows of a file went when it was merged with others.
//!
//! It is asked for only where somebody else deletes rows of the file while it is being read. What is kept for that is a
//! set of places, which takes at most two bytes for each row and a bit where whole stretches went together, and four
//! bytes for each row that was sorted in memory.

use std::ops::Range;

use roaring::RoaringTreemap;

/// The places of the rows of one file among all that were written.
#[derive(Debug, Default)]
pub(super) struct Went {
    /// As the how manieth each live row was taken; `None`: as they lay.
    ranks: Option<Vec<u32>>,
    /// The places, of which the first is that of the row taken first.
    places: RoaringTreemap,
}

impl Went {
    /// Of rows that are taken in that order, before any is.
    pub(super) fn in_order(order: Option<&[u32]>) -> Self {
        let ranks = order.map(|order| {
            let mut ranks = vec![0; order.len()];
            for (rank, &row) in (0..).zip(order) {
                if let Some(of_row) = ranks.get_mut(row as usize) {
                    *of_row = rank;
                }
            }
            ranks
        });
        Self { ranks, places: RoaringTreemap::new() }
    }

    /// The next rows went there.
    pub(super) fn to(&mut self, places: Range<u64>) {
        if places.end - places.start == 1 {
            self.places.insert(places.start);
        } else {
            self.places.insert_range(places);
        }
    }

    /// The place of a live row, counted among the live ones.
    fn place(&self, row: u64) -> Option<u64> {
        let rank = match &self.ranks {
            Some(ranks) => u64::from(*ranks.get(usize::try_from(row).ok()?)?),
            None => row,
        };
        self.places.select(rank)
    }

    /// Where the rows of `now` went that were not deleted `before`; `None` where one of them went nowhere.
    pub(super) fn moved(&self, before: &RoaringTreemap, now: &RoaringTreemap) -> Option<RoaringTreemap> {
        let since = now - before;
        since.iter().map(|row| self.place(row - before.rank(row))).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn rows(of: &[u64]) -> RoaringTreemap {
        of.iter().copied().collect()
    }

    #[test]
    fn rows_deleted_meanwhile_are_found_where_they_went() {
        // Rows 0 to 9, of which 2 and 5 were left behind.
        let mut went = Went::default();
        went.to(100..103);
        went.to(110..111);
        went.to(200..204);
        let moved = went.moved(&rows(&[2, 5]), &rows(&[0, 2, 3, 4, 5, 9])).unwrap();
        assert_eq!(moved, rows(&[100, 102, 110, 203]));
        assert_eq!(went.moved(&rows(&[2, 5]), &rows(&[2, 5, 10])), None, "a row that was not there");
    }

    #[test]
    fn rows_that_were_sorted_are_found_where_sorting_put_them() {
        // Rows 0 to 4, of which 1 was left behind: the others were taken in the order 4, 0, 3, 2.
        let mut went = Went::in_order(Some(&[3, 0, 2, 1]));
        went.to(7..9);
        went.to(20..22);
        let moved = went.moved(&rows(&[1]), &rows(&[0, 1, 4])).unwrap();
        assert_eq!(moved, rows(&[7, 8]));
        let moved = went.moved(&rows(&[1]), &rows(&[1, 2])).unwrap();
        assert_eq!(moved, rows(&[21]));
    }

    #[test]
    fn places_take_at_most_two_bytes_a_row_however_rows_are_mixed() {
        let mut random = fastrand::Rng::with_seed(7);
        for sources in [2, 8, 16, 64] {
            let mut went: Vec<Went> = (0..sources).map(|_| Went::default()).collect();
            let total = 1_000_000;
            for place in 0..total {
                went[random.usize(0..sources)].to(place..place + 1);
            }
            let bytes: usize = went.iter().map(|went| went.places.serialized_size()).sum();
            assert!(bytes < 2 * total as usize + 20_000, "{bytes} bytes for {sources} sources");
        }
    }
}
