//! Rows whose key is of a type that takes several texts for equal (`citext`): to the source two spellings are one row, to
//! Kafka two keys. Every copy ends with the rows of the source, as they are spelt there.

use crate::oracle::{table_becomes_equal, table_equal};
use crate::shop::{Plan, Shop};
use crate::workload::seed;

/// The body is stored out of line, and left out of events that do not change it.
const TABLES: &str = "
CREATE EXTENSION citext;
CREATE TABLE public.words (word citext PRIMARY KEY, meaning text, body text);
ALTER TABLE public.words ALTER body SET STORAGE EXTERNAL;
CREATE TABLE public.senses (number int, word citext, meaning text, PRIMARY KEY (number, word));
INSERT INTO public.words SELECT 'Word' || n, 'snapshot', repeat('x', 3000 + n) FROM generate_series(1, 40) n;
INSERT INTO public.senses SELECT n % 3, 'Word' || n, 'snapshot' FROM generate_series(1, 40) n;
";

/// Each way in which a key gets another spelling, all of them in one batch.
const EACH_WAY: &str = "
UPDATE public.words SET word = 'WORD1' WHERE word = 'word1';
UPDATE public.words SET word = 'wOrD2', meaning = 'both changed' WHERE word = 'word2';
BEGIN; DELETE FROM public.words WHERE word = 'word3'; INSERT INTO public.words VALUES ('WORD3', 'new', 'new'); COMMIT;
DELETE FROM public.words WHERE word = 'word4';
INSERT INTO public.words VALUES ('WORD4', 'new', 'new');
UPDATE public.words SET meaning = 'before' WHERE word = 'word5';
UPDATE public.words SET word = 'WORD5' WHERE word = 'word5';
UPDATE public.words SET word = 'Word5', meaning = 'there and back' WHERE word = 'word5';
INSERT INTO public.words VALUES ('New', 'new', repeat('y', 3000));
UPDATE public.words SET word = 'NEW' WHERE word = 'new';
UPDATE public.words SET word = 'nEW' WHERE word = 'new';
BEGIN; UPDATE public.words SET word = 'WORD6' WHERE word = 'word6'; DELETE FROM public.words WHERE word = 'word6'; COMMIT;
INSERT INTO public.words VALUES ('word6', 'again', NULL);
UPDATE public.senses SET word = upper(word) WHERE number = 1;
DELETE FROM public.senses WHERE number = 2;
INSERT INTO public.senses VALUES (2, 'WORD2', 'new'), (0, 'WORD2', 'another'), (1, 'word2', 'a third');
";

/// One statement of the random kind.
fn statement(random: &mut fastrand::Rng) -> String {
    let word = format!("Word{}", random.u32(1..=40));
    let spelling: String = word
        .chars()
        .map(|letter| if random.bool() { letter.to_ascii_uppercase() } else { letter.to_ascii_lowercase() })
        .collect();
    let number = random.u64(..);
    match random.u8(0..10) {
        0 => format!("DELETE FROM public.words WHERE word = '{word}'"),
        1..=4 => format!("UPDATE public.words SET meaning = '{number:x}' WHERE word = '{word}'"),
        5 | 6 => format!("UPDATE public.words SET word = '{spelling}' WHERE word = '{word}'"),
        7 => format!(
            "UPDATE public.words SET word = '{spelling}', meaning = '{number:x}' WHERE word = '{word}'"
        ),
        8 => format!(
            "BEGIN; DELETE FROM public.words WHERE word = '{word}';
             INSERT INTO public.words VALUES ('{spelling}', '{number:x}', repeat('{number:x}', 200)); COMMIT"
        ),
        _ => format!(
            "INSERT INTO public.words VALUES ('{spelling}', '{number:x}', repeat('{number:x}', 200)) ON CONFLICT DO NOTHING"
        ),
    }
}

async fn open(name: &'static str, partitions: u32, settings: &str) -> Shop {
    let mut plan = Plan::new(name);
    plan.prepare = TABLES;
    plan.partitions = partitions;
    // One mirror has the extension, and so a key of that type; the other has a text.
    plan.connector = vec![("column.propagate.source.type", ".*")];
    settings.clone_into(&mut plan.settings);
    let shop = plan.open().await;
    shop.target().await.batch_execute("CREATE EXTENSION citext").await.unwrap();
    shop
}

async fn assert_equal(shop: &Shop, what: &str) {
    let mut differences = String::new();
    for table in ["words", "senses"] {
        if let Err(difference) = table_equal(shop, table).await {
            differences.push_str(&difference);
        }
    }
    assert!(differences.is_empty(), "{what}:\n{differences}");
    let sql = "SELECT string_agg(DISTINCT format_type(atttypid, NULL), ', ') FROM pg_attribute
               WHERE attrelid IN ('public.words'::regclass, 'public.senses'::regclass) AND attname = 'word'";
    let kind: String = shop.target().await.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(kind, "citext");
}

const COPY_ON_WRITE: &str = "
[[tables]]
source = \"public.words\"
write = \"copy-on-write\"
[[tables]]
source = \"public.senses\"
write = \"copy-on-write\"
";

async fn each_way(name: &'static str, settings: &str) {
    let shop = open(name, 1, settings).await;
    shop.catch_up().await;
    assert_equal(&shop, "snapshot").await;
    shop.source.batch_execute(EACH_WAY).await.unwrap_or_else(|error| panic!("{error:?}"));
    shop.catch_up().await;
    assert_equal(&shop, "each way").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_spellings_of_a_key_in_one_batch_are_one_row() {
    each_way("spellings_mor", "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_spellings_of_a_key_in_one_batch_are_one_row_in_copy_on_write_tables() {
    each_way("spellings_cow", COPY_ON_WRITE).await;
}

/// Partitions are read one ahead of the other, so that a row comes as it was spelt before beside, and after, what it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spellings_on_several_partitions_are_one_row() {
    let shop = open("spellings_many", 6, "").await;
    // Not about values that updates leave out: over partitions these may be nowhere any more.
    shop.source.batch_execute("ALTER TABLE public.words REPLICA IDENTITY FULL").await.unwrap();
    let seed = seed();
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..3_000 {
        let sql = statement(&mut random);
        shop.source.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{error:?} in {sql}"));
    }
    shop.catch_up().await;
    assert_equal(&shop, &format!("backlog, seed {seed}")).await;
    let mut run = shop.program("run").start();
    for _ in 0..1_000 {
        let sql = statement(&mut random);
        shop.source.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{error:?} in {sql}"));
    }
    shop.delivered().await;
    table_becomes_equal(&shop, &run, "words").await;
    run.stop().await;
    assert_equal(&shop, &format!("live, seed {seed}")).await;
}
