//! Where the lake lies: the root URL, the folders below it, one log store for each table.
//!
//! All tables share the root's client, so that a hundred tables do not open a hundred connection pools.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use deltalake::logstore::{LogStoreRef, ObjectStoreRef, StorageConfig, logstore_for, logstore_with};
use deltalake::{ObjectStore, Path};
use url::Url;

use super::error::LakeError;
use super::mor::INDEX_FOLDER;
use crate::change::TableId;

/// The default of `lake.layout`.
pub const DEFAULT_LAYOUT: &str = "{table}";

/// The root of a lake.
#[derive(Clone)]
pub struct Location {
    root: Url,
    config: StorageConfig,
    /// At the root of the storage (bucket, file system).
    client: ObjectStoreRef,
    /// At the root of the lake.
    store: Arc<dyn ObjectStore>,
}

/// Without the storage options, which may hold credentials.
impl std::fmt::Debug for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Location").field("root", &self.root.as_str()).finish_non_exhaustive()
    }
}

impl Location {
    /// Opens the root at a local path, `file://…` or `s3://…`, as somebody who looks at a lake: a local folder has to be
    /// there, because an empty one would only hide that the address is wrong.
    ///
    /// # Errors
    /// [`LakeError::Settings`] for an address or option that cannot be used.
    pub fn open(uri: &str, options: &HashMap<String, String>) -> Result<Self, LakeError> {
        Self::at(&parse(uri)?, uri, options)
    }

    /// The same as somebody who writes the lake: a local folder is created where it is missing.
    ///
    /// # Errors
    /// [`LakeError::Settings`] for an address or option that cannot be used.
    pub fn open_or_create(uri: &str, options: &HashMap<String, String>) -> Result<Self, LakeError> {
        let address = parse(uri)?;
        if let Address::Local(folder) = &address {
            std::fs::create_dir_all(folder)
                .map_err(|error| refused(uri, &format!("cannot be created: {error}")))?;
        }
        Self::at(&address, uri, options)
    }

    fn at(address: &Address, uri: &str, options: &HashMap<String, String>) -> Result<Self, LakeError> {
        let root = match address {
            Address::Local(folder) => url_of(folder, uri)?,
            Address::Remote(url) => url.clone(),
        };
        let refused = |error: &dyn std::fmt::Display| refused(uri, &format!("cannot be opened: {error}"));
        if root.scheme() == "s3" || root.scheme() == "s3a" {
            deltalake::aws::register_handlers(None);
        }
        let options = options.iter().map(|(key, value)| (key.clone(), value.clone()));
        let config = StorageConfig::parse_options(options).map_err(|error| refused(&error))?;
        let log_store = logstore_for(&root, config.clone()).map_err(|error| refused(&error))?;
        Ok(Self {
            root,
            config,
            client: log_store.root_object_store(None),
            store: log_store.object_store(None),
        })
    }

    /// The log store of the table in `folder` (relative to the root, parts separated by `/`).
    pub(super) fn table(&self, folder: &str) -> Result<LogStoreRef, LakeError> {
        let refused = |message: String| {
            LakeError::Settings(format!("folder {folder:?} cannot hold a table: {message}"))
        };
        let mut url = self.root.clone();
        url.path_segments_mut()
            .map_err(|()| refused("the lake's address has no path".to_owned()))?
            .pop_if_empty()
            .extend(folder.split('/'));
        logstore_with(Arc::clone(&self.client), &url, self.config.clone())
            .map_err(|error| refused(error.to_string()))
    }

    /// The root's address.
    pub(super) fn root(&self) -> &str {
        self.root.as_str()
    }

    /// The root's folder, where it is a local one.
    pub(super) fn local(&self) -> Option<PathBuf> {
        (self.root.scheme() == "file").then(|| self.root.to_file_path().ok()).flatten()
    }

