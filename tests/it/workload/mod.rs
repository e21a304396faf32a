//! A shop at work: inserts, updates and deletes in transactions that interleave.
//!
//! Each client is a session with rows of its own, so clients never wait for each other, and their transactions mix in
//! the log in every way. What a client does is a function of the seed and of its number alone.
//!
//! Among the [`values`] are those that break copies: texts so large that Postgres stores them out of line and Debezium
//! leaves them out of updates, NULL, empty texts, quotes, other scripts, numbers at the edges of their types.

use std::sync::Arc;
mod values;

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinHandle;
use tokio_postgres::Client;

use crate::shop::Shop;

use values::Values;

/// The seed of this run, printed: `ALLUVIUM_TEST_SEED`, else a new one.
pub fn seed() -> u64 {
    let seed = std::env::var("ALLUVIUM_TEST_SEED")
        .ok()
        .map(|text| text.parse().expect("ALLUVIUM_TEST_SEED: a number"));
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("ALLUVIUM_TEST_SEED={seed}");
    seed
}

/// Clients at work until told to stop.
pub struct Crowd {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<u64>>,
}

impl Crowd {
    /// Lets `clients` sessions work, each with a pause between transactions.
    pub async fn start(shop: &Shop, seed: u64, clients: u64, pause: std::time::Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let crowd = shop.next_crowd();
        let mut tasks = Vec::new();
        for number in 0..clients {
            let mut worker = Worker::new(shop.another_session().await, crowd, number, seed);
            let stop = Arc::clone(&stop);
            tasks.push(tokio::spawn(async move {
                let mut statements = 0;
                while !stop.load(Ordering::Relaxed) {
                    statements += worker.transaction().await;
                    tokio::time::sleep(pause).await;
                }
                statements
            }));
        }
        Self { stop, clients: tasks }
    }

    /// Ends the work. Returns the number of statements that were committed.
    pub async fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let mut statements = 0;
        for client in self.clients {
            statements += client.await.expect("a client of the shop panicked");
        }
        statements
    }
}

/// Works off at least `statements` statements with `clients` sessions at once.
pub async fn work(shop: &Shop, seed: u64, clients: u64, statements: u64) {
    let crowd = shop.next_crowd();
    let mut tasks = Vec::new();
    for number in 0..clients {
        let mut worker = Worker::new(shop.another_session().await, crowd, number, seed);
        tasks.push(tokio::spawn(async move {
            let mut done = 0;
            while done < statements / clients {
                done += worker.transaction().await;
            }
        }));
    }
    for task in tasks {
        task.await.expect("a client of the shop panicked");
    }
}

/// The rows that a client owns, so that it can address them.
#[derive(Clone, Default)]
struct Owned {
    customers: Vec<i64>,
    products: Vec<i32>,
    orders: Vec<i64>,
    items: Vec<(i64, i16)>,
}

struct Worker {
    session: Client,
    values: Values,
    owned: Owned,
    next: i64,
}

impl Worker {
    fn new(session: Client, crowd: u64, number: u64, seed: u64) -> Self {
        let seed = seed.wrapping_add(1_000 * crowd + number);
        let values = Values { random: fastrand::Rng::with_seed(seed) };
        // Beyond the rows of the init script, and far from those of other clients and earlier crowds.
        let next = 10_000_000 * (1 + crowd as i64) + 1_000_000 * number as i64;
        Self { session, values, owned: Owned::default(), next }
    }

    /// One transaction, sometimes taken back. Returns the statements that counted.
    async fn transaction(&mut self) -> u64 {
        let before = self.owned.clone();
        let count = self.values.random.u64(1..=25);
        self.session.batch_execute("BEGIN").await.unwrap();
        for _ in 0..count {
            let sql = self.statement();
            self.session
                .batch_execute(&sql)
                .await
                .unwrap_or_else(|error| panic!("{error:?} in {}", sql.chars().take(500).collect::<String>()));
        }
        if self.values.random.u8(..) < 20 {
            self.session.batch_execute("ROLLBACK").await.unwrap();
            self.owned = before;
            return 0;
        }
        self.session.batch_execute("COMMIT").await.unwrap();
        count
    }

    fn statement(&mut self) -> String {
        // The first branch whose rows exist; inserting is always possible.
        match self.values.random.u8(0..100) {
            0..=7 => self.new_product(),
            8..=22 if !self.owned.customers.is_empty() => self.new_order(),
            23..=42 if !self.owned.orders.is_empty() && !self.owned.products.is_empty() => self.new_item(),
            43..=52 if !self.owned.customers.is_empty() => self.change_customer(),
            53..=67 if !self.owned.products.is_empty() => self.change_product(),
            68..=79 if !self.owned.orders.is_empty() => self.change_order(),
            80..=85 if !self.owned.items.is_empty() => self.change_item(),
            86..=88 if !self.owned.items.is_empty() => self.move_item(),
            89..=96 if !self.owned.items.is_empty() => self.delete_item(),
            97 | 98 => self.delete_order(),
            99 => self.delete_customer(),
            _ => self.new_customer(),
        }
    }

    fn new_customer(&mut self) -> String {
        let id = self.id();
        self.owned.customers.push(id);
        format!(
            "INSERT INTO public.customers (id, name, email, active, born_on, credit_limit, preferences, avatar)
             VALUES ({id}, {}, 'c{id}@example.com', {}, {}, {}, {}, {})",
            self.values.text(60),
            self.values.random.bool(),
            self.values.date(),
            self.values.decimal(9_999_999_999),
            self.values.json(),
            self.values.bytes(),
        )
    }

