//! The shop: a source database in memory that customers, clerks and housekeeping change, one transaction at a time.
//!
//! Invariants, after every transaction: each order has its customer, each item its order and its product; an order's
//! total is the sum of its items. Inserts become rarer and deletes more frequent the fuller a table is, so that none
//! grows beyond twice its size in [`ShopSize`], however long the shop is open.
//!
//! The same seed and the same times make the same changes.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use fastrand::Rng;

use super::invent;
use super::rows::Rows;
use super::tables::{Customer, DESCRIPTION, Entity, Key, Order, OrderItem, Product, Row, ShopTable, TABLES};
use crate::change::Operation;

/// Length in bytes from which the shop's Postgres stores a text out of line.
const TOASTED: usize = 2_000;

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// Number of rows that the tables settle at.
#[derive(Debug, Clone, Copy)]
pub struct ShopSize {
    /// Rows of `customers`.
    pub customers: usize,
    /// Rows of `products`.
    pub products: usize,
    /// Rows of `orders`; each has three items on average.
    pub orders: usize,
}

impl Default for ShopSize {
    fn default() -> Self {
        Self { customers: 1_000, products: 300, orders: 4_000 }
    }
}

/// What happened to one row.
#[derive(Debug, Clone)]
pub struct RowChange {
    /// The table.
    pub table: ShopTable,
    /// What happened.
    pub operation: Operation,
    /// The row's key.
    pub key: Key,
    /// The row after it; `None` after a delete.
    pub after: Option<Row>,
    /// Index of the column that the database does not send again, because it is stored out of line and did not change.
    pub unchanged: Option<usize>,
}

/// The shop's database.
#[derive(Debug, Clone)]
pub struct Shop {
    rng: Rng,
    size: ShopSize,
    customers: Rows<Customer>,
    products: Rows<Product>,
    orders: Rows<Order>,
    items: Rows<OrderItem>,
    orders_of_customer: BTreeMap<i64, BTreeSet<i64>>,
    sales_of_product: HashMap<i64, u32>,
    last_id: [i64; 3],
    now: i64,
    transaction: Vec<RowChange>,
}

impl Shop {
    /// A shop that has been open for a while: a quarter of the orders it will have. `now` is in microseconds since
    /// 1970 UTC.
    pub fn open(seed: u64, size: ShopSize, now: i64) -> Self {
        let mut shop = Self {
            rng: Rng::with_seed(seed),
            size,
            customers: Rows::new(),
            products: Rows::new(),
            orders: Rows::new(),
            items: Rows::new(),
            orders_of_customer: BTreeMap::new(),
            sales_of_product: HashMap::new(),
            last_id: [0; 3],
            now,
            transaction: Vec::new(),
        };
        (0..size.customers).for_each(|_| shop.register());
        (0..size.products).for_each(|_| shop.add_product());
        (0..size.orders / 4).for_each(|_| shop.place_order());
        shop.transaction.clear();
        shop
    }

    /// All rows as a snapshot reads them: table by table, in key order.
    pub fn snapshot(&self) -> impl Iterator<Item = RowChange> {
        TABLES.into_iter().flat_map(|table| {
            self.rows(table).map(move |(key, row)| RowChange {
                table,
                operation: Operation::Read,
                key,
                after: Some(row),
                unchanged: None,
            })
        })
    }

