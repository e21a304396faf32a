"""The events of a topic of one partition, as a Python consumer reads them."""

from collections.abc import Iterator

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

SILENCE = 30.0


def batches(broker: str, topic: str, size: int, first: int = 0) -> Iterator[list[Message]]:
    """Everything up to the end that the topic has now, in lists of `size` events; tombstones are left out."""
    # By default the client waits a second whenever its queue was full, and halves its speed with that.
    settings = {"bootstrap.servers": broker, "group.id": "bench-python", "enable.auto.commit": False, "fetch.queue.backoff.ms": 5}
    consumer = Consumer(settings)
    end = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=SILENCE)[1]
    consumer.assign([TopicPartition(topic, 0, first)])
    offset, events = first, []
    while offset < end:
        messages = consumer.consume(min(size - len(events), end - offset), timeout=SILENCE)
        if not messages:
            raise SystemExit(f"{topic}: nothing came for {SILENCE:.0f} s at offset {offset}, the end is {end}")
        for message in messages:
            if message.error():
                raise KafkaException(message.error())
            offset = message.offset() + 1
            if message.value() is not None:
                events.append(message)
        if len(events) == size:
            yield events
            events = []
    if events:
        yield events
    consumer.close()
