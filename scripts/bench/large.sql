-- A large table of orders, and changes of scattered keys; variable :rows.
SET synchronous_commit = off;
INSERT INTO public.orders
SELECT i, (i * 7919) % 5000, (ARRAY['new','paid','packed','shipped'])[1 + i % 4], ((i * 37) % 1000000) / 100.0,
  CASE WHEN i % 50 = 0 THEN NULL ELSE 'note ' || i || ' ' || md5(i::text) || ' "quoted" \ é €' END,
  timestamp '2026-01-01' + i * interval '1.000001 s', timestamptz '2026-01-01 00:00:00Z' + i * interval '1.000001 s'
FROM generate_series(1::bigint, :rows) i;
-- Of eleven changes nine are updates, one an insert, one a delete; one statement a row, committed every `txn` rows. A
-- delete takes keys from the low end in scattered order, so that each exists and is never updated afterwards.
CREATE OR REPLACE PROCEDURE bench_change(n int, keys int, txn int) LANGUAGE plpgsql AS $$
DECLARE k bigint; doomed bigint := n / 11 + 1;
BEGIN
  FOR i IN 1..n LOOP
    IF i % 11 = 0 THEN
      -- 7919 is prime and larger than any common factor: each of the first `doomed` keys comes once.
      DELETE FROM public.orders WHERE order_id = 1 + ((i / 11) * 7919::bigint) % doomed;
    ELSIF i % 11 = 5 THEN
      INSERT INTO public.orders VALUES (keys + i, i % 5000, 'new', i / 100.0, 'note ' || i || ' ' || md5(i::text),
        timestamp '2026-02-01' + i * interval '1 s', timestamptz '2026-02-01 00:00:00Z' + i * interval '1 s');
    ELSE
      k := doomed + 1 + floor(random() * (keys - doomed))::int;
      UPDATE public.orders SET status = (ARRAY['paid','packed','shipped','returned','closed'])[1 + i % 5],
        amount = amount + (i % 100) / 100.0, updated_at = timestamptz '2026-06-01 00:00:00Z' + i * interval '1.000001 s'
      WHERE order_id = k;
    END IF;
    IF i % txn = 0 THEN COMMIT; END IF;
  END LOOP;
  COMMIT;
END $$;
