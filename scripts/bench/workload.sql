-- The benchmark's changes; variables :inserts :updates :deletes :txn.
-- One statement a row, committed every :txn rows, so that Debezium sees many small transactions. Updates and deletes
-- are scattered over all keys.
SELECT setseed(0.42);
CREATE OR REPLACE PROCEDURE bench_insert(n int, txn int) LANGUAGE plpgsql AS $$
BEGIN
  FOR i IN 1..n LOOP
    INSERT INTO public.orders VALUES (
      i, (i * 7919) % 5000, (ARRAY['new','paid','packed','shipped'])[1 + i % 4],
      ((i * 37) % 1000000) / 100.0,
      CASE WHEN i % 50 = 0 THEN NULL ELSE 'note ' || i || ' ' || md5(i::text) || ' "quoted" \ é €' END,
      timestamp '2026-01-01' + i * interval '1.000001 s',
      timestamptz '2026-01-01 00:00:00Z' + i * interval '1.000001 s');
    IF i % txn = 0 THEN COMMIT; END IF;
  END LOOP;
  COMMIT;
END $$;
CREATE OR REPLACE PROCEDURE bench_update(n int, keys int, txn int) LANGUAGE plpgsql AS $$
DECLARE k bigint;
BEGIN
  FOR i IN 1..n LOOP
    -- Drawn first: random() in WHERE would be evaluated for each row.
    k := 1 + floor(random() * keys)::int;
    UPDATE public.orders SET
      status = (ARRAY['paid','packed','shipped','returned','closed'])[1 + i % 5],
      amount = amount + (i % 100) / 100.0,
      updated_at = timestamptz '2026-06-01 00:00:00Z' + i * interval '1.000001 s'
    WHERE order_id = k;
    IF i % txn = 0 THEN COMMIT; END IF;
  END LOOP;
  COMMIT;
END $$;
CREATE OR REPLACE PROCEDURE bench_delete(n int, txn int) LANGUAGE plpgsql AS $$
DECLARE ks bigint[];
BEGIN
  SELECT array_agg(order_id ORDER BY md5(order_id::text)) INTO ks FROM public.orders;
  FOR i IN 1..n LOOP
    DELETE FROM public.orders WHERE order_id = ks[i];
    IF i % txn = 0 THEN COMMIT; END IF;
  END LOOP;
  COMMIT;
END $$;
CALL bench_insert(:inserts, :txn);
CALL bench_update(:updates, :inserts, :txn);
CALL bench_delete(:deletes, :txn);
