"""Reads and writes records of Dwell's Kafka topics with nothing but docs/kafka.md. Called by interop.rs."""

import json
import sys

from confluent_kafka import Consumer, Producer, TopicPartition

bootstrap, prefix, schema_path = sys.argv[1:]
schema = json.load(open(schema_path))
try:
    import jsonschema

    validator = jsonschema.Draft202012Validator(schema)
except ImportError:
    print("jsonschema is not there: records are not checked against the schema")
    validator = None

consumer = Consumer(
    {
        "bootstrap.servers": bootstrap,
        "group.id": "interop",
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",
    }
)


def read(kind, expected):
    topic = f"{prefix}.{kind}"
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
    found = []
    while len(found) < expected:
        message = consumer.poll(20)
        assert message is not None, f"{len(found)} of {expected} records came"
        assert message.error() is None, message.error()
        event = json.loads(message.value())
        if validator:
            validator.validate(event)
        assert event["v"] == 1 and event["kind"] == kind
        assert message.key().decode() == f"{event['tenant']}/{event['venue']}"
        # 2 is the time at which the broker appended the record.
        assert message.timestamp()[0] == 2
        found.append((message.partition(), event))
    return found


[(shard, position)] = read("position", 1)
assert position == {
    "v": 1,
    "tenant": "acme",
    "venue": "Koeln",
    "kind": "position",
    "receipt": "00000000000000000000000000000001",
    "sensor": "s 1",
    "ts": 1792879200000,
    "track": 't"1',
    "x": 1.1,
    "y": 0.0,
}, position
[(same_shard, transaction)] = read("transaction", 1)
assert same_shard == shard, "a venue has one partition number in all topics"
assert transaction["received_at"] == 1790000000000 and transaction["revision"] == 2
assert transaction["number"] == "R-17" and "void" not in transaction
assert transaction["items"] == [{"sku": "Ä", "quantity": 2, "amount": 1250}]

problems = []


def delivered(error, message):
    if error or message.partition() != shard:
        problems.append((error, message.partition()))


# The partitioner of Kafka's Java client; librdkafka's own default is another.
producer = Producer({"bootstrap.servers": bootstrap, "partitioner": "murmur2_random", "acks": "all"})
count = {
    "v": 1,
    "tenant": "acme",
    "venue": "Koeln",
    "kind": "count",
    "receipt": f"{0xABC:032x}",
    "sensor": "door",
    "ts": 1792879200000,
    "counter": "in",
    "value": 42,
    "mode": "delta",
}
if validator:
    validator.validate(count)
    assert list(validator.iter_errors({**count, "v": 2})), "another version is not of this schema"
    assert list(validator.iter_errors({k: v for k, v in count.items() if k != "value"}))
producer.produce(f"{prefix}.count", key="acme/Koeln", value=json.dumps(count), on_delivery=delivered)
assert producer.flush(20) == 0
assert not problems, problems
print("read and written")
