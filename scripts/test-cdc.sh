#!/usr/bin/env bash
# Inserts, updates and deletes rows of the shop with psql, and checks that every sink of the running stack follows:
# the lake, its raw table, both Postgres mirrors, and the raw table in the datalake.
#
#   scripts/test-cdc.sh [--timeout SECONDS]     how long a change may take to arrive, default 60
#
# Works with the stack in containers and with the native one (scripts/start.sh). Exit code 1, with the difference, where
# a sink does not get there. The changed rows stay, to look at.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
timeout=60
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) help; exit 0 ;;
    --timeout) timeout=${2:-}; shift 2 || die "--timeout needs a number of seconds" ;;
    *) die "unknown argument '$1' (see --help)" ;;
  esac
done
[[ $timeout =~ ^[0-9]+$ ]] || die "--timeout needs a number of seconds, not '$timeout'"

STACK=$(stack_kind)
export_addresses
# Containers may also run without their Alluvium, and one on this machine in its place.
lake_in_container=0
if [ "$STACK" = compose ] && [ -n "$(compose ps -q alluvium)" ]; then lake_in_container=1; fi
if [ $lake_in_container = 0 ]; then
  binary=$(alluvium_binary) || die "no Alluvium binary to query the lake with: cargo build --release, or set ALLUVIUM_BIN"
fi
port_open "$ALLUVIUM_PORT" || die "Alluvium does not answer on port $ALLUVIUM_PORT: scripts/run.sh --background starts it, scripts/logs.sh alluvium shows its log"

lake() { # statement, further arguments of `alluvium query`
  local statement=$1
  shift
  if [ $lake_in_container = 1 ]; then
    compose exec -T alluvium alluvium query "$@" "$statement" </dev/null
  else
    (cd "$PROJECT" && "$binary" query --config "$CONFIG" "$@" "$statement" </dev/null)
  fi
}

# What SINK answers to STATEMENT, in which TABLE: stands before the names of tables. Sorted here: each database
# has an order of texts of its own.
answer() { # sink, statement
  local statement
  case $1 in
    source) sql source --csv -c "${2//TABLE:/public.}" </dev/null ;;
    lake) lake "${2//TABLE:/}" --output csv ;;
    datalake) statement=${2//TABLE:cdc_events/cdc_raw.cdc_events}
      sql datalake --csv -c "${statement//TABLE:/cdc_processed.}" </dev/null ;;
    target) sql target --csv -c "${2//TABLE:/public.}" </dev/null ;;
  esac 2>&1 | tr -d '\r' | LC_ALL=C sort
}

now() { date +%s%N; }

