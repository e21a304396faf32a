//! Deletion vectors: which rows of a file are deleted, as the Delta protocol writes it down.
//!
//! One file holds the vectors of a commit, or a few files where they are many: a version byte, then for each vector its
//! length (big-endian), a magic number (little-endian), the bitmap in the portable form of 64-bit Roaring bitmaps, and a
//! CRC-32 of the two (big-endian).
//! A vector is read by its range, so that one of many does not cost the others. It is written in its shortest form, in
//! which rows that follow each other are one run. Vectors in memory are a cache within a limit of bytes; what is not there
//! is read again.

use std::collections::HashMap;
use std::sync::Arc;

use deltalake::logstore::object_store::{ObjectStoreExt, PutOptions};
use deltalake::{ObjectStore, Path};
use futures::{FutureExt, StreamExt, TryStreamExt};
use roaring::RoaringTreemap;
use uuid::Uuid;

use crate::lake::action::DeletionVector;
use crate::lake::error::LakeError;
use crate::lake::live_file::LiveFile;

const FORMAT: u8 = 1;
const MAGIC: u32 = 1_681_511_377;
/// Length and checksum around a vector.
const FRAME: usize = 4;
/// Characters of a UUID in Z85.
const ID: usize = 20;
/// Vectors that are fetched at the same time.
const FETCHES: usize = 16;

/// Bytes with which a file is full. The Delta library fetches a whole file for each vector in it.
const FULL: usize = 1 << 20;

/// Files of vectors that are being put together.
#[derive(Debug, Default)]
pub(super) struct VectorFiles {
    files: Vec<VectorFile>,
}

#[derive(Debug)]
struct VectorFile {
    id: Uuid,
    bytes: Vec<u8>,
}

impl VectorFiles {
    /// Adds a vector, brought to its shortest form; the result says where a reader finds it.
    pub(super) fn push(&mut self, rows: &mut RoaringTreemap) -> std::io::Result<DeletionVector> {
        rows.optimize();
        if self.files.last().is_none_or(|file| file.bytes.len() >= FULL) {
            self.files.push(VectorFile { id: Uuid::new_v4(), bytes: vec![FORMAT] });
        }
        let file = self.files.last_mut().ok_or_else(|| std::io::Error::other("there is no file"))?;
        file.push(rows)
    }

    /// Writes the files into the table's folder, and says whether there are any.
    pub(super) async fn put(self, table: &str, store: &dyn ObjectStore) -> Result<bool, LakeError> {
        let any = !self.files.is_empty();
        let puts = self.files.into_iter().map(|file| async move {
            let path = Path::from(format!("deletion_vector_{}.bin", file.id));
            store.put_opts(&path, file.bytes.into(), PutOptions::default()).await
        });
        futures::future::try_join_all(puts).await.map_err(|error| LakeError::store(table, &error))?;
        Ok(any)
    }
}

impl VectorFile {
    fn push(&mut self, rows: &RoaringTreemap) -> std::io::Result<DeletionVector> {
        let start = self.bytes.len();
        let size = FRAME + rows.serialized_size();
        let fits = |number: usize| i32::try_from(number).map_err(std::io::Error::other);
        let (offset, size_in_bytes) = (fits(start)?, fits(size)?);
        self.bytes.extend_from_slice(&size_in_bytes.to_be_bytes());
        self.bytes.extend_from_slice(&MAGIC.to_le_bytes());
        rows.serialize_into(&mut self.bytes)?;
        let checksum = crc32fast::hash(self.bytes.get(start + FRAME..).unwrap_or_default());
        self.bytes.extend_from_slice(&checksum.to_be_bytes());
        Ok(DeletionVector {
            storage_type: "u".to_owned(),
            path_or_inline_dv: z85::encode(self.id.as_bytes()),
            offset: Some(offset),
            size_in_bytes,
            cardinality: rows.len() as i64,
        })
    }
}

