//! What the shop keeps to, whatever happens in it.

use super::*;

/// What a follower knows who has seen nothing but the changes.
fn apply(copy: &mut [BTreeMap<Key, Row>; 4], change: RowChange) {
    let rows = &mut copy[change.table.index()];
    let known = rows.contains_key(&change.key);
    match change.operation {
        Operation::Create | Operation::Read => assert!(!known, "inserted twice: {change:?}"),
        Operation::Update | Operation::Delete => {
            assert!(known, "changed before it was there: {change:?}");
        }
        Operation::Truncate => panic!("the shop empties no table: {change:?}"),
    }
    match change.after {
        Some(row) => rows.insert(change.key, row),
        None => rows.remove(&change.key),
    };
}

fn check(shop: &Shop) {
    for order in shop.orders.iter() {
        assert!(shop.customers.get((order.customer_id, 0)).is_some(), "{order:?} without customer");
        let total: i64 = shop.items.of(order.id).map(OrderItem::amount).sum();
        assert_eq!(order.total, total, "total of {order:?}");
    }
    for item in shop.items.iter() {
        assert!(shop.orders.get((item.order_id, 0)).is_some(), "{item:?} without order");
        assert!(shop.products.get((item.product_id, 0)).is_some(), "{item:?} without product");
    }
}

#[test]
fn the_changes_rebuild_the_shop_and_references_hold() {
    let size = ShopSize { customers: 60, products: 40, orders: 200 };
    let mut shop = Shop::open(7, size, 0);
    let mut copy = <[BTreeMap<Key, Row>; 4]>::default();
    shop.snapshot().for_each(|change| apply(&mut copy, change));
    let mut seen = HashMap::new();
    for step in 0..100_000 {
        for change in shop.transact(step) {
            *seen.entry((change.table, change.operation.code())).or_insert(0_u32) += 1;
            apply(&mut copy, change);
        }
        if step % 1_000 == 0 {
            check(&shop);
        }
    }
    for table in TABLES {
        let truth: BTreeMap<Key, Row> = shop.rows(table).collect();
        assert_eq!(copy[table.index()], truth, "{}", table.name());
        for operation in ["c", "u", "d"] {
            assert!(seen.contains_key(&(table, operation)), "no {operation} of {}", table.name());
        }
    }
}

#[test]
fn no_table_grows_beyond_twice_its_size() {
    let size = ShopSize { customers: 30, products: 20, orders: 100 };
    let mut shop = Shop::open(3, size, 0);
    for step in 0..100_000 {
        shop.transact(step);
        for (table, most) in TABLES.into_iter().zip([60, 40, 200, 200 * 5]) {
            let rows = shop.len(table);
            assert!(rows <= most, "{} has {rows} rows after {step} transactions", table.name());
        }
    }
}

#[test]
fn the_same_seed_makes_the_same_shop() {
    let run = |seed| {
        let mut shop = Shop::open(seed, ShopSize::default(), 5);
        (0..500).flat_map(|step| shop.transact(step)).map(|change| change.after).collect::<Vec<_>>()
    };
    assert_eq!(run(11), run(11));
    assert_ne!(run(11), run(12));
}

#[test]
fn only_long_descriptions_are_left_out_and_only_of_updates() {
    let mut shop = Shop::open(5, ShopSize::default(), 0);
    let mut left_out = 0;
    for step in 0..5_000 {
        for change in shop.transact(step).into_iter().filter(|change| change.unchanged.is_some()) {
            assert_eq!((change.table, change.operation), (ShopTable::Products, Operation::Update));
            left_out += 1;
        }
    }
    assert!(left_out > 100, "{left_out} updates left a description out");
}
