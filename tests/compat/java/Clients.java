import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.OffsetAndTimestamp;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.RetriableException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** The Java client against a broker: the same program for 3.9 and 4.x. */
public final class Clients {
    private static final long FIRST_TIMESTAMP = 1_700_000_000_000L;
    private static String broker;
    private static Admin admin;

    public static void main(String[] arguments) {
        broker = arguments[0];
        admin = Admin.create(properties());
        Desk.scenario("create", Clients::create);
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            Desk.scenario("codec " + codec, () -> codec(codec));
        }
        Desk.scenario("seek by time", Clients::seekByTime);
        Desk.scenario("idempotent", Clients::idempotent);
        Desk.scenario("transactions", Clients::transactions);
        Desk.scenario("group", Clients::group);
        Desk.scenario("restart", Clients::restart);
        Desk.scenario("SASL_SSL", Secured::saslSsl);
        Desk.scenario("mTLS", Secured::mutualTls);
        Desk.scenario("registry", Clients::registry);
        Desk.end();
    }

    private static Properties properties() {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", broker);
        properties.put("default.api.timeout.ms", "40000");
        return properties;
    }

    private static void createTopic(String name, int partitions, Map<String, String> config) throws Exception {
        NewTopic topic = new NewTopic(name, partitions, (short) 1).configs(config);
        admin.createTopics(List.of(topic)).all().get();
    }

    private static KafkaProducer<byte[], byte[]> producer(Map<String, String> settings) {
        Properties properties = properties();
        properties.put("linger.ms", "20");
        properties.putAll(settings);
        return new KafkaProducer<>(properties, new ByteArraySerializer(), new ByteArraySerializer());
    }

    private static KafkaConsumer<byte[], byte[]> consumer(String group) {
        return consumer(group, 15_000);
    }

    private static KafkaConsumer<byte[], byte[]> consumer(String group, int sessionMs) {
        Properties properties = properties();
        if (group != null) {
            properties.put("group.id", group);
        }
        properties.put("enable.auto.commit", "false");
        properties.put("auto.offset.reset", "earliest");
        properties.put("session.timeout.ms", "" + sessionMs);
        properties.put("heartbeat.interval.ms", "500");
        return new KafkaConsumer<>(properties, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    private static List<ProducerRecord<byte[], byte[]>> records(String topic, int count) {
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            byte[] key = i % 7 == 3 ? null : bytes(("device-" + i % 5 + " ").repeat(10));
            byte[] value = i % 11 == 5 ? null : bytes(("reading " + i + " ").repeat(9 + i % 13));
            List<Header> headers =
                    i % 3 == 0
                            ? List.of(new RecordHeader("unit", bytes("K")), new RecordHeader("none", null))
                            : List.of();
            records.add(new ProducerRecord<>(topic, 0, FIRST_TIMESTAMP + i * 1000L, key, value, headers));
        }
        return records;
    }

    private static void send(KafkaProducer<byte[], byte[]> to, List<ProducerRecord<byte[], byte[]>> records)
            throws Exception {
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        for (ProducerRecord<byte[], byte[]> record : records) {
            sent.add(to.send(record));
        }
        to.flush();
        for (Future<RecordMetadata> future : sent) {
            future.get();
        }
    }

    private static List<ConsumerRecord<byte[], byte[]>> next(KafkaConsumer<byte[], byte[]> from, int count)
            throws Exception {
        List<ConsumerRecord<byte[], byte[]>> got = new ArrayList<>();
        Desk.until(
                () -> {
                    from.poll(Duration.ofMillis(200)).forEach(got::add);
                    return got.size() >= count;
                },
                40,
                count + " records");
        return got;
    }

    private static void same(
            List<ConsumerRecord<byte[], byte[]>> got, List<ProducerRecord<byte[], byte[]>> sent) {
        Desk.check(got.size() == sent.size(), got.size() + " records, not " + sent.size());
        for (int i = 0; i < sent.size(); i++) {
            ConsumerRecord<byte[], byte[]> left = got.get(i);
            ProducerRecord<byte[], byte[]> right = sent.get(i);
            boolean equal =
                    java.util.Arrays.equals(left.key(), right.key())
                            && java.util.Arrays.equals(left.value(), right.value())
                            && left.headers().equals(right.headers())
                            && left.timestamp() == right.timestamp();
            Desk.check(equal, "record " + i + " is " + left + ", not " + right);
        }
    }

    private static void whole(String topic, List<ProducerRecord<byte[], byte[]>> sent) throws Exception {
        try (KafkaConsumer<byte[], byte[]> reader = consumer(null)) {
            reader.assign(List.of(new TopicPartition(topic, 0)));
            same(next(reader, sent.size()), sent);
        }
    }

    private static void create() throws Exception {
        createTopic("created", 4, Map.of("retention.ms", "7200000"));
        int partitions =
                admin.describeTopics(List.of("created")).allTopicNames().get().get("created").partitions().size();
        Desk.check(partitions == 4, partitions + " partitions");
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, "created");
        String value = admin.describeConfigs(List.of(resource)).all().get().get(resource).get("retention.ms").value();
        Desk.check(value.equals("7200000"), "retention.ms is " + value);
        try {
            createTopic("created", 1, Map.of());
            Desk.check(false, "a topic can be created twice");
        } catch (ExecutionException error) {
            Desk.check(error.getCause() instanceof TopicExistsException, error.toString());
        }
    }

    private static void codec(String codec) throws Exception {
        String topic = "codec-" + codec;
        createTopic(topic, 1, Map.of());
        List<ProducerRecord<byte[], byte[]>> sent = records(topic, 300);
        try (KafkaProducer<byte[], byte[]> to = producer(Map.of("compression.type", codec))) {
            send(to, sent);
        }
        Desk.ask("codec " + topic + " 0 " + codec);
        whole(topic, sent);
    }

    private static void seekByTime() throws Exception {
        createTopic("seek", 1, Map.of());
        List<ProducerRecord<byte[], byte[]>> sent = records("seek", 100);
        try (KafkaProducer<byte[], byte[]> to = producer(Map.of())) {
            send(to, sent);
        }
        TopicPartition partition = new TopicPartition("seek", 0);
        try (KafkaConsumer<byte[], byte[]> reader = consumer(null)) {
            reader.assign(List.of(partition));
            for (int at : new int[] {0, 42, 99}) {
                long wanted = sent.get(at).timestamp() - (at == 42 ? 999 : 0);
                OffsetAndTimestamp found = reader.offsetsForTimes(Map.of(partition, wanted)).get(partition);
                Desk.check(
                        found.offset() == at && found.timestamp() == sent.get(at).timestamp(),
                        wanted + " is at " + found);
                reader.seek(partition, found.offset());
                same(next(reader, 100 - at), sent.subList(at, 100));
            }
            OffsetAndTimestamp late =
                    reader.offsetsForTimes(Map.of(partition, sent.get(99).timestamp() + 1)).get(partition);
            Desk.check(late == null, "past the end is " + late);
        }
        long latest = admin.listOffsets(Map.of(partition, OffsetSpec.maxTimestamp())).all().get().get(partition).offset();
        Desk.check(latest == 99, "the latest timestamp is at " + latest);
    }

    private static void idempotent() throws Exception {
        createTopic("idempotent", 1, Map.of());
        List<ProducerRecord<byte[], byte[]>> sent = records("idempotent", 500);
        try (KafkaProducer<byte[], byte[]> to =
                producer(Map.of("enable.idempotence", "true", "acks", "all", "batch.size", "2000"))) {
            send(to, sent);
        }
        Desk.ask("idempotent idempotent 0");
        whole("idempotent", sent);
    }

    /** Refused at once and for good; Apache Kafka begins them. */
    private static void transactions() throws Exception {
        long started = System.nanoTime();
        try (KafkaProducer<byte[], byte[]> to = producer(Map.of("transactional.id", "none-here", "acks", "all"))) {
            to.initTransactions();
        } catch (org.apache.kafka.common.errors.TransactionalIdAuthorizationException refused) {
            long seconds = (System.nanoTime() - started) / 1_000_000_000L;
            Desk.check(seconds < 15, "it took " + seconds + " s");
        }
    }

    /** A group member that polls in a thread of its own. */
    private static final class Member extends Thread {
        private final KafkaConsumer<byte[], byte[]> consumer = Clients.consumer("pair");
        private final List<String> got;
        volatile Set<Integer> owned = Set.of();
        volatile boolean leave;

        Member(List<String> got) {
            this.got = got;
            consumer.subscribe(List.of("group"));
            start();
        }

        @Override
        public void run() {
            while (!leave) {
                ConsumerRecords<byte[], byte[]> some = consumer.poll(Duration.ofMillis(100));
                if (!some.isEmpty()) {
                    // Before anyone sees them: who takes the partitions over starts behind them.
                    consumer.commitSync();
                }
                some.forEach(record -> got.add(new String(record.value(), StandardCharsets.UTF_8)));
                Set<Integer> now = new TreeSet<>();
                consumer.assignment().forEach(partition -> now.add(partition.partition()));
                owned = now;
            }
            consumer.close();
        }

        void end() throws Exception {
            leave = true;
            join(20_000);
            Desk.check(!isAlive(), "the member does not end");
        }
    }

    private static void group() throws Exception {
        createTopic("group", 4, Map.of());
        List<String> got = java.util.Collections.synchronizedList(new ArrayList<>());
        Member first = new Member(got);
        Member second = new Member(got);
        Desk.until(
                () -> {
                    Set<Integer> all = new TreeSet<>(first.owned);
                    all.addAll(second.owned);
                    return first.owned.size() == 2 && second.owned.size() == 2 && all.size() == 4;
                },
                40,
                "two members with two partitions each");
        List<ProducerRecord<byte[], byte[]>> sent = new ArrayList<>();
        Set<String> wanted = new TreeSet<>();
        for (int i = 0; i < 40; i++) {
            sent.add(new ProducerRecord<>("group", i % 4, null, bytes("" + i)));
            wanted.add("" + i);
        }
        try (KafkaProducer<byte[], byte[]> to = producer(Map.of())) {
            send(to, sent);
        }
        Desk.until(() -> got.size() >= 40, 40, "40 records in the group");
        Desk.check(got.size() == 40 && new TreeSet<>(got).equals(wanted), "other records than were sent");
        second.end();
        Desk.until(() -> first.owned.size() == 4, 40, "the one that is left takes over");
        first.end();
        Map<TopicPartition, OffsetAndMetadata> committed =
                admin.listConsumerGroupOffsets("pair").partitionsToOffsetAndMetadata().get();
        Desk.check(
                committed.size() == 4 && committed.values().stream().allMatch(at -> at.offset() == 10),
                "committed " + committed);
    }

    private static void restart() throws Exception {
        createTopic("restart", 1, Map.of());
        TopicPartition partition = new TopicPartition("restart", 0);
        List<ProducerRecord<byte[], byte[]>> sent = records("restart", 150);
        KafkaProducer<byte[], byte[]> to = producer(Map.of("reconnect.backoff.max.ms", "200"));
        KafkaConsumer<byte[], byte[]> reader = consumer("lasting", 6_000);
        reader.subscribe(List.of("restart"));
        send(to, sent.subList(0, 50));
        same(next(reader, 50), sent.subList(0, 50));
        reader.commitSync(Map.of(partition, new OffsetAndMetadata(50, "half way")));
        Desk.ask("restart term");
        send(to, sent.subList(50, 100));
        same(next(reader, 50), sent.subList(50, 100));
        Desk.until(() -> commits(reader), 40, "a commit after the restart");
        Desk.ask("restart kill");
        send(to, sent.subList(100, 150));
        to.close();
        reader.close(Duration.ofSeconds(5));
        try (KafkaConsumer<byte[], byte[]> later = consumer("lasting", 6_000)) {
            later.subscribe(List.of("restart"));
            same(next(later, 50), sent.subList(100, 150));
        }
        whole("restart", sent);
    }

    private static void put(KafkaProducer<byte[], byte[]> to, String key, String value) throws Exception {
        to.send(new ProducerRecord<>("registry", bytes(key), value == null ? null : bytes(value))).get();
    }

    /** The records of the registry from its start to its end, but for the ticks. */
    private static List<String> registered() throws Exception {
        TopicPartition partition = new TopicPartition("registry", 0);
        List<String> subjects = new ArrayList<>();
        try (KafkaConsumer<byte[], byte[]> reader = consumer(null)) {
            reader.assign(List.of(partition));
            reader.seekToBeginning(List.of(partition));
            long end = reader.endOffsets(List.of(partition)).get(partition);
            Desk.until(
                    () -> {
                        for (ConsumerRecord<byte[], byte[]> record : reader.poll(Duration.ofMillis(200))) {
                            String key = new String(record.key(), StandardCharsets.UTF_8);
                            if (!key.equals("tick")) {
                                String value =
                                        record.value() == null
                                                ? "null"
                                                : new String(record.value(), StandardCharsets.UTF_8);
                                subjects.add(key + "=" + value);
                            }
                        }
                        return reader.position(partition) >= end;
                    },
                    40,
                    "the end of the registry");
        }
        return subjects;
    }

    /** A compacted topic as a registry of schemas: the latest of each subject is left, and who starts over reads that. */
    private static void registry() throws Exception {
        createTopic(
                "registry",
                1,
                Map.of(
                        "cleanup.policy", "compact",
                        "segment.ms", "200",
                        "max.compaction.lag.ms", "500",
                        "min.cleanable.dirty.ratio", "0.01",
                        "delete.retention.ms", "0"));
        Set<String> expected = new TreeSet<>();
        try (KafkaProducer<byte[], byte[]> to = producer(Map.of("acks", "all", "linger.ms", "0"))) {
            for (int version = 0; version < 5; version++) {
                for (int n = 0; n < 40; n++) {
                    put(to, "subject-" + n, "schema " + version + " of " + n);
                }
                Thread.sleep(250);
            }
            for (int n = 0; n < 40; n++) {
                if (n < 10) {
                    put(to, "subject-" + n, null);
                } else {
                    expected.add("subject-" + n + "=schema 4 of " + n);
                }
            }
            try {
                to.send(new ProducerRecord<>("registry", bytes("keyless"))).get();
                Desk.check(false, "a record without a key is taken");
            } catch (ExecutionException error) {
                Desk.check(
                        error.getCause() instanceof org.apache.kafka.common.InvalidRecordException,
                        "without a key: " + error.getCause());
            }
            long deadline = System.nanoTime() + 60_000_000_000L;
            List<String> found;
            do {
                Desk.check(System.nanoTime() < deadline, "not within 60 s: the latest of each subject alone");
                Thread.sleep(250);
                put(to, "tick", "" + System.nanoTime());
                found = registered();
                Desk.check(found.containsAll(expected), "a schema is missing: " + found);
            } while (found.size() != expected.size());
        }
        Desk.ask("restart kill");
        List<String> found = registered();
        Desk.check(found.size() == expected.size() && expected.equals(new TreeSet<>(found)), "after the restart: " + found);
    }

    private static boolean commits(KafkaConsumer<byte[], byte[]> reader) {
        try {
            reader.commitSync(Duration.ofSeconds(5));
            return true;
        } catch (RetriableException | org.apache.kafka.clients.consumer.CommitFailedException error) {
            System.err.println("commit: " + error);
            reader.poll(Duration.ofMillis(200));
            return false;
        }
    }
}
