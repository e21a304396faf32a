//! Events without schema block: types come from the settings, and stay with the table.

use crate::oracle::assert_all_equal;
use crate::shop::Plan;
use crate::workload::{seed, work};

/// The types of the shop's columns, as somebody would write them down.
const TYPES: &str = r#"
[[tables]]
source = "public.customers"
types = { id = "int64", public_id = "uuid", name = "text", email = "text", active = "boolean", born_on = "date", credit_limit = "decimal(12,2)", preferences = "jsonb", avatar = "bytes", created_at = "timestamptz" }

[[tables]]
source = "public.products"
types = { id = "int32", sku = "text", name = "text", description = "text", price = "decimal(10,2)", weight_kg = "float64", stock = "int32", discontinued = "boolean", attributes = "jsonb", released_on = "date", updated_at = "timestamp" }

[[tables]]
source = "public.orders"
types = { id = "int64", customer_id = "int64", status = "text", total = "decimal(12,2)", paid = "boolean", ship_to = "jsonb", note = "text", deliver_on = "date", placed_at = "timestamptz" }

[[tables]]
source = "public.order_items"
types = { order_id = "int64", line = "int16", product_id = "int32", quantity = "int32", unit_price = "decimal(10,2)", discount = "decimal(5,4)", gift_wrap = "boolean" }

[[tables]]
source = "public.barrier"
types = { id = "int32", passed = "int64" }
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_without_schema_block_take_their_types_from_the_settings() {
    let mut plan = Plan::new("schemaless");
    plan.schema_blocks = false;
    plan.settings = TYPES.to_owned();
    let shop = plan.open().await;
    shop.catch_up().await;
    assert_all_equal(&shop).await;
    work(&shop, seed(), 2, 1_000).await;
    shop.catch_up().await;
    assert_all_equal(&shop).await;

    // The tables know their types by now.
    let settings = std::fs::read_to_string(&shop.settings).unwrap();
    std::fs::write(&shop.settings, settings.replace(TYPES, "")).unwrap();
    work(&shop, seed(), 2, 300).await;
    shop.catch_up().await;
    assert_all_equal(&shop).await;
}
