//! Rows with TOASTed values whose primary keys change under load, with kills meanwhile: every copy equals the source.

use std::time::Duration;

use tokio_postgres::Client;

use crate::oracle::{table_becomes_equal, table_equal};
use crate::shop::{Plan, Shop};
use crate::workload::seed;

/// Values are stored out of line from 2 kB on, and left out of events that do not change them.
const TABLE: &str = "
CREATE TABLE public.docs (
    id int PRIMARY KEY, name text, body text, extra jsonb, bytes bytea, more varchar);
ALTER TABLE public.docs ALTER body SET STORAGE EXTERNAL, ALTER extra SET STORAGE EXTERNAL,
    ALTER bytes SET STORAGE EXTERNAL, ALTER more SET STORAGE EXTERNAL;
";

const KEYS: i32 = 40;

/// A session that creates, changes, deletes, moves and swaps rows of `docs`.
struct Editor {
    session: Client,
    random: fastrand::Rng,
}

impl Editor {
    async fn new(shop: &Shop, seed: u64) -> Self {
        Self { session: shop.another_session().await, random: fastrand::Rng::with_seed(seed) }
    }

    async fn statements(&mut self, count: usize) {
        for _ in 0..count {
            let sql = self.statement();
            self.session.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{error:?} in {sql}"));
        }
    }

    fn large(&mut self) -> String {
        format!("repeat('{:x}', {})", self.random.u64(..), self.random.u32(200..400))
    }

    fn statement(&mut self) -> String {
        let (a, b) = (self.random.i32(0..KEYS), self.random.i32(0..KEYS));
        let text = self.large();
        match self.random.u8(0..10) {
            0 | 1 => format!(
                "INSERT INTO public.docs VALUES ({a}, 'new', {text}, to_jsonb({text}), convert_to({text}, 'UTF8'),
                   {text}) ON CONFLICT (id) DO UPDATE SET body = EXCLUDED.body, more = EXCLUDED.more"
            ),
            2 => format!("UPDATE public.docs SET extra = to_jsonb({text}) WHERE id = {a}"),
            3 => format!("UPDATE public.docs SET name = 'n' || {b}, bytes = NULL WHERE id = {a}"),
            4 => format!("DELETE FROM public.docs WHERE id = {a}"),
            5..=7 => format!(
                "UPDATE public.docs SET id = {b}, name = 'moved' WHERE id = {a}
                 AND NOT EXISTS (SELECT FROM public.docs WHERE id = {b})"
            ),
            8 if a != b => format!(
                "BEGIN; UPDATE public.docs SET body = {text} WHERE id = {a};
                 UPDATE public.docs SET id = -1 WHERE id = {a}; UPDATE public.docs SET id = {a} WHERE id = {b};
                 UPDATE public.docs SET id = {b} WHERE id = -1; COMMIT"
            ),
            _ => format!(
                "BEGIN; UPDATE public.docs SET id = 1000 + id WHERE id = {a};
                 UPDATE public.docs SET id = id - 1000, name = 'there and back' WHERE id = 1000 + {a}; COMMIT"
            ),
        }
    }
}

async fn keys_change_under_load(name: &'static str, copy_on_write: bool) {
    let mut plan = Plan::new(name);
    plan.prepare = TABLE;
    if copy_on_write {
        "[[tables]]\nsource = \"public.docs\"\nwrite = \"copy-on-write\"\n".clone_into(&mut plan.settings);
    }
    let shop = plan.open().await;
    let seed = seed();
    let mut random = fastrand::Rng::with_seed(seed);
    let mut editor = Editor::new(&shop, seed).await;
    editor.statements(60).await;
    for _ in 0..8 {
        let mut run = shop.program("run").start();
        editor.statements(80).await;
        // Not a wait for something: the random instant is what this test is about.
        tokio::time::sleep(Duration::from_millis(random.u64(0..1_500))).await;
        run.kill();
    }
    let mut run = shop.program("run").start();
    editor.statements(200).await;
    shop.delivered().await;
    table_becomes_equal(&shop, &run, "docs").await;
    let (_, metrics) = run.get("metrics").await.unwrap();
    let unresolved: Vec<&str> =
        metrics.lines().filter(|line| line.starts_with("alluvium_unresolved_absent_total")).collect();
    eprintln!("{unresolved:?}");
    run.stop().await;
    if let Err(difference) = table_equal(&shop, "docs").await {
        panic!("{difference}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn toasted_values_survive_key_changes_and_kills_on_one_partition() {
    keys_change_under_load("keys_one", false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn toasted_values_survive_key_changes_and_kills_in_copy_on_write_tables() {
    keys_change_under_load("keys_cow", true).await;
}
