//! The four tables of the shop: their columns, and a row of each as a type.
//!
//! [`ShopTable::schema`] is the one description of a table: the events' schema block, the shop's rows and the check of
//! the lake all follow its columns, in its order.

use std::sync::{Arc, LazyLock};

use crate::change::{Column, ColumnType, TableSchema};

/// A table of the shop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ShopTable {
    /// Who buys. Key `id`.
    Customers,
    /// What is sold. Key `id`; `description` is long enough to be TOASTed in some rows.
    Products,
    /// Who bought when. Key `id`, refers to customers.
    Orders,
    /// What was bought. Key `(order_id, line)`, refers to orders and products.
    OrderItems,
}

/// All tables, each after those it refers to.
pub const TABLES: [ShopTable; 4] =
    [ShopTable::Customers, ShopTable::Products, ShopTable::Orders, ShopTable::OrderItems];

/// Key of a row: `(id, 0)`, or `(order_id, line)`.
pub type Key = (i64, i32);

/// Index of `products.description` among its columns: the column that Postgres stores out of line.
pub const DESCRIPTION: usize = 3;

impl ShopTable {
    /// Table name in the source.
    pub fn name(self) -> &'static str {
        match self {
            Self::Customers => "customers",
            Self::Products => "products",
            Self::Orders => "orders",
            Self::OrderItems => "order_items",
        }
    }

    /// Place in [`TABLES`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// Columns, types and key.
    pub fn schema(self) -> &'static TableSchema {
        static SCHEMAS: LazyLock<[TableSchema; 4]> = LazyLock::new(|| TABLES.map(describe));
        let [customers, products, orders, order_items] = &*SCHEMAS;
        match self {
            Self::Customers => customers,
            Self::Products => products,
            Self::Orders => orders,
            Self::OrderItems => order_items,
        }
    }
}

fn describe(table: ShopTable) -> TableSchema {
    let (columns, key) = columns(table);
    let columns = columns
        .into_iter()
        .map(|(name, column_type, nullable)| Column { name: name.into(), column_type, nullable })
        .collect();
    TableSchema::new(columns, key)
}

