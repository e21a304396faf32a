//! Names, texts and numbers for rows that nobody ever wrote: the same seed invents the same shop.

use std::fmt::Write as _;
use std::sync::Arc;

use fastrand::Rng;

const FIRST: [&str; 12] =
    ["Ada", "Grace", "Léa", "Søren", "Yuki", "Amara", "Tomás", "Ingrid", "Olu", "Zoë", "Anaïs", "Wei"];
const LAST: [&str; 12] = [
    "Lovelace", "Hopper", "Müller", "O'Brien", "Nakamura", "Okafor", "García", "Dvořák", "Sjöberg", "Silva",
    "Kowalski", "Haddad",
];
const THING: [&str; 10] =
    ["lamp", "chair", "kettle", "notebook", "bicycle", "scarf", "teapot", "desk", "radio", "clock"];
const LOOK: [&str; 10] =
    ["blue", "oak", "brass", "folding", "small", "woollen", "glass", "quiet", "heavy", "plain"];
const NOTE: [&str; 6] = [
    "Please ring twice.",
    "It is a gift: \"no invoice\", please.",
    "Leave it with the neighbour\nat number 7",
    "お急ぎでお願いします",
    "C:\\deliveries\\today",
    "🎁",
];

fn one<'a>(rng: &mut Rng, of: &'a [&'a str]) -> &'a str {
    rng.choice(of).copied().unwrap_or_default()
}

/// A first and a last name.
pub fn person(rng: &mut Rng) -> Arc<str> {
    format!("{} {}", one(rng, &FIRST), one(rng, &LAST)).into()
}

/// The address of customer `id`, or none.
pub fn email(rng: &mut Rng, id: i64) -> Option<Arc<str>> {
    (rng.u8(..10) > 0).then(|| format!("customer{id}.{}@example.com", rng.u16(..)).into())
}

/// A random UUID (version 4) in its text form.
pub fn uuid(rng: &mut Rng) -> Arc<str> {
    let bits = (rng.u128(..) & !(0xf000_u128 << 64) & !(0xc000_u128 << 48)) | (0x4000 << 64) | (0x8000 << 48);
    let hex = format!("{bits:032x}");
    let part = |from, to| hex.get(from..to).unwrap_or_default();
    format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)).into()
}

/// A day between 1940 and 2005, or none.
pub fn birth_date(rng: &mut Rng) -> Option<i32> {
    (rng.u8(..4) > 0).then(|| rng.i32(-10_957..12_784))
}

/// A JSON object as `jsonb` prints it, or none.
pub fn preferences(rng: &mut Rng) -> Option<Arc<str>> {
    (rng.u8(..5) > 0).then(|| {
        format!(
            r#"{{"theme": "{}", "tags": ["{}", null], "discount": {}.50}}"#,
            one(rng, &LOOK),
            one(rng, &THING),
            rng.u8(..9)
        )
        .into()
    })
}

/// A JSON object as `jsonb` prints it, or none.
pub fn attributes(rng: &mut Rng) -> Option<Arc<str>> {
    (rng.u8(..5) > 0).then(|| {
        format!(
            r#"{{"look": "{}", "weight": {}, "fragile": {}}}"#,
            one(rng, &LOOK),
            rng.u32(1..9_000),
            rng.bool()
        )
        .into()
    })
}

/// The name of a product.
pub fn thing(rng: &mut Rng) -> Arc<str> {
    format!("{} {}", one(rng, &LOOK), one(rng, &THING)).into()
}

/// What the catalogue says: nothing, a sentence, or (a quarter) more than Postgres keeps inside the row.
pub fn description(rng: &mut Rng) -> Option<Arc<str>> {
    let words = match rng.u8(..8) {
        0 => return None,
        1 | 2 => 150,
        _ => 8,
    };
    let mut text = String::new();
    for _ in 0..words {
        let _ = write!(text, "{} {} {:04x} ", one(rng, &LOOK), one(rng, &THING), rng.u16(..));
    }
    Some(text.trim_end().into())
}

/// A word to the shop, or (mostly) none.
pub fn note(rng: &mut Rng) -> Option<Arc<str>> {
    (rng.u8(..4) == 0).then(|| one(rng, &NOTE).into())
}

/// Cents, from 0.01 to 999.99.
pub fn price(rng: &mut Rng) -> i64 {
    rng.i64(1..100_000)
}
