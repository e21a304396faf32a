//! On which line of a settings file each key stands.
//!
//! The parser that reads the values does not tell, so the text is scanned once more for keys alone. The scan only serves
//! messages: where it does not understand a construct, the key above it gives the line.

use std::collections::BTreeMap;

/// Line, counted from 1, of each key by its path, for example `mirrors.target.url` or `tables[1].types.id`.
pub(super) type Lines = BTreeMap<String, usize>;

/// Nesting beyond this is not followed.
const MAX_DEPTH: usize = 16;

/// The keys of a TOML text.
pub(super) fn of_toml(text: &str) -> Lines {
    let mut scan = Toml { rest: text, line: 1, lines: Lines::new(), lists: BTreeMap::new() };
    scan.document();
    scan.lines
}

struct Toml<'a> {
    rest: &'a str,
    line: usize,
    lines: Lines,
    /// Entries seen so far of each `[[list]]`.
    lists: BTreeMap<String, usize>,
}

impl Toml<'_> {
    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let found = chars.next()?;
        self.rest = chars.as_str();
        self.line += usize::from(found == '\n');
        Some(found)
    }

    fn skip(&mut self, text: &str) -> bool {
        let found = self.rest.starts_with(text);
        if found {
            for _ in text.chars() {
                self.next();
            }
        }
        found
    }

    /// Skips blanks, line breaks, comments, and the separators in `also`.
    fn blank(&mut self, also: &str) {
        while let Some(found) = self.peek() {
            if found == '#' {
                while self.peek().is_some_and(|c| c != '\n') {
                    self.next();
                }
            } else if found.is_whitespace() || also.contains(found) {
                self.next();
            } else {
                break;
            }
        }
    }

    fn document(&mut self) {
        let mut table = String::new();
        loop {
            self.blank("");
            let line = self.line;
            if self.peek().is_none() {
                break;
            }
            if self.skip("[[") {
                let path = self.key("", ']');
                let index = self.lists.entry(path.clone()).and_modify(|index| *index += 1).or_insert(0);
                table = format!("{path}[{index}]");
                self.lines.entry(path).or_insert(line);
                self.lines.insert(table.clone(), line);
                self.skip("]");
            } else if self.skip("[") {
                table = self.key("", ']');
                self.lines.insert(table.clone(), line);
            } else {
                let path = self.key(&table, '=');
                self.lines.insert(path.clone(), line);
                self.value(&path, 0);
            }
        }
    }

    /// Reads a dotted key up to and including `end`; gives its path below `table`.
    fn key(&mut self, table: &str, end: char) -> String {
        let mut path = table.to_owned();
        let mut part = String::new();
        while let Some(found) = self.next() {
            match found {
                '"' | '\'' => self.string(found, Some(&mut part)),
                '.' => {
                    path = self.join(&path, &part);
                    let line = self.line;
                    self.lines.entry(path.clone()).or_insert(line);
                    part.clear();
                }
                _ if found == end || found == '\n' => break,
                _ if found.is_whitespace() => {}
                _ => part.push(found),
            }
        }
        join(&path, &part)
    }

    /// Below a `[[list]]`, `[list.key]` means its last entry.
    fn join(&self, path: &str, part: &str) -> String {
        let joined = join(path, part);
        match self.lists.get(&joined) {
            Some(index) => format!("{joined}[{index}]"),
            None => joined,
        }
    }

    /// Skips a string whose opening quote has been read.
    fn string(&mut self, quote: char, mut into: Option<&mut String>) {
        let triple = String::from(quote).repeat(3);
        let long = self.rest.starts_with(triple.get(1..).unwrap_or_default());
        if long {
            self.next();
            self.next();
        }
        while self.peek().is_some() {
            if long && self.skip(&triple) {
                break;
            }
            let Some(found) = self.next() else { break };
            if !long && (found == quote || found == '\n') {
                break;
            }
            if let Some(part) = into.as_deref_mut() {
                part.push(found);
            }
            if found == '\\' && quote == '"' {
                self.next();
            }
        }
    }

    fn value(&mut self, path: &str, depth: usize) {
        while self.peek().is_some_and(|c| c == ' ' || c == '\t') {
            self.next();
        }
        match self.peek() {
            Some(quote @ ('"' | '\'')) => {
                self.next();
                self.string(quote, None);
            }
            Some('[') if depth < MAX_DEPTH => self.list(path, depth),
            Some('{') if depth < MAX_DEPTH => self.inline_table(path, depth),
            _ => {
                while self.peek().is_some_and(|c| !"\n,]}#".contains(c)) {
                    self.next();
                }
            }
        }
    }

    fn list(&mut self, path: &str, depth: usize) {
        self.next();
        for index in 0.. {
            self.blank(",");
            if self.peek().is_none() || self.skip("]") {
                break;
            }
            let before = self.rest.len();
            let element = format!("{path}[{index}]");
            self.lines.insert(element.clone(), self.line);
            self.value(&element, depth + 1);
            if self.rest.len() == before {
                self.next();
            }
        }
    }

    fn inline_table(&mut self, path: &str, depth: usize) {
        self.next();
        loop {
            self.blank(",");
            if self.peek().is_none() || self.skip("}") {
                break;
            }
            let line = self.line;
            let key = self.key(path, '=');
            self.lines.insert(key.clone(), line);
            self.value(&key, depth + 1);
        }
    }
}

