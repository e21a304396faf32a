//! Values that break copies, as SQL literals.

/// Makes values out of a seed.
pub struct Values {
    /// The choices; a client takes its own from here as well.
    pub random: fastrand::Rng,
}

impl Values {
    /// Text of many scripts, with all that has to be escaped.
    pub fn text(&mut self, longest: usize) -> String {
        const PIECES: &str = r#"tea| |Ünïcödé|茶碗|🫖|''|"quoted"|\|{"a":1}|null|%|__debezium|ﷺ"#;
        let pieces: Vec<&str> = PIECES.split('|').chain(["\t", "\n", "\u{1}"]).collect();
        let count = self.random.usize(0..=longest / 8);
        let text: String = (0..count).map(|_| pieces[self.random.usize(0..pieces.len())]).collect();
        format!("'{text}'")
    }

    /// NULL, small, or so large and so random that compression does not save it from being stored out of line.
    pub fn large_text(&mut self) -> String {
        match self.random.u8(0..10) {
            0 => "NULL".to_owned(),
            1..=4 => self.text(80),
            _ => {
                let length = self.random.usize(3_000..9_000);
                format!("'{}'", self.letters(length))
            }
        }
    }

    fn letters(&mut self, length: usize) -> String {
        (0..length).map(|_| self.random.alphanumeric()).collect()
    }

    /// NULL, the JSON null, small or stored out of line.
    pub fn json(&mut self) -> String {
        match self.random.u8(0..10) {
            0 => "NULL".to_owned(),
            1 => "'null'".to_owned(),
            2 => format!("'{{\"big\": \"{}\"}}'", self.letters(4_000)),
            3 => "'[1, 1.50, 12345678901234567890123, true, null, {}]'".to_owned(),
            _ => format!("'{{\"n\": {}, \"ключ\": [\"{}\", null]}}'", self.random.i32(..), self.letters(8)),
        }
    }

    /// NULL, empty, small or stored out of line.
    pub fn bytes(&mut self) -> String {
        let length = match self.random.u8(0..10) {
            0 => return "NULL".to_owned(),
            1 => 0,
            2 => 3_000,
            _ => self.random.usize(1..20),
        };
        let digits: String = (0..2 * length).map(|_| self.random.digit(16)).collect();
        format!("'\\x{digits}'")
    }

    /// NULL, or a date of four digits of year.
    pub fn date(&mut self) -> String {
        match self.random.u8(0..10) {
            0 => "NULL".to_owned(),
            1 => "'0001-01-01'".to_owned(),
            2 => "'9999-12-31'".to_owned(),
            _ => format!("date '1970-01-01' + {}", self.random.i32(-30_000..40_000)),
        }
    }

    /// NULL or a number of cents.
    pub fn decimal(&mut self, largest: i64) -> String {
        if self.random.u8(0..8) == 0 { "NULL".to_owned() } else { self.number(largest) }
    }

    /// A number of cents.
    pub fn number(&mut self, largest: i64) -> String {
        let cents = match self.random.u8(0..10) {
            0 => 0,
            1 => largest,
            2 => -largest,
            _ => self.random.i64(-largest..=largest),
        };
        format!("{cents}::numeric / 100")
    }

    /// NULL, the edges of the type, or any other bits.
    pub fn double(&mut self) -> String {
        const EDGES: &str =
            "NULL 'NaN' 'Infinity' '-0' '5e-324' '1.7976931348623157e308' '0.1' '0.30000000000000004'";
        match EDGES.split(' ').nth(self.random.usize(0..16)) {
            Some(edge) => edge.to_owned(),
            None => format!("'{:e}'", f64::from_bits(self.random.u64(..) & !(1 << 62))),
        }
    }
}