/// Name, type and whether it may be null, of each column; and the places of those of the key.
fn columns(table: ShopTable) -> (Vec<(&'static str, ColumnType, bool)>, Vec<usize>) {
    use ColumnType::{Boolean, Date, Int32, Int64, Jsonb, Text, TimestampTz, Uuid};
    let money = |precision| ColumnType::Decimal { precision, scale: 2 };
    match table {
        ShopTable::Customers => (
            vec![
                ("id", Int64, false),
                ("external_id", Uuid, false),
                ("name", Text, false),
                ("email", Text, true),
                ("birth_date", Date, true),
                ("newsletter", Boolean, false),
                ("preferences", Jsonb, true),
                ("created_at", TimestampTz, false),
            ],
            vec![0],
        ),
        ShopTable::Products => (
            vec![
                ("id", Int64, false),
                ("sku", Text, false),
                ("name", Text, false),
                ("description", Text, true),
                ("price", money(10), false),
                ("stock", Int32, false),
                ("active", Boolean, false),
                ("attributes", Jsonb, true),
                ("updated_at", TimestampTz, false),
            ],
            vec![0],
        ),
        ShopTable::Orders => (
            vec![
                ("id", Int64, false),
                ("customer_id", Int64, false),
                ("status", Text, false),
                ("total", money(12), false),
                ("ordered_at", TimestampTz, false),
                ("shipped_on", Date, true),
                ("note", Text, true),
            ],
            vec![0],
        ),
        ShopTable::OrderItems => (
            vec![
                ("order_id", Int64, false),
                ("line", Int32, false),
                ("product_id", Int64, false),
                ("quantity", Int32, false),
                ("unit_price", money(10), false),
                ("discount", money(10), true),
            ],
            vec![0, 1],
        ),
    }
}

/// A value of a row, in the unit that the column's [`ColumnType`] has in Arrow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// SQL null.
    Null,
    /// `boolean`
    Boolean(bool),
    /// `integer`
    Int32(i32),
    /// `bigint`
    Int64(i64),
    /// `numeric`: the digits without the point.
    Decimal(i128),
    /// `text`, `uuid` and `jsonb` in their text form.
    Text(Arc<str>),
    /// `date`: days since 1970-01-01.
    Date(i32),
    /// `timestamptz`: microseconds since 1970-01-01 00:00 UTC.
    TimestampTz(i64),
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl From<Arc<str>> for Value {
    fn from(text: Arc<str>) -> Self {
        Self::Text(text)
    }
}

/// Values of a row, one a column of [`ShopTable::schema`].
pub type Row = Vec<Value>;

/// A row of one of the tables.
pub trait Entity: Clone {
    /// Its table.
    const TABLE: ShopTable;

    /// Its key.
    fn key(&self) -> Key;

    /// Its values.
    fn values(&self) -> Row;
}

/// A row of `customers`.
#[derive(Debug, Clone)]
pub struct Customer {
    /// Key.
    pub id: i64,
    /// A UUID in its text form.
    pub external_id: Arc<str>,
    /// Full name.
    pub name: Arc<str>,
    /// Address, where one was given.
    pub email: Option<Arc<str>>,
    /// Days since 1970-01-01.
    pub birth_date: Option<i32>,
    /// Whether to send the newsletter.
    pub newsletter: bool,
    /// JSON text as `jsonb` prints it.
    pub preferences: Option<Arc<str>>,
    /// Microseconds since 1970 UTC.
    pub created_at: i64,
}

impl Entity for Customer {
    const TABLE: ShopTable = ShopTable::Customers;

    fn key(&self) -> Key {
        (self.id, 0)
    }

    fn values(&self) -> Row {
        vec![
            Value::Int64(self.id),
            Value::Text(self.external_id.clone()),
            Value::Text(self.name.clone()),
            self.email.clone().into(),
            self.birth_date.map_or(Value::Null, Value::Date),
            Value::Boolean(self.newsletter),
            self.preferences.clone().into(),
            Value::TimestampTz(self.created_at),
        ]
    }
}

/// A row of `products`.
#[derive(Debug, Clone)]
pub struct Product {
    /// Key.
    pub id: i64,
    /// Article number.
    pub sku: Arc<str>,
    /// What it is called.
    pub name: Arc<str>,
    /// What the catalogue says; several kilobytes for some products.
    pub description: Option<Arc<str>>,
    /// Cents.
    pub price: i64,
    /// Pieces at hand; negative when oversold.
    pub stock: i32,
    /// Whether it can be ordered.
    pub active: bool,
    /// JSON text as `jsonb` prints it.
    pub attributes: Option<Arc<str>>,
    /// Microseconds since 1970 UTC.
    pub updated_at: i64,
}

impl Entity for Product {
    const TABLE: ShopTable = ShopTable::Products;

    fn key(&self) -> Key {
        (self.id, 0)
    }

    fn values(&self) -> Row {
        vec![
            Value::Int64(self.id),
            Value::Text(self.sku.clone()),
            Value::Text(self.name.clone()),
            self.description.clone().into(),
            Value::Decimal(self.price.into()),
            Value::Int32(self.stock),
            Value::Boolean(self.active),
            self.attributes.clone().into(),
            Value::TimestampTz(self.updated_at),
        ]
    }
}

/// A row of `orders`.
#[derive(Debug, Clone)]
pub struct Order {
    /// Key.
    pub id: i64,
    /// The customer who ordered.
    pub customer_id: i64,
    /// `placed`, `paid`, `shipped` or `delivered`.
    pub status: &'static str,
    /// Cents: the sum of its items.
    pub total: i64,
    /// Microseconds since 1970 UTC.
    pub ordered_at: i64,
    /// Days since 1970-01-01, once shipped.
    pub shipped_on: Option<i32>,
    /// What the customer wrote.
    pub note: Option<Arc<str>>,
}

impl Entity for Order {
    const TABLE: ShopTable = ShopTable::Orders;

    fn key(&self) -> Key {
        (self.id, 0)
    }

    fn values(&self) -> Row {
        vec![
            Value::Int64(self.id),
            Value::Int64(self.customer_id),
            Value::Text(self.status.into()),
            Value::Decimal(self.total.into()),
            Value::TimestampTz(self.ordered_at),
            self.shipped_on.map_or(Value::Null, Value::Date),
            self.note.clone().into(),
        ]
    }
}

/// A row of `order_items`.
#[derive(Debug, Clone)]
pub struct OrderItem {
    /// The order it belongs to; first part of the key.
    pub order_id: i64,
    /// Its place in the order, from 1; second part of the key.
    pub line: i32,
    /// What was bought.
    pub product_id: i64,
    /// Pieces.
    pub quantity: i32,
    /// Cents a piece, when it was ordered.
    pub unit_price: i64,
    /// Cents off the line's amount.
    pub discount: Option<i64>,
}

impl OrderItem {
    /// Cents that the line costs.
    pub fn amount(&self) -> i64 {
        i64::from(self.quantity) * self.unit_price - self.discount.unwrap_or(0)
    }
}

impl Entity for OrderItem {
    const TABLE: ShopTable = ShopTable::OrderItems;

    fn key(&self) -> Key {
        (self.order_id, self.line)
    }

    fn values(&self) -> Row {
        vec![
            Value::Int64(self.order_id),
            Value::Int32(self.line),
            Value::Int64(self.product_id),
            Value::Int32(self.quantity),
            Value::Decimal(self.unit_price.into()),
            self.discount.map_or(Value::Null, |cents| Value::Decimal(cents.into())),
        ]
    }
}