# Waits until every SINK answers to STATEMENT with EXPECTED.
follow() { # title, statement, expected, sink...
  local title=$1 statement=$2 expected=$3 sink got left deadline=$((SECONDS + timeout))
  shift 3
  local waiting=("$@")
  while [ ${#waiting[@]} -gt 0 ]; do
    left=()
    for sink in "${waiting[@]}"; do
      # A table that is not there yet is an answer that differs, like any other.
      got=$(answer "$sink" "$statement" || true)
      if [ "$got" = "$expected" ]; then
        printf '  %-8s %s after %d ms\n' "$sink" "$title" $((($(now) - committed) / 1000000))
      elif [ $SECONDS -ge $deadline ]; then
        printf '\n%s differs from the source (-) after %s s: %s\n' "$sink" "$timeout" "$title"
        diff -u <(echo "$expected") <(echo "$got") | tail -n +4 || true
        die "$sink did not follow; scripts/check-connector.sh, scripts/logs.sh alluvium and http://localhost:$ALLUVIUM_PORT/status may tell why"
      else
        left+=("$sink")
      fi
    done
    waiting=("${left[@]}")
    [ ${#waiting[@]} = 0 ] || sleep 0.2
  done
}

# The rows of this test, and the size of each table, in one statement that all of them understand: everything is a text.
shop_rows() {
  cat <<Q
SELECT 'customer' AS what, CAST(id AS varchar) AS key, name AS a, CAST(active AS varchar) AS b, CAST(born_on AS varchar) AS c,
    CAST(credit_limit AS varchar) AS d FROM TABLE:customers WHERE email LIKE '$mark%'
UNION ALL SELECT 'product', CAST(id AS varchar), name, CAST(price AS varchar), CAST(stock AS varchar), CAST(discontinued AS varchar)
    FROM TABLE:products WHERE sku = '$mark'
UNION ALL SELECT 'order', CAST(id AS varchar), status, CAST(total AS varchar), CAST(paid AS varchar), note
    FROM TABLE:orders WHERE note = '$mark'
UNION ALL SELECT 'item', CAST(line AS varchar), CAST(product_id AS varchar), CAST(quantity AS varchar), CAST(unit_price AS varchar),
    CAST(discount AS varchar) FROM TABLE:order_items WHERE order_id = $order
UNION ALL SELECT 'rows of customers', CAST(count(*) AS varchar), NULL, NULL, NULL, NULL FROM TABLE:customers
UNION ALL SELECT 'rows of products', CAST(count(*) AS varchar), NULL, NULL, NULL, NULL FROM TABLE:products
UNION ALL SELECT 'rows of orders', CAST(count(*) AS varchar), NULL, NULL, NULL, NULL FROM TABLE:orders
UNION ALL SELECT 'rows of order_items', CAST(count(*) AS varchar), NULL, NULL, NULL, NULL FROM TABLE:order_items
Q
}

check_tables() {
  local statement
  statement=$(shop_rows)
  follow "tables equal the source" "$statement" "$(answer source "$statement")" lake datalake target
}

change() { # title; SQL on standard input, one transaction
  echo "$1"
  sql source -1 -f - || die "psql could not change the source (see above)"
  committed=$(now)
}

mark=test-$(date +%s)-$$
change "insert: two customers, a product, an order with two items ($mark)" <<SQL
INSERT INTO customers (name, email, active, born_on, credit_limit, preferences, avatar) VALUES
  ('Emmy', '$mark-a@example.com', true, '1882-03-23', 500.00, '{"newsletter": true}', '\xcafe'),
  ('Srinivasa', '$mark-b@example.com', false, NULL, NULL, NULL, NULL);
INSERT INTO products (sku, name, price, weight_kg, stock) VALUES ('$mark', 'Black tea', 12.30, 0.25, 10);
INSERT INTO orders (customer_id, total, ship_to, note)
  SELECT id, 36.90, '{"city": "Erlangen"}', '$mark' FROM customers WHERE email = '$mark-a@example.com';
INSERT INTO order_items (order_id, line, product_id, quantity, unit_price)
  SELECT o.id, line, p.id, line, p.price FROM orders o, products p, generate_series(1, 2) line
  WHERE o.note = '$mark' AND p.sku = '$mark';
SQL
read -r customer_a customer_b product order < <(sql source -At -F ' ' -c "
  SELECT (SELECT id FROM customers WHERE email = '$mark-a@example.com'), (SELECT id FROM customers WHERE email = '$mark-b@example.com'),
         (SELECT id FROM products WHERE sku = '$mark'), (SELECT id FROM orders WHERE note = '$mark')" </dev/null)
check_tables

change "update: a NULL, a price, a status, a quantity" <<SQL
UPDATE customers SET credit_limit = NULL, name = 'Emmy Noether' WHERE id = $customer_a;
UPDATE products SET price = 11.95, stock = stock - 3, discontinued = true WHERE id = $product;
UPDATE orders SET status = 'shipped', paid = true WHERE id = $order;
UPDATE order_items SET quantity = 5, discount = 0.0250 WHERE order_id = $order AND line = 1;
SQL
check_tables

change "delete: a customer, an item" <<SQL
DELETE FROM customers WHERE id = $customer_b;
DELETE FROM order_items WHERE order_id = $order AND line = 2;
SQL
check_tables

# Every change once, in its order.
echo "raw tables: every one of these changes, once and in order"
history="" separator=""
while read -r name table condition; do
  history+="$separator SELECT '$name' AS changed, operation, row_number() OVER (ORDER BY \"offset\") AS nth
    FROM TABLE:cdc_events WHERE source_table = '$table' AND CAST(key AS varchar) LIKE '$condition'"
  separator=" UNION ALL"
done <<P
customer-a customers %"id":$customer_a}
customer-b customers %"id":$customer_b}
product products %"id":$product}
order orders %"id":$order}
item-1 order_items %"order_id":$order,"line":1}
item-2 order_items %"order_id":$order,"line":2}
P
expected=$(LC_ALL=C sort <<P
changed,operation,nth
customer-a,c,1
customer-a,u,2
customer-b,c,1
customer-b,d,2
item-1,c,1
item-1,u,2
item-2,c,1
item-2,d,2
order,c,1
order,u,2
product,c,1
product,u,2
P
)
follow "has them" "$history" "$expected" lake datalake

echo
lake "SELECT source_table, key, operation, source_timestamp FROM cdc_events WHERE source_table = 'order_items' AND CAST(key AS varchar) LIKE '%\"order_id\":$order,%'" || true
sql target -c "SELECT * FROM public.order_items WHERE order_id = $order" </dev/null
echo "test-cdc: all sinks follow"
