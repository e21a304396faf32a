//! Headers of a record, as one run of bytes: what is kept of them costs a copy, not an allocation each.
//!
//! Only a record that ends in quarantine is ever asked for them, so they are encoded once and looked at on demand. The
//! form lives in memory only.

/// Length that marks a null value; no header can be this long.
const NULL: u32 = u32::MAX;

/// The headers of one record, in order; names may repeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Headers<'a>(&'a [u8]);

impl<'a> Headers<'a> {
    /// Headers that a [`HeaderBuffer`] has encoded.
    pub(super) fn encoded(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// Names and values.
    pub fn iter(self) -> impl Iterator<Item = (String, Option<&'a [u8]>)> {
        self.encoded_names().map(|(name, value)| (String::from_utf8_lossy(name).into_owned(), value))
    }

    /// The same with the bytes of the names.
    pub fn encoded_names(self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let name = take(&mut rest)??;
            let value = take(&mut rest)?;
            Some((name, value))
        })
    }
}

/// The next part: outside `None` at the end, inside `None` for null.
#[allow(clippy::option_option)]
fn take<'a>(rest: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let (length, behind) = rest.split_first_chunk::<4>()?;
    let length = u32::from_be_bytes(*length);
    if length == NULL {
        *rest = behind;
        return Some(None);
    }
    let (part, behind) = behind.split_at_checked(length as usize)?;
    *rest = behind;
    Some(Some(part))
}

/// Encodes headers, reusing its memory.
#[derive(Debug, Default)]
pub struct HeaderBuffer(Vec<u8>);

impl HeaderBuffer {
    /// Forgets the headers of the former record.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Adds a header.
    pub fn push(&mut self, name: &str, value: Option<&[u8]>) {
        for part in [Some(name.as_bytes()), value] {
            let length = part.map_or(NULL, |part| part.len() as u32);
            self.0.extend_from_slice(&length.to_be_bytes());
            self.0.extend_from_slice(part.unwrap_or_default());
        }
    }

    /// What was added since the last [`Self::clear`].
    pub fn headers(&self) -> Headers<'_> {
        Headers(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back_in_order_with_nulls_apart_from_empty_values() {
        let mut buffer = HeaderBuffer::default();
        buffer.push("old", Some(b"dropped"));
        buffer.clear();
        let given = [("a", Some(&b"1"[..])), ("b", None), ("a", Some(&b""[..])), ("", Some(&b"x"[..]))];
        for (name, value) in given {
            buffer.push(name, value);
        }
        let found: Vec<_> = buffer.headers().iter().collect();
        let expected: Vec<_> = given.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        assert_eq!(found, expected);
    }
}