/// Reads the rows that `vector` says are deleted.
pub(in crate::lake) async fn read(
    table: &str,
    store: &dyn ObjectStore,
    vector: &DeletionVector,
) -> Result<RoaringTreemap, LakeError> {
    let unreadable = |reason: &str| LakeError::Unreadable {
        table: table.to_owned(),
        message: format!("the deletion vector {:?} {reason}", vector.path_or_inline_dv),
    };
    let size = usize::try_from(vector.size_in_bytes).map_err(|_| unreadable("has no size"))?;
    let framed = match vector.storage_type.as_str() {
        "u" => {
            let path = path(vector).ok_or_else(|| unreadable("names no file"))?;
            let start = u64::try_from(vector.offset.unwrap_or(0)).map_err(|_| unreadable("has no place"))?;
            let range = start..start + (size + 2 * FRAME) as u64;
            let bytes = store
                .get_range(&path, range)
                .await
                .map_err(|error| LakeError::reading(table, path.as_ref(), &error))?;
            let (length, rest) = bytes.split_at_checked(FRAME).ok_or_else(|| unreadable("is cut off"))?;
            let (data, checksum) = rest.split_at_checked(size).ok_or_else(|| unreadable("is cut off"))?;
            if length != vector.size_in_bytes.to_be_bytes() || checksum != crc32fast::hash(data).to_be_bytes()
            {
                return Err(unreadable("is damaged: its length or checksum is wrong"));
            }
            data.to_vec()
        }
        "i" => z85::decode(&vector.path_or_inline_dv).map_err(|_| unreadable("is not Z85"))?,
        other => return Err(unreadable(&format!("is stored as {other:?}; u and i can be read"))),
    };
    let (magic, data) = framed.split_at_checked(FRAME).ok_or_else(|| unreadable("is cut off"))?;
    if magic != MAGIC.to_le_bytes() {
        return Err(unreadable("has an unknown format"));
    }
    let rows = RoaringTreemap::deserialize_from(data).map_err(|error| unreadable(&error.to_string()))?;
    if rows.len() as i64 == vector.cardinality {
        Ok(rows)
    } else {
        Err(unreadable(&format!("has {} rows, not {}", rows.len(), vector.cardinality)))
    }
}

/// The file of a vector that is stored relative to the table.
pub(in crate::lake) fn path(vector: &DeletionVector) -> Option<Path> {
    let text = vector.path_or_inline_dv.as_str();
    let (prefix, id) = text.split_at_checked(text.len().checked_sub(ID)?)?;
    let id = Uuid::from_slice(&z85::decode(id).ok()?).ok()?;
    let name = format!("deletion_vector_{id}.bin");
    Some(if prefix.is_empty() { Path::from(name) } else { Path::from(format!("{prefix}/{name}")) })
}

/// Vectors in memory, by data file.
#[derive(Debug)]
pub(super) struct Vectors {
    limit: usize,
    bytes: usize,
    clock: u64,
    of: HashMap<Box<str>, Cached>,
}

#[derive(Debug)]
struct Cached {
    vector: DeletionVector,
    rows: Arc<RoaringTreemap>,
    bytes: usize,
    used: u64,
}