    /// Keys and values of a table's rows, in key order.
    pub fn rows(&self, table: ShopTable) -> Box<dyn Iterator<Item = (Key, Row)> + '_> {
        fn all<T: Entity>(rows: &Rows<T>) -> Box<dyn Iterator<Item = (Key, Row)> + '_> {
            Box::new(rows.iter().map(|row| (row.key(), row.values())))
        }
        match table {
            ShopTable::Customers => all(&self.customers),
            ShopTable::Products => all(&self.products),
            ShopTable::Orders => all(&self.orders),
            ShopTable::OrderItems => all(&self.items),
        }
    }

    /// Number of rows of a table.
    pub fn len(&self, table: ShopTable) -> usize {
        match table {
            ShopTable::Customers => self.customers.len(),
            ShopTable::Products => self.products.len(),
            ShopTable::Orders => self.orders.len(),
            ShopTable::OrderItems => self.items.len(),
        }
    }

    /// Runs one transaction at `now` (microseconds since 1970 UTC) and returns what it did, in order; never nothing.
    pub fn transact(&mut self, now: i64) -> Vec<RowChange> {
        self.now = now;
        while self.transaction.is_empty() {
            match self.rng.u8(..100) {
                0..45 if grows(&mut self.rng, self.orders.len(), self.size.orders) => self.place_order(),
                0..45 => self.archive_order(),
                45..68 => self.advance_order(),
                68..76 => self.change_quantity(),
                76..80 => self.drop_item(),
                80..87 => self.update_customer(),
                87..91 if grows(&mut self.rng, self.customers.len(), self.size.customers) => self.register(),
                87..91 => self.close_account(),
                91..97 => self.reprice(),
                _ if grows(&mut self.rng, self.products.len(), self.size.products) => self.add_product(),
                _ => self.discontinue(),
            }
        }
        std::mem::take(&mut self.transaction)
    }

    fn register(&mut self) {
        let id = self.next_id(ShopTable::Customers);
        let rng = &mut self.rng;
        let customer = Customer {
            id,
            external_id: invent::uuid(rng),
            name: invent::person(rng),
            email: invent::email(rng, id),
            birth_date: invent::birth_date(rng),
            newsletter: rng.bool(),
            preferences: invent::preferences(rng),
            created_at: self.now,
        };
        self.note(Operation::Create, &customer, None);
        self.customers.put(customer);
    }

    fn update_customer(&mut self) {
        let Some(mut customer) = self.customers.pick(&mut self.rng).cloned() else { return };
        match self.rng.u8(..3) {
            0 => customer.email = invent::email(&mut self.rng, customer.id),
            1 => customer.newsletter = !customer.newsletter,
            _ => customer.preferences = invent::preferences(&mut self.rng),
        }
        self.note(Operation::Update, &customer, None);
        self.customers.put(customer);
    }

    /// Deletes a customer with all orders.
    fn close_account(&mut self) {
        let Some(id) = self.customers.pick(&mut self.rng).map(|customer| customer.id) else { return };
        for order in self.orders_of_customer.remove(&id).unwrap_or_default() {
            self.delete_order(order);
        }
        if let Some(customer) = self.customers.remove((id, 0)) {
            self.note_delete(&customer);
        }
    }

    fn add_product(&mut self) {
        let id = self.next_id(ShopTable::Products);
        let rng = &mut self.rng;
        let product = Product {
            id,
            sku: format!("SKU-{id:06}").into(),
            name: invent::thing(rng),
            description: invent::description(rng),
            price: invent::price(rng),
            stock: rng.i32(10..1_000),
            active: true,
            attributes: invent::attributes(rng),
            updated_at: self.now,
        };
        self.note(Operation::Create, &product, None);
        self.products.put(product);
    }

    fn reprice(&mut self) {
        let Some(mut product) = self.products.pick(&mut self.rng).cloned() else { return };
        product.price = invent::price(&mut self.rng);
        let rewritten = self.rng.u8(..10) == 0;
        if rewritten {
            product.description = invent::description(&mut self.rng);
        }
        self.update_product(product, rewritten);
    }

    /// Deletes a product that was never sold, or takes one off the shelf.
    fn discontinue(&mut self) {
        let Some(mut product) = self.products.pick(&mut self.rng).cloned() else { return };
        if self.sales_of_product.contains_key(&product.id) {
            product.active = !product.active;
            self.update_product(product, false);
        } else {
            self.products.remove(product.key());
            self.note_delete(&product);
        }
    }

    fn update_product(&mut self, mut product: Product, rewritten: bool) {
        product.updated_at = self.now;
        let toasted = product.description.as_ref().is_some_and(|text| text.len() > TOASTED);
        self.note(Operation::Update, &product, (toasted && !rewritten).then_some(DESCRIPTION));
        self.products.put(product);
    }

    /// Inserts an order with its items, and takes them from the stock.
    fn place_order(&mut self) {
        let Some(customer_id) = self.customers.pick(&mut self.rng).map(|customer| customer.id) else {
            return;
        };
        let mut basket = BTreeMap::new();
        for _ in 0..self.rng.u8(1..6) {
            if let Some(product) = self.products.pick(&mut self.rng).filter(|product| product.active) {
                basket.insert(product.id, product.clone());
            }
        }
        if basket.is_empty() {
            return;
        }
        let order_id = self.next_id(ShopTable::Orders);
        let items: Vec<OrderItem> = (1..)
            .zip(basket.values())
            .map(|(line, product)| OrderItem {
                order_id,
                line,
                product_id: product.id,
                quantity: self.rng.i32(1..5),
                unit_price: product.price,
                discount: (self.rng.u8(..5) == 0).then_some(product.price / 10),
            })
            .collect();
        let order = Order {
            id: order_id,
            customer_id,
            status: "placed",
            total: items.iter().map(OrderItem::amount).sum(),
            ordered_at: self.now,
            shipped_on: None,
            note: invent::note(&mut self.rng),
        };
        self.note(Operation::Create, &order, None);
        self.orders.put(order);
        self.orders_of_customer.entry(customer_id).or_default().insert(order_id);
        for (item, (_, mut product)) in items.into_iter().zip(basket) {
            self.note(Operation::Create, &item, None);
            product.stock -= item.quantity;
            *self.sales_of_product.entry(product.id).or_default() += 1;
            self.items.put(item);
            if product.stock < 0 {
                product.stock += 1_000;
            }
            self.update_product(product, false);
        }
    }

    fn advance_order(&mut self) {
        let Some(mut order) = self.orders.pick(&mut self.rng).cloned() else { return };
        match order.status {
            "placed" => order.status = "paid",
            "paid" => {
                order.status = "shipped";
                order.shipped_on = i32::try_from(self.now.div_euclid(MICROS_PER_DAY)).ok();
            }
            "shipped" => order.status = "delivered",
            _ => order.note = invent::note(&mut self.rng),
        }
        self.note(Operation::Update, &order, None);
        self.orders.put(order);
    }

    /// Changes an item, and the order's total with it.
    fn change_quantity(&mut self) {
        let Some(mut item) = self.items.pick(&mut self.rng).cloned() else { return };
        item.quantity = self.rng.i32(1..9);
        self.note(Operation::Update, &item, None);
        let order_id = item.order_id;
        self.items.put(item);
        self.sum_up(order_id);
    }

    /// Deletes an item of an order that has others, and corrects the order's total.
    fn drop_item(&mut self) {
        let Some(item) = self.items.pick(&mut self.rng).cloned() else { return };
        if self.items.of(item.order_id).count() > 1 {
            self.delete_item(&item);
            self.sum_up(item.order_id);
        }
    }

    fn sum_up(&mut self, order_id: i64) {
        let Some(mut order) = self.orders.get((order_id, 0)).cloned() else { return };
        order.total = self.items.of(order_id).map(OrderItem::amount).sum();
        self.note(Operation::Update, &order, None);
        self.orders.put(order);
    }

    /// Deletes a random order with its items.
    fn archive_order(&mut self) {
        let Some((id, customer)) = self.orders.pick(&mut self.rng).map(|order| (order.id, order.customer_id))
        else {
            return;
        };
        self.delete_order(id);
        if let Some(orders) = self.orders_of_customer.get_mut(&customer) {
            orders.remove(&id);
        }
    }

    fn delete_order(&mut self, id: i64) {
        let items: Vec<OrderItem> = self.items.of(id).cloned().collect();
        for item in &items {
            self.delete_item(item);
        }
        if let Some(order) = self.orders.remove((id, 0)) {
            self.note_delete(&order);
        }
    }

    fn delete_item(&mut self, item: &OrderItem) {
        self.items.remove(item.key());
        self.note_delete(item);
        if let Some(sales) = self.sales_of_product.get_mut(&item.product_id) {
            *sales -= 1;
            if *sales == 0 {
                self.sales_of_product.remove(&item.product_id);
            }
        }
    }

    fn next_id(&mut self, table: ShopTable) -> i64 {
        let Some(last) = self.last_id.get_mut(table.index()) else { return 0 };
        *last += 1;
        *last
    }

    fn note<T: Entity>(&mut self, operation: Operation, row: &T, unchanged: Option<usize>) {
        let after = Some(row.values());
        self.transaction.push(RowChange { table: T::TABLE, operation, key: row.key(), after, unchanged });
    }

    fn note_delete<T: Entity>(&mut self, row: &T) {
        let operation = Operation::Delete;
        let (key, after, unchanged) = (row.key(), None, None);
        self.transaction.push(RowChange { table: T::TABLE, operation, key, after, unchanged });
    }
}

/// Whether to insert rather than delete: always into an empty table, never into one of twice its size.
fn grows(rng: &mut Rng, rows: usize, size: usize) -> bool {
    rng.usize(..size.max(1) * 2) >= rows
}

#[cfg(test)]
mod tests;