    /// Folders `depth` levels below the root that hold a Delta table, in order of name.
    pub(super) async fn tables(&self, depth: usize) -> Result<Vec<String>, LakeError> {
        let mut folders = vec![Path::default()];
        for _ in 0..depth {
            let mut next = Vec::new();
            for folder in folders {
                next.extend(self.children(&folder).await?);
            }
            next.retain(|folder| folder.as_ref() != INDEX_FOLDER);
            folders = next;
        }
        let mut tables = Vec::new();
        for folder in folders {
            let children = self.children(&folder).await?;
            if children.iter().any(|child| child.filename() == Some("_delta_log")) {
                tables.push(folder.to_string());
            }
        }
        tables.sort_unstable();
        Ok(tables)
    }

    /// Folders of all tables of a lake whose current tables lie `depth` levels below the root: those, and the tables of
    /// the lake's own directly below it.
    pub(super) async fn all_tables(&self, depth: usize) -> Result<Vec<String>, LakeError> {
        let mut folders = self.tables(1).await?;
        if depth > 1 {
            folders.extend(self.tables(depth).await?);
        }
        Ok(folders)
    }

    async fn children(&self, folder: &Path) -> Result<Vec<Path>, LakeError> {
        match self.store.list_with_delimiter(Some(folder)).await {
            Ok(list) => Ok(list.common_prefixes),
            Err(deltalake::ObjectStoreError::NotFound { .. }) => Ok(Vec::new()),
            Err(error) => Err(LakeError::store(self.root.as_str(), &error)),
        }
    }
}

/// What `lake.uri` names.
#[derive(Debug)]
enum Address {
    Local(PathBuf),
    Remote(Url),
}

fn refused(uri: &str, message: &str) -> LakeError {
    LakeError::Settings(format!("lake.uri {uri:?} {message}"))
}

fn parse(uri: &str) -> Result<Address, LakeError> {
    let refused = |message: &str| refused(uri, message);
    match uri.split_once("://") {
        None if uri.is_empty() => {
            Err(refused("is empty; give a folder, for example \"./deltalake\", or s3://bucket/path"))
        }
        None => Ok(Address::Local(PathBuf::from(uri))),
        Some(("file", _)) => Url::parse(uri)
            .ok()
            .and_then(|url| url.to_file_path().ok())
            .map(Address::Local)
            .ok_or_else(|| refused("is not a file URL of the form file:///absolute/path")),
        Some(("s3" | "s3a" | "memory", _)) => {
            Url::parse(uri).map(Address::Remote).map_err(|error| refused(&format!("is not a URL: {error}")))
        }
        Some((scheme, _)) => {
            Err(refused(&format!("has the scheme {scheme}://; accepted are a local path, file:// and s3://")))
        }
    }
}

/// The address of a local folder that is there.
fn url_of(folder: &FilePath, uri: &str) -> Result<Url, LakeError> {
    let refused = |message: &str| refused(uri, message);
    let folder = folder.canonicalize().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => refused(
            "does not exist: `alluvium run` makes it; a relative path counts from the working directory",
        ),
        _ => refused(&format!("cannot be opened: {error}")),
    })?;
    if !folder.is_dir() {
        return Err(refused("is not a folder"));
    }
    Url::from_directory_path(&folder).map_err(|()| refused("is not an absolute path"))
}

/// How many folder levels a layout has.
pub(super) fn depth(layout: &str) -> usize {
    layout.split('/').count()
}

/// The folder of a source table.
///
/// # Errors
/// Where a name cannot be a folder's.
pub fn folder(table: &TableId, layout: &str) -> Result<String, LakeError> {
    let folder = layout
        .replace("{database}", &clean(&table.database)?)
        .replace("{schema}", &clean(&table.schema)?)
        .replace("{table}", &clean(&table.table)?);
    let taken = ["", ".", "..", "_delta_log", INDEX_FOLDER];
    if folder.split('/').any(|part| taken.contains(&part)) {
        return Err(LakeError::Refused(format!(
            "table {table} would lie in the folder {folder:?}, which is not a folder name; change lake.layout {layout:?}"
        )));
    }
    Ok(folder)
}

