//! Which file of a table is gone, where whoever failed to read it does not say.
//!
//! A file that is gone is gone the next time as well, so its table has to stop and name it; but the Delta library hands on
//! the text of such an error without its kind, and then it looks like a storage that does not answer. So after a failure
//! that may be either, the storage is asked for each file of the table. That costs a table that fails, and no other.

use deltalake::Path;
use deltalake::logstore::object_store::ObjectStoreExt;
use futures::{FutureExt, StreamExt, stream};

use super::error::LakeError;
use super::table::Table;

/// Files that are asked for at the same time.
const ASKED: usize = 16;

/// `error`, or, where it may hide that, that a file of the table is gone.
pub(super) async fn or_gone(table: &Table, error: LakeError) -> LakeError {
    if !matches!(error, LakeError::Storage { .. }) {
        return error;
    }
    let store = table.log.files();
    let asked = table.state.files().keys().map(|path| {
        let store = &store;
        async move {
            let location = Path::from_url_path(path).ok()?;
            let answer = store.head(&location).await.err()?;
            let gone = LakeError::reading(table.log.table(), path, &answer);
            matches!(gone, LakeError::Missing { .. }).then_some(gone)
        }
        .boxed()
    });
    let asked: Vec<_> = asked.collect();
    let mut answers = stream::iter(asked).buffer_unordered(ASKED);
    while let Some(answer) = answers.next().await {
        if let Some(gone) = answer {
            return gone;
        }
    }
    error
}
