"""Writes events of the orders table to Kafka in the form in which Debezium writes them (without schema block): a snapshot
of ROWS rows, then changes at a fixed rate, whose source time is the moment at which they are written. Prints what the
table has to hold at the end: rows, sum of keys, sum of amounts.

    events.py BROKER TOPIC ROWS RATE SECONDS

For runs that load Alluvium alone: a real Debezium at 5,000 events a second takes most of a core for itself. Of ten changes
eight are updates of scattered keys, one inserts, one deletes the oldest row, so that the table keeps its size.
"""

import hashlib
import random
import sys
import time

from confluent_kafka import Producer

STATUS = ["paid", "packed", "shipped", "returned", "closed"]
DAY_ZERO = 1_767_225_600_000_000


class Table:
    def __init__(self, producer: Producer, topic: str):
        self.producer, self.topic = producer, topic
        self.lowest, self.next, self.cents, self.sequence = 1, 1, {}, 0
        self.random = random.Random(42)

    def row(self, key: int, status: str) -> str:
        note = "null" if key % 50 == 0 else f'"note {key} {hashlib.md5(b"%d" % key).hexdigest()} \\"quoted\\" \\\\ é €"'
        return (
            f'{{"order_id":{key},"customer_id":{key * 7919 % 5000},"status":"{status}","amount":"{self.cents[key] / 100:.2f}",'
            f'"note":{note},"created_at":{DAY_ZERO + key * 1_000_001},"updated_at":"2026-06-01T00:00:{self.sequence % 60:02}.000000Z"}}'
        )

    def send(self, op: str, key: int, row: str | None) -> None:
        self.sequence += 1
        micros = time.time_ns() // 1000
        lsn = 23_681_128 + self.sequence * 120
        before = "null" if row else f'{{"order_id":{key},"customer_id":null,"status":null,"amount":null,"note":null,"created_at":null,"updated_at":null}}'
        snapshot = '"true"' if op == "r" else '"false"'
        value = (
            f'{{"before":{before},"after":{row or "null"},"source":{{"version":"3.7.0.Final","connector":"postgresql","name":"soak",'
            f'"ts_ms":{micros // 1000},"snapshot":{snapshot},"db":"bench_source","sequence":"[\\"{lsn}\\",\\"{lsn}\\"]","ts_us":{micros},'
            f'"ts_ns":{micros}000,"schema":"public","table":"orders","txId":{700 + self.sequence // 50},"lsn":{lsn},"xmin":null}},'
            f'"transaction":null,"op":"{op}","ts_ms":{micros // 1000},"ts_us":{micros},"ts_ns":{micros}000}}'
        )
        encoded = b'{"order_id":%d}' % key
        self.produce(encoded, value.encode())
        if op == "d":
            self.produce(encoded, None)

    def produce(self, key: bytes, value: bytes | None) -> None:
        while True:
            try:
                return self.producer.produce(self.topic, value, key, partition=0)
            except BufferError:
                self.producer.poll(0.1)

    def insert(self, op: str) -> None:
        key, self.next = self.next, self.next + 1
        self.cents[key] = key * 37 % 1_000_000
        self.send(op, key, self.row(key, "new"))

    def change(self, number: int) -> None:
        if number % 10 == 0:
            self.insert("c")
        elif number % 10 == 5:
            key, self.lowest = self.lowest, self.lowest + 1
            del self.cents[key]
            self.send("d", key, None)
        else:
            key = self.random.randrange(self.lowest, self.next)
            self.cents[key] += 1
            self.send("u", key, self.row(key, STATUS[number % 5]))


def main() -> None:
    broker, topic = sys.argv[1:3]
    rows, rate, seconds = (int(argument) for argument in sys.argv[3:6])
    table = Table(Producer({"bootstrap.servers": broker, "linger.ms": 20, "compression.type": "lz4"}), topic)
    for _ in range(rows):
        table.insert("r")
    table.producer.flush()
    print("snapshot written", file=sys.stderr, flush=True)
    started, number = time.monotonic(), 0
    while (elapsed := time.monotonic() - started) < seconds:
        due = int(elapsed * rate)
        while number < due:
            number += 1
            table.change(number)
        table.producer.poll(0)
        time.sleep(0.02)
    table.producer.flush()
    cents = sum(table.cents.values())
    print(f"{len(table.cents)},{sum(table.cents)},{cents // 100}.{cents % 100:02}")


main()