/// Refuses names that would add a folder level.
fn clean(name: &str) -> Result<String, LakeError> {
    if name.contains(['/', '\\', '\0']) {
        return Err(LakeError::Refused(format!(
            "the name {name:?} cannot be part of a folder's name: it holds a slash, a backslash or a null character; rename it in the \
             source"
        )));
    }
    Ok(name.to_owned())
}

/// Checks a layout, and that it gives each of `tables` a folder of its own.
///
/// # Errors
/// With the tables that collide and the setting that parts them.
pub fn check_layout<'a>(
    tables: impl IntoIterator<Item = &'a TableId>,
    layout: &str,
) -> Result<(), LakeError> {
    if !layout.contains("{table}") {
        return Err(LakeError::Settings(format!(
            "lake.layout {layout:?} has no {{table}}; accepted is a template such as \"{{table}}\" or \"{{schema}}/{{table}}\""
        )));
    }
    let mut seen: BTreeMap<String, &TableId> = BTreeMap::new();
    for table in tables {
        let folder = folder(table, layout)?;
        // Object stores and local file systems differ in case; a lake has to survive being copied from one to another.
        if let Some(other) = seen.insert(folder.to_lowercase(), table)
            && other != table
        {
            return Err(collision(table, &other.to_string(), &folder));
        }
    }
    Ok(())
}

/// Two source tables in one folder.
pub(super) fn collision(table: &TableId, other: &str, folder: &str) -> LakeError {
    LakeError::Refused(format!(
        "tables {other} and {table} would share the folder {folder:?}; set lake.layout to \"{{schema}}/{{table}}\" or \
         \"{{database}}/{{schema}}/{{table}}\" (in a new lake.uri, or after moving the existing folders)"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_tables_in_one_folder_are_an_error_that_names_the_setting() {
        let tables = [TableId::new("shop", "public", "orders"), TableId::new("shop", "sales", "orders")];
        let error = check_layout(&tables, "{table}").unwrap_err().to_string();
        assert!(error.contains("lake.layout") && error.contains("public.orders"), "{error}");
        check_layout(&tables, "{schema}/{table}").unwrap();
    }

    #[test]
    fn a_layout_without_table_is_an_error() {
        assert!(check_layout(&[], "{schema}").unwrap_err().to_string().contains("{table}"));
    }

    #[test]
    fn a_name_that_would_leave_the_lake_is_refused() {
        for name in ["..", "a/b", ""] {
            assert!(folder(&TableId::new("d", "s", name), "{table}").is_err(), "{name:?}");
        }
    }

    #[test]
    fn an_unknown_scheme_names_the_accepted_ones() {
        let error = parse("ftp://somewhere").unwrap_err().to_string();
        assert!(error.contains("s3://"), "{error}");
    }

    #[test]
    fn who_looks_at_a_lake_that_is_not_there_is_told_and_leaves_no_folder() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("lake");
        let uri = folder.to_str().unwrap();
        for uri in [uri.to_owned(), format!("file://{uri}")] {
            let error = Location::open(&uri, &HashMap::new()).unwrap_err().to_string();
            assert!(error.starts_with(&format!("lake.uri {uri:?} does not exist")), "{error}");
        }
        assert!(!folder.exists(), "the look has made the folder");
        Location::open_or_create(uri, &HashMap::new()).unwrap();
        assert!(folder.is_dir(), "the writer has not made the folder");
        Location::open(uri, &HashMap::new()).unwrap();
        std::fs::write(folder.join("file"), b"").unwrap();
        let error = Location::open(&format!("{uri}/file"), &HashMap::new()).unwrap_err().to_string();
        assert!(error.ends_with("is not a folder"), "{error}");
    }
}
