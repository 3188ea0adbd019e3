"""kafka-python as a member of a group under chaos: see python/logbook.py."""

from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from kafka.errors import FencedInstanceIdError, KafkaError
from kafka.structs import OffsetAndMetadata

from logbook import BROKER, GROUP, INSTANCE, LEAVING, REBALANCE_MS, SESSION_MS, TOPIC, commit, say


def connect():
    """This client gives up at once if no broker answers when it is made."""
    while True:
        try:
            return KafkaConsumer(
                bootstrap_servers=BROKER, group_id=GROUP, group_instance_id=INSTANCE, enable_auto_commit=False,
                auto_offset_reset="earliest", session_timeout_ms=SESSION_MS, heartbeat_interval_ms=SESSION_MS // 8,
                max_poll_interval_ms=REBALANCE_MS, metadata_max_age_ms=5000,
                partition_assignment_strategy=[RangePartitionAssignor, RoundRobinPartitionAssignor])
        except KafkaError as error:
            say("trouble", why=repr(error))
            if LEAVING.wait(0.2):
                raise SystemExit(0) from error


consumer = connect()


def generation():
    return consumer.group_metadata().generation_id


class Listener(ConsumerRebalanceListener):
    def on_partitions_assigned(self, assigned):
        say("assigned", generation=generation(), partitions=sorted(each.partition for each in assigned))

    def on_partitions_revoked(self, revoked):
        say("revoked")

    def on_partitions_lost(self, lost):
        say("lost")


def knows_the_topic():
    try:
        return consumer.partitions_for_topic(TOPIC)
    except KafkaError as error:
        say("trouble", why=repr(error))
        return None


def work():
    got = consumer.poll(1000)
    offsets = {}
    for partition, messages in got.items():
        say("seen", partition=partition.partition, records=[[each.offset, each.value.decode()] for each in messages])
        offsets[partition.partition] = messages[-1].offset + 1
    if not offsets:
        return

    def attempt():
        try:
            consumer.commit({TopicPartition(TOPIC, partition): OffsetAndMetadata(offset, "", -1)
                             for partition, offset in offsets.items()}, timeout_ms=5000)
        except FencedInstanceIdError:
            raise
        except KafkaError as error:
            return repr(error)

    commit(attempt, generation, offsets)


consumer.subscribe([TOPIC], listener=Listener())
# As a leader that does not know the topic yet, kafka-python 3.0.12 gives everybody nothing, and joins again once it does.
# If a poll ends while it does so, it never takes up what it is assigned then. Both are its own affair, and would hide what
# is the broker's: so it gets to know the topic first, and polls for long.
while not LEAVING.is_set() and not knows_the_topic():
    LEAVING.wait(0.2)
while not LEAVING.is_set():
    try:
        work()
    except FencedInstanceIdError as error:
        say("fenced", why=repr(error))
        break
    except KafkaError as error:
        # The broker may be away; the client goes on with the next poll.
        say("trouble", why=repr(error))
consumer.close(timeout_ms=5000)