    fn change_customer(&mut self) -> String {
        let id = self.pick(|owned| &owned.customers);
        let change = match self.values.random.u8(0..5) {
            0 => format!("name = {}", self.values.text(60)),
            1 => format!("active = NOT active, credit_limit = {}", self.values.decimal(9_999_999_999)),
            2 => format!("preferences = {}", self.values.json()),
            3 => format!("avatar = {}, born_on = {}", self.values.bytes(), self.values.date()),
            // Nothing changes, and an event is sent all the same.
            _ => "name = name".to_owned(),
        };
        format!("UPDATE public.customers SET {change} WHERE id = {id}")
    }

    fn new_product(&mut self) -> String {
        let id = i32::try_from(self.id()).unwrap();
        self.owned.products.push(id);
        format!(
            "INSERT INTO public.products (id, sku, name, description, price, weight_kg, stock, discontinued, attributes, released_on)
             VALUES ({id}, 'SKU-{id}', {}, {}, {}, {}, {}, {}, {}, {})",
            self.values.text(60),
            self.values.large_text(),
            self.values.number(99_999_999),
            self.values.double(),
            self.values.random.i32(..),
            self.values.random.bool(),
            self.values.json(),
            self.values.date(),
        )
    }

    fn change_product(&mut self) -> String {
        let id = self.pick(|owned| &owned.products);
        let change = match self.values.random.u8(0..8) {
            0 => format!("description = {}", self.values.large_text()),
            1 => format!("attributes = {}, name = {}", self.values.json(), self.values.text(40)),
            2 => "description = NULL".to_owned(),
            3 => format!("weight_kg = {}", self.values.double()),
            // The large columns stay as they are: the events hold placeholders for them.
            _ => format!(
                "stock = {}, price = {}, updated_at = clock_timestamp()",
                self.values.random.i32(..),
                self.values.number(99_999_999)
            ),
        };
        format!("UPDATE public.products SET {change} WHERE id = {id}")
    }

    fn new_order(&mut self) -> String {
        let id = self.id();
        let customer = self.pick(|owned| &owned.customers);
        self.owned.orders.push(id);
        format!(
            "INSERT INTO public.orders (id, customer_id, total, ship_to, note, deliver_on, placed_at)
             VALUES ({id}, {customer}, {}, {}, {}, {}, clock_timestamp())",
            self.values.number(999_999_999_999),
            self.values.json(),
            self.values.large_text(),
            self.values.date(),
        )
    }

    fn change_order(&mut self) -> String {
        let id = self.pick(|owned| &owned.orders);
        let status = ["placed", "packed", "shipped", "délivré", "returned"][self.values.random.usize(0..5)];
        let total = self.values.number(999_999_999_999);
        format!(
            "UPDATE public.orders SET status = '{status}', paid = NOT paid, total = {total} WHERE id = {id}"
        )
    }

    fn new_item(&mut self) -> String {
        let order = self.pick(|owned| &owned.orders);
        let product = self.pick(|owned| &owned.products);
        let line = self.line_of(order);
        self.owned.items.push((order, line));
        format!(
            "INSERT INTO public.order_items (order_id, line, product_id, quantity, unit_price, discount, gift_wrap)
             VALUES ({order}, {line}, {product}, {}, {}, 0.{:04}, {})",
            self.values.random.i32(1..),
            self.values.number(99_999_999),
            self.values.random.u16(0..10_000),
            self.values.random.bool(),
        )
    }

    fn change_item(&mut self) -> String {
        let (order, line) = self.pick(|owned| &owned.items);
        let quantity = self.values.random.i32(1..1000);
        format!(
            "UPDATE public.order_items SET quantity = {quantity}, gift_wrap = NOT gift_wrap WHERE order_id = {order} AND line = {line}"
        )
    }

    /// The key changes: a delete and a create for whoever follows.
    fn move_item(&mut self) -> String {
        let index = self.values.random.usize(0..self.owned.items.len());
        let (order, line) = self.owned.items[index];
        let new_line = self.line_of(order);
        self.owned.items[index].1 = new_line;
        format!("UPDATE public.order_items SET line = {new_line} WHERE order_id = {order} AND line = {line}")
    }

    fn delete_item(&mut self) -> String {
        let index = self.values.random.usize(0..self.owned.items.len());
        let (order, line) = self.owned.items.swap_remove(index);
        format!("DELETE FROM public.order_items WHERE order_id = {order} AND line = {line}")
    }

    /// An order with all its items, or nothing.
    fn delete_order(&mut self) -> String {
        if self.owned.orders.is_empty() {
            return "SELECT 1".to_owned();
        }
        let index = self.values.random.usize(0..self.owned.orders.len());
        let order = self.owned.orders.swap_remove(index);
        self.owned.items.retain(|item| item.0 != order);
        format!(
            "DELETE FROM public.order_items WHERE order_id = {order}; DELETE FROM public.orders WHERE id = {order}"
        )
    }

    /// A customer that comes and goes at once, and may come again: create, delete, create of one key.
    fn delete_customer(&mut self) -> String {
        let id = self.id();
        let insert = format!(
            "INSERT INTO public.customers (id, name, email) VALUES ({id}, 'again', 'c{id}@example.com')"
        );
        let goes = format!("{insert}; DELETE FROM public.customers WHERE id = {id}");
        if self.values.random.bool() {
            return goes;
        }
        self.owned.customers.push(id);
        format!("{goes}; {insert}")
    }

    fn id(&mut self) -> i64 {
        self.next += 1;
        self.next
    }

    fn line_of(&self, order: i64) -> i16 {
        self.owned.items.iter().filter(|item| item.0 == order).map(|item| item.1).max().unwrap_or(0) + 1
    }

    fn pick<T: Copy>(&mut self, rows: impl Fn(&Owned) -> &Vec<T>) -> T {
        let rows = rows(&self.owned);
        rows[self.values.random.usize(0..rows.len())]
    }
}