/// The keys of a YAML text in block style; what is in flow style (`{a: 1}`) takes the line of the key above.
pub(super) fn of_yaml(text: &str) -> Lines {
    let mut lines = Lines::new();
    let mut lists: BTreeMap<String, usize> = BTreeMap::new();
    // The open mappings: their keys' indentation and path.
    let mut open: Vec<(usize, String)> = Vec::new();
    for (number, text) in text.lines().enumerate() {
        let mut content = text.trim_start();
        let mut indent = text.len() - content.len();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        // A list may stand at the indentation of its own key.
        open.retain(|(at, _)| *at < indent || (*at == indent && content.starts_with("- ")));
        while let Some(entry) = content.strip_prefix("- ") {
            open.retain(|(at, path)| *at <= indent && !(path.ends_with(']') && *at == indent));
            let list = open.last().map_or("", |(_, path)| path);
            let index = lists.entry(list.to_owned()).and_modify(|index| *index += 1).or_insert(0);
            let path = format!("{list}[{index}]");
            lines.insert(path.clone(), number + 1);
            open.push((indent, path));
            let inner = entry.trim_start();
            indent += content.len() - inner.len();
            content = inner;
        }
        let Some((key, _)) = content.split_once(':') else { continue };
        let table = open.last().map_or("", |(_, path)| path);
        let path = join(table, key.trim().trim_matches(['"', '\'']));
        lines.insert(path.clone(), number + 1);
        open.push((indent, path));
    }
    lines
}

pub(super) fn join(path: &str, part: &str) -> String {
    if path.is_empty() { part.to_owned() } else { format!("{path}.{part}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(lines: &Lines) -> String {
        let mut all: Vec<_> = lines.iter().map(|(path, line)| (*line, path.as_str())).collect();
        all.sort_unstable();
        all.iter().fold(String::new(), |text, (line, path)| text + &format!("{line} {path}\n"))
    }

    #[test]
    fn each_toml_key_has_its_line() {
        let text = "# c [x]\n[kafka]\ntopics = [\n  'a', # ]\n  \"b\\\"]\",\n]\nproperties.\"a.b\" = \"\"\"\n[no]\n\"\"\"\n\
                    [mirrors.t]\nurl = { env = 'U' }\n\n[[tables]]\nsource = 'x'\n[[tables]]\n[tables.types]\nid = 1\n";
        assert_eq!(
            shown(&of_toml(text)),
            "2 kafka\n3 kafka.topics\n4 kafka.topics[0]\n5 kafka.topics[1]\n7 kafka.properties\n7 kafka.properties.a.b\n\
             10 mirrors\n10 mirrors.t\n11 mirrors.t.url\n11 mirrors.t.url.env\n13 tables\n13 tables[0]\n\
             14 tables[0].source\n15 tables[1]\n16 tables[1].types\n17 tables[1].types.id\n"
        );
    }

    #[test]
    fn each_yaml_key_has_its_line() {
        let text = "kafka:\n  topics:\n    - a\n    - b\n\n  # c\n  on_data_loss: halt\ntables:\n- source: x\n  types:\n\
                    \x20   id: uuid\n- source: y\n";
        assert_eq!(
            shown(&of_yaml(text)),
            "1 kafka\n2 kafka.topics\n3 kafka.topics[0]\n4 kafka.topics[1]\n7 kafka.on_data_loss\n8 tables\n\
             9 tables[0]\n9 tables[0].source\n10 tables[0].types\n11 tables[0].types.id\n12 tables[1]\n\
             12 tables[1].source\n"
        );
    }

    #[test]
    fn broken_text_ends() {
        for text in [
            "[",
            "[[a",
            "a",
            "a = [",
            "a = {",
            "a = {b",
            "a = [}]",
            "a = '''",
            "= = =",
            "a = [[[[[[[[[[[[[[[[[[[",
        ] {
            of_toml(text);
            of_yaml(text);
        }
    }
}
