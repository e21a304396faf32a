//! Numbers for data files, so that an address in the index is eight bytes.
//!
//! A number is given once and never again. The list is a log of lines `number path`, appended before an address with
//! that number enters the index; a torn last line belongs to an address that was never written. A later line with the
//! same number names the file that took the place of the former one. Forgetting a file writes nothing: the list is
//! rewritten when most of its lines name files that are gone, and by whoever opens it and knows which these are.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::header::checksum;

const NAME: &str = "files.log";

pub(super) struct FileNumbers {
    path: PathBuf,
    log: File,
    lines: usize,
    next: u32,
    by_path: HashMap<String, u32>,
    by_number: HashMap<u32, String>,
}

impl FileNumbers {
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        let path = folder.join(NAME);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let log = OpenOptions::new().append(true).create(true).open(&path)?;
        log.set_len(whole as u64)?;
        let mut numbers =
            Self { path, log, lines: 0, next: 0, by_path: HashMap::new(), by_number: HashMap::new() };
        for line in text[..whole].lines() {
            let parsed = line.split_once(' ').and_then(|(number, path)| Some((number.parse().ok()?, path)));
            let (number, path) = parsed
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "its list of files is damaged"))?;
            numbers.enter(number, path);
        }
        Ok(numbers)
    }

    fn enter(&mut self, number: u32, path: &str) {
        self.lines += 1;
        self.next = self.next.max(number.saturating_add(1));
        if let Some(former) = self.by_number.insert(number, path.to_owned()) {
            self.by_path.remove(&former);
        }
        self.by_path.insert(path.to_owned(), number);
    }

    /// Gives the number of a file to another; nothing where it has none.
    pub(super) fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let Some(number) = self.by_path.get(from).copied() else { return Ok(()) };
        self.log.write_all(format!("{number} {to}\n").as_bytes())?;
        self.enter(number, to);
        Ok(())
    }

    /// The number of a file, given to it now if it has none.
    pub(super) fn number(&mut self, path: &str) -> io::Result<u32> {
        if let Some(number) = self.by_path.get(path) {
            return Ok(*number);
        }
        let number = self.next;
        if number == u32::MAX {
            return Err(io::Error::other("the numbers for files are used up: rebuild the index"));
        }
        self.log.write_all(format!("{number} {path}\n").as_bytes())?;
        self.enter(number, path);
        Ok(number)
    }

    /// A checksum of the list.
    pub(super) fn checksum(&self) -> io::Result<u64> {
        Ok(checksum(&fs::read(&self.path)?))
    }

    pub(super) fn path(&self, number: u32) -> Option<&str> {
        self.by_number.get(&number).map(String::as_str)
    }

    /// Forgets a file that is gone.
    pub(super) fn forget(&mut self, path: &str) -> io::Result<()> {
        if let Some(number) = self.by_path.remove(path) {
            self.by_number.remove(&number);
        }
        if self.lines > 1000 && self.lines > 4 * self.by_path.len() { self.rewrite() } else { Ok(()) }
    }

    /// Forgets all files but those that are still there, also in the list.
    pub(super) fn retain(&mut self, is_there: impl Fn(&str) -> bool) -> io::Result<()> {
        self.by_path.retain(|path, _| is_there(path));
        self.by_number.retain(|_, path| is_there(path));
        // A list without any other has a line for each, and one for the newest number.
        if self.lines > self.by_path.len() + 1 { self.rewrite() } else { Ok(()) }
    }

    fn rewrite(&mut self) -> io::Result<()> {
        // The newest number stays, whether its file lives or not: numbers are never given twice.
        let mut text = format!("{} \n", self.next.saturating_sub(1));
        for (number, path) in &self.by_number {
            text.extend([number.to_string().as_str(), " ", path, "\n"]);
        }
        let beside = self.path.with_extension("new");
        fs::write(&beside, text)?;
        fs::rename(&beside, &self.path)?;
        self.log = OpenOptions::new().append(true).open(&self.path)?;
        self.lines = self.by_number.len() + 1;
        Ok(())
    }
}