impl Vectors {
    /// A cache of at most `limit` bytes, as vectors count when they are written.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, bytes: 0, clock: 0, of: HashMap::new() }
    }

    /// The deleted rows of each of `files`, in their order.
    pub(super) async fn of<'a>(
        &mut self,
        table: &str,
        store: &dyn ObjectStore,
        files: impl IntoIterator<Item = (&'a str, &'a LiveFile)>,
    ) -> Result<Vec<Arc<RoaringTreemap>>, LakeError> {
        let mut found = Vec::new();
        let mut missing = Vec::new();
        for (at, (path, file)) in files.into_iter().enumerate() {
            let rows = match file.vector.as_deref() {
                None => Some(Arc::default()),
                Some(vector) => self.cached(path, vector),
            };
            if let (None, Some(vector)) = (&rows, file.vector.as_deref()) {
                missing.push((at, path, vector));
            }
            found.push(rows.unwrap_or_default());
        }
        let mut fetches = Vec::with_capacity(missing.len());
        for (at, path, vector) in missing {
            let fetch =
                async move { Ok::<_, LakeError>((at, path, vector, read(table, store, vector).await?)) };
            fetches.push(fetch.boxed());
        }
        let mut fetched = futures::stream::iter(fetches).buffer_unordered(FETCHES);
        while let Some((at, path, vector, rows)) = fetched.try_next().await? {
            let rows = Arc::new(rows);
            self.keep(path, vector.clone(), Arc::clone(&rows));
            if let Some(slot) = found.get_mut(at) {
                *slot = rows;
            }
        }
        Ok(found)
    }

    fn cached(&mut self, path: &str, vector: &DeletionVector) -> Option<Arc<RoaringTreemap>> {
        self.clock += 1;
        let cached = self.of.get_mut(path).filter(|cached| cached.vector == *vector)?;
        cached.used = self.clock;
        Some(Arc::clone(&cached.rows))
    }

    /// Remembers the vector of a file, in place of an older one.
    pub(super) fn keep(&mut self, path: &str, vector: DeletionVector, rows: Arc<RoaringTreemap>) {
        self.forget(path);
        self.clock += 1;
        let bytes = rows.serialized_size();
        self.bytes += bytes;
        self.of.insert(path.into(), Cached { vector, rows, bytes, used: self.clock });
        while self.bytes > self.limit {
            let oldest = self.of.iter().min_by_key(|(_, cached)| cached.used).map(|(path, _)| path.clone());
            let Some(oldest) = oldest else { break };
            self.forget(&oldest);
        }
    }

    /// Drops the vector of a file.
    pub(super) fn forget(&mut self, path: &str) {
        if let Some(cached) = self.of.remove(path) {
            self.bytes -= cached.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use deltalake::logstore::object_store::memory::InMemory;

    fn rows(of: impl IntoIterator<Item = u64>) -> RoaringTreemap {
        of.into_iter().collect()
    }

    #[tokio::test]
    async fn several_vectors_of_one_file_read_back_each_by_its_range() {
        let store = InMemory::new();
        let mut vectors = [rows([0, 3, 70_000]), rows(0..100_000), rows([u64::from(u32::MAX)])];
        let mut file = VectorFiles::default();
        let descriptors: Vec<_> = vectors.iter_mut().map(|rows| file.push(rows).unwrap()).collect();
        file.put("t", &store).await.unwrap();
        for (rows, descriptor) in vectors.iter().zip(&descriptors) {
            assert_eq!(read("t", &store, descriptor).await.unwrap(), *rows);
        }
        let damaged = DeletionVector { offset: descriptors[1].offset, ..descriptors[0].clone() };
        let error = read("t", &store, &damaged).await.unwrap_err().to_string();
        assert!(error.contains("damaged"), "{error}");
    }

    #[tokio::test]
    async fn rows_that_follow_each_other_are_short_and_take_more_rows_after_they_were_read_back() {
        let (store, mut random) = (InMemory::new(), fastrand::Rng::with_seed(7));
        let mut deleted = rows((0..60_000).chain(70_000..70_010));
        let mut expected: std::collections::BTreeSet<u64> = deleted.iter().collect();
        for round in 0..20 {
            let mut file = VectorFiles::default();
            let vector = file.push(&mut deleted).unwrap();
            file.put("t", &store).await.unwrap();
            assert!(round > 0 || vector.size_in_bytes < 100, "{} bytes for two runs", vector.size_in_bytes);
            assert!(vector.size_in_bytes < 20_000, "{} bytes in round {round}", vector.size_in_bytes);
            deleted = read("t", &store, &vector).await.unwrap();
            assert!(deleted.iter().eq(expected.iter().copied()), "other rows in round {round}");
            let more: Vec<u64> = (0..500).map(|_| random.u64(0..130_000)).collect();
            deleted.extend(more.iter().copied());
            expected.extend(more);
            assert_eq!(deleted.rank(65_000), expected.range(..=65_000).count() as u64, "round {round}");
        }
    }

    #[tokio::test]
    async fn vectors_that_are_many_lie_in_several_files_and_are_all_found() {
        let (store, mut files) = (InMemory::new(), VectorFiles::default());
        let mut vectors: Vec<_> =
            (0..100_u64).map(|first| rows((0..200_000).map(|row| first + row * 2))).collect();
        let descriptors: Vec<_> = vectors.iter_mut().map(|rows| files.push(rows).unwrap()).collect();
        let most = files.files.iter().map(|file| file.bytes.len()).max().unwrap();
        assert!(
            files.files.len() > 3 && most < FULL + 100_000,
            "{} files of {most} bytes",
            files.files.len()
        );
        assert!(files.put("t", &store).await.unwrap());
        for (rows, descriptor) in vectors.iter().zip(&descriptors) {
            assert_eq!(read("t", &store, descriptor).await.unwrap(), *rows);
        }
    }

    #[tokio::test]
    async fn a_vector_whose_file_is_gone_stops_its_table() {
        let vector = VectorFiles::default().push(&mut rows([1])).unwrap();
        let error = read("t", &InMemory::new(), &vector).await.unwrap_err();
        assert!(matches!(error, LakeError::Missing { .. }), "{error:?}");
    }

    #[test]
    fn a_vector_of_the_protocols_example_names_its_file() {
        let vector = DeletionVector {
            storage_type: "u".into(),
            path_or_inline_dv: "ab^-aqEH.-t@S}K{vb[*k^".into(),
            offset: Some(4),
            size_in_bytes: 40,
            cardinality: 6,
        };
        let expected = "ab/deletion_vector_d2c639aa-8816-431a-aaf6-d3fe2512ff61.bin";
        assert_eq!(path(&vector).unwrap().as_ref(), expected);
    }

    #[test]
    fn the_cache_keeps_within_its_limit_what_was_used_last() {
        let mut cache = Vectors::new(100);
        let mut file = VectorFiles::default();
        for (name, row) in [("a", 1), ("b", 2), ("c", 3), ("d", 4), ("e", 5)] {
            let mut rows = rows([row]);
            let vector = file.push(&mut rows).unwrap();
            cache.keep(name, vector, Arc::new(rows));
        }
        assert!(cache.bytes <= 100 && cache.of.contains_key("e") && !cache.of.contains_key("a"), "{cache:?}");
    }
}
