import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.IdentityHashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.consumer.AcknowledgeType;
import org.apache.kafka.clients.consumer.AcknowledgementCommitCallback;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaShareConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicIdPartition;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.InvalidRecordStateException;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Kafka's share consumer (KIP-932): topics of one partition, several consumers. The argument is the bootstrap server.
 *
 * <p>That nothing more comes is shown by a record that is sent then and comes alone: who has not joined its group yet would see nothing, too.
 */
public final class Shares {
    private static final int COMES_SECONDS = 60;
    /** The numbers of records that are to come alone begin here. */
    private static final int ALONE = 1000;

    private static String server;
    private static Admin admin;
    private static int alone = ALONE;
    private static final Map<KafkaShareConsumer<String, String>, String> MODES = new IdentityHashMap<>();
    /** What was acknowledged before the kill. */
    private static final TreeSet<Integer> DONE = new TreeSet<>();

    private Shares() {}

    public static void main(String[] arguments) throws Exception {
        server = arguments[0];
        admin = Admin.create(Map.of("bootstrap.servers", server));
        Desk.scenario("implicit", Shares::implicit);
        Desk.scenario("explicit", Shares::explicit);
        Desk.scenario("expiry", Shares::expiry);
        Desk.scenario("subscription", Shares::subscription);
        Desk.scenario("reset", Shares::reset);
        Desk.scenario("what must be acknowledged", Shares::mustAcknowledge);
        Desk.scenario("callback", Shares::callback);
        Desk.scenario("parts of a batch", Shares::parts);
        Desk.scenario("given back", Shares::givenBack);
        Desk.scenario("delivery limit", Shares::deliveryLimit);
        Desk.scenario("renewal", Shares::renewal);
        Desk.scenario("groups", Shares::groups);
        Desk.scenario("records as sent", Shares::asSent);
        Desk.scenario("deleted records", Shares::deletedRecords);
        Desk.scenario("topics come and go", Shares::comeAndGo);
        Desk.scenario("kill", Shares::kill);
        Desk.end();
    }

    private static void create(String topic) throws Exception {
        admin.createTopics(List.of(new NewTopic(topic, 1, (short) 1))).all().get();
    }

    private static void set(String group, String name, String value) throws Exception {
        ConfigResource resource = new ConfigResource(ConfigResource.Type.GROUP, group);
        AlterConfigOp op = new AlterConfigOp(new ConfigEntry(name, value), AlterConfigOp.OpType.SET);
        admin.incrementalAlterConfigs(Map.of(resource, List.of(op))).all().get();
    }

    private static void produce(String topic, int from, int to) throws Exception {
        Map<String, Object> config = Map.of("bootstrap.servers", server, "linger.ms", 5);
        try (KafkaProducer<String, String> producer =
                new KafkaProducer<>(config, new StringSerializer(), new StringSerializer())) {
            for (int number = from; number < to; number++) {
                producer.send(new ProducerRecord<>(topic, Integer.toString(number)));
            }
        }
    }

    private static KafkaShareConsumer<String, String> consumer(String group, String mode, String... topics) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", server);
        properties.put("group.id", group);
        properties.put("share.acknowledgement.mode", mode);
        properties.put("max.poll.records", 10);
        KafkaShareConsumer<String, String> consumer =
                new KafkaShareConsumer<>(properties, new StringDeserializer(), new StringDeserializer());
        consumer.subscribe(List.of(topics));
        MODES.put(consumer, mode);
        return consumer;
    }

    private static void implicit() throws Exception {
        prepare("implicit", 100);
        TreeMap<Integer, Integer> seen = new TreeMap<>();
        try (var one = consumer("implicit", "implicit", "implicit");
                var other = consumer("implicit", "implicit", "implicit")) {
            Desk.until(
                    () -> {
                        for (var consumer : List.of(one, other)) {
                            for (var record : consumer.poll(Duration.ofMillis(200))) {
                                seen.merge(Integer.parseInt(record.value()), 1, Integer::sum);
                            }
                        }
                        return seen.size() == 100;
                    },
                    60,
                    "every record");
            one.commitSync();
            other.commitSync();
        }
        Desk.check(seen.values().stream().allMatch(times -> times == 1), "each once: " + seen);
        try (var third = consumer("implicit", "implicit", "implicit")) {
            nothing(third, "implicit");
        }
    }

    private static void explicit() throws Exception {
        prepare("explicit", 100);
        Map<Integer, List<Integer>> counts = new HashMap<>();
        TreeSet<Integer> done = new TreeSet<>();
        try (var consumer = consumer("explicit", "explicit", "explicit")) {
            Desk.until(
                    () -> {
                        for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(200))) {
                            int number = Integer.parseInt(record.value());
                            int count = record.deliveryCount().get();
                            counts.computeIfAbsent(number, it -> new ArrayList<>()).add(count);
                            if (number % 10 == 3 && count == 1) {
                                consumer.acknowledge(record, AcknowledgeType.RELEASE);
                            } else if (number % 10 == 7) {
                                consumer.acknowledge(record, AcknowledgeType.REJECT);
                                done.add(number);
                            } else {
                                consumer.acknowledge(record, AcknowledgeType.ACCEPT);
                                done.add(number);
                            }
                        }
                        var failed = consumer.commitSync();
                        failed.forEach((partition, error) -> Desk.check(error.isEmpty(), error.toString()));
                        return done.size() == 100;
                    },
                    60,
                    "every record");
        }
        counts.forEach(
                (number, of) -> {
                    List<Integer> wanted = number % 10 == 3 ? List.of(1, 2) : List.of(1);
                    Desk.check(of.equals(wanted), number + ": " + of);
                });
    }

    private static void expiry() throws Exception {
        prepare("expiry", 100);
        set("expiry", "share.record.lock.duration.ms", "1000");
        var slow = consumer("expiry", "explicit", "expiry");
        TreeSet<Integer> held = new TreeSet<>();
        Desk.until(
                () -> {
                    for (var record : slow.poll(Duration.ofMillis(200))) {
                        held.add(Integer.parseInt(record.value()));
                    }
                    return !held.isEmpty();
                },
                60,
                "some records");
        Map<Integer, Integer> counts = new HashMap<>();
        try (var quick = consumer("expiry", "explicit", "expiry")) {
            Desk.until(
                    () -> {
                        for (var record : quick.poll(Duration.ofMillis(200))) {
                            counts.put(Integer.parseInt(record.value()), (int) record.deliveryCount().get());
                            quick.acknowledge(record, AcknowledgeType.ACCEPT);
                        }
                        quick.commitSync();
                        return counts.size() == 100;
                    },
                    60,
                    "every record, those of the slow one too");
        }
        Desk.check(held.stream().allMatch(number -> counts.get(number) == 2), "counted: " + counts);
        slow.close();
    }

    /** A topic and a group of this name, which reads from the start; records 0 to count - 1. */
    private static void prepare(String name, int count) throws Exception {
        create(name);
        set(name, "share.auto.offset.reset", "earliest");
        produce(name, 0, count);
    }

    private static int number(ConsumerRecord<String, String> record) {
        return Integer.parseInt(record.value());
    }

    /** Polls until so many records came; each poll acknowledges the one before, or there is one only. */
    private static List<ConsumerRecord<String, String>> poll(KafkaShareConsumer<String, String> consumer, int count) throws Exception {
        List<ConsumerRecord<String, String>> records = new ArrayList<>();
        Desk.until(
                () -> {
                    consumer.poll(Duration.ofMillis(200)).forEach(records::add);
                    return records.size() >= count;
                },
                COMES_SECONDS,
                count + " records");
        Desk.check(records.size() == count, records.size() + " records in the place of " + count);
        return records;
    }

    private static List<Integer> numbers(List<ConsumerRecord<String, String>> records) {
        return records.stream().map(Shares::number).toList();
    }

    /** A record that is sent now is the next that comes, and it is acknowledged. */
    private static void nothing(KafkaShareConsumer<String, String> consumer, String topic) throws Exception {
        alone++;
        produce(topic, alone, alone + 1);
        ConsumerRecord<String, String> record = poll(consumer, 1).get(0);
        same(alone, number(record));
        if (MODES.get(consumer).equals("explicit")) {
            consumer.acknowledge(record);
        }
        committed(consumer);
    }

    private static void same(Object expected, Object found) {
        Desk.check(expected.equals(found), found + " in the place of " + expected);
    }

    interface Attempt {
        void run() throws Exception;
    }

    private static void fails(Class<? extends Exception> how, Attempt attempt) throws Exception {
        try {
            attempt.run();
        } catch (Exception error) {
            Desk.check(how.isInstance(error), error + " in the place of " + how);
            return;
        }
        Desk.check(false, "it must fail with " + how);
    }

    private static void committed(KafkaShareConsumer<String, String> consumer) {
        var results = consumer.commitSync();
        Desk.check(!results.isEmpty(), "something is committed");
        results.forEach((partition, error) -> Desk.check(error.isEmpty(), partition + ": " + error));
    }

    private static void subscription() throws Exception {
        prepare("one", 3);
        create("other");
        produce("other", 10, 12);
        try (var consumer = consumer("one", "implicit", "one")) {
            same(Set.of("one"), consumer.subscription());
            same(List.of(0, 1, 2), numbers(poll(consumer, 3)));
            // What was taken from the topic that is left is acknowledged with the next poll all the same.
            consumer.subscribe(List.of("other"));
            same(List.of(10, 11), numbers(poll(consumer, 2)));
            consumer.unsubscribe();
            same(Set.of(), consumer.subscription());
            fails(IllegalStateException.class, () -> consumer.poll(Duration.ofMillis(100)));
            consumer.subscribe(List.of("one", "other"));
            nothing(consumer, "one");
            nothing(consumer, "other");
            produce("one", 3, 4);
            produce("other", 12, 13);
            same(Set.of(3, 12), Set.copyOf(numbers(poll(consumer, 2))));
        }
    }

    private static void reset() throws Exception {
        prepare("reset", 5);
        set("reset-back", "share.auto.offset.reset", "by_duration:PT1H");
        fails(ExecutionException.class, () -> set("reset-bad", "share.auto.offset.reset", "sometime"));
        try (var latest = consumer("reset-latest", "implicit", "reset");
                var back = consumer("reset-back", "implicit", "reset")) {
            same(List.of(0, 1, 2, 3, 4), numbers(poll(back, 5)));
            // A group begins at the end by default, and that is where the end is when it begins.
            List<Integer> seen = new ArrayList<>();
            AtomicInteger next = new AtomicInteger(5);
            Desk.until(
                    () -> {
                        latest.poll(Duration.ofMillis(200)).forEach(record -> seen.add(number(record)));
                        produceOne("reset", next.getAndIncrement());
                        return seen.size() >= 3;
                    },
                    COMES_SECONDS,
                    "what comes later");
            int first = seen.get(0);
            Desk.check(first >= 5, "nothing from before: " + seen);
            for (int at = 0; at < seen.size(); at++) {
                same(first + at, seen.get(at));
            }
        }
    }

    private static void produceOne(String topic, int number) {
        try {
            produce(topic, number, number + 1);
        } catch (Exception error) {
            throw new IllegalStateException(error);
        }
    }

    private static void mustAcknowledge() throws Exception {
        prepare("must", 3);
        try (var consumer = consumer("must", "explicit", "must")) {
            List<ConsumerRecord<String, String>> records = poll(consumer, 3);
            // Each record of a poll is acknowledged before the next one.
            fails(IllegalStateException.class, () -> consumer.poll(Duration.ofMillis(100)));
            for (ConsumerRecord<String, String> record : records) {
                consumer.acknowledge(record);
            }
            // The last word holds, until it is committed.
            consumer.acknowledge(records.get(1), AcknowledgeType.RELEASE);
            committed(consumer);
            fails(IllegalStateException.class, () -> consumer.acknowledge(records.get(0)));
            same(List.of(1), numbers(poll(consumer, 1)));
        }
        prepare("must-not", 1);
        try (var consumer = consumer("must-not", "implicit", "must-not")) {
            ConsumerRecord<String, String> record = poll(consumer, 1).get(0);
            fails(IllegalStateException.class, () -> consumer.acknowledge(record));
            committed(consumer);
            nothing(consumer, "must-not");
        }
    }

    /** What a consumer was told of its acknowledgements. */
    private static final class Told implements AcknowledgementCommitCallback {
        final TreeSet<Long> offsets = new TreeSet<>();
        final List<Exception> errors = new ArrayList<>();

        @Override
        public void onComplete(Map<TopicIdPartition, Set<Long>> of, Exception error) {
            if (error != null) {
                errors.add(error);
            } else {
                of.values().forEach(offsets::addAll);
            }
        }
    }

    private static void callback() throws Exception {
        prepare("callback", 3);
        Told told = new Told();
        var consumer = consumer("callback", "explicit", "callback");
        consumer.setAcknowledgementCommitCallback(told);
        List<ConsumerRecord<String, String>> records = poll(consumer, 3);
        consumer.acknowledge(records.get(0));
        consumer.acknowledge(records.get(1), AcknowledgeType.REJECT);
        consumer.commitAsync();
        consumer.acknowledge(records.get(2));
        Desk.until(
                () -> {
                    consumer.poll(Duration.ofMillis(100));
                    return told.offsets.size() == 3;
                },
                COMES_SECONDS,
                "they are told of");
        produce("callback", 3, 4);
        consumer.acknowledge(poll(consumer, 1).get(0));
        consumer.close();
        same(Set.of(0L, 1L, 2L, 3L), told.offsets);
        same(List.of(), told.errors);
        // Of what was not held any more.
        set("callback-late", "share.auto.offset.reset", "earliest");
        set("callback-late", "share.record.lock.duration.ms", "1000");
        Told late = new Told();
        try (var slow = consumer("callback-late", "explicit", "callback")) {
            slow.setAcknowledgementCommitCallback(late);
            List<ConsumerRecord<String, String>> held = poll(slow, 4);
            try (var quick = consumer("callback-late", "explicit", "callback")) {
                List<ConsumerRecord<String, String>> taken = poll(quick, 4);
                same(List.of(0, 1, 2, 3), numbers(taken));
                held.forEach(slow::acknowledge);
                var results = slow.commitSync();
                same(1, results.size());
                for (var error : results.values()) {
                    Desk.check(error.orElseThrow() instanceof InvalidRecordStateException, "they are another's: " + error);
                }
                taken.forEach(quick::acknowledge);
                quick.commitSync();
            }
        }
        same(Set.of(), late.offsets);
        Desk.check(late.errors.stream().allMatch(it -> it instanceof InvalidRecordStateException), "told: " + late.errors);
        same(1, late.errors.size());
    }

    /** What of a batch is acknowledged is done, and the rest stays with who has it. */
    private static void parts() throws Exception {
        prepare("parts", 6);
        create("parts-other");
        try (var consumer = consumer("parts", "explicit", "parts");
                var other = consumer("parts", "explicit", "parts", "parts-other")) {
            List<ConsumerRecord<String, String>> records = poll(consumer, 6);
            consumer.acknowledge(records.get(4));
            consumer.acknowledge(records.get(1));
            committed(consumer);
            nothing(other, "parts-other");
            for (int at : List.of(0, 2, 3)) {
                consumer.acknowledge(records.get(at));
            }
            consumer.acknowledge(records.get(5), AcknowledgeType.RELEASE);
            committed(consumer);
            Map<Integer, Integer> counts = new HashMap<>();
            Desk.until(
                    () -> {
                        for (var one : List.of(consumer, other)) {
                            for (var record : one.poll(Duration.ofMillis(200))) {
                                counts.put(number(record), (int) record.deliveryCount().get());
                                one.acknowledge(record);
                            }
                            one.commitSync();
                        }
                        return !counts.isEmpty();
                    },
                    COMES_SECONDS,
                    "the one that was given back");
            same(Map.of(5, 2), counts);
            nothing(other, "parts-other");
        }
    }

    /** What a consumer has when it is closed is others' at once: long before its lock is over. */
    private static void givenBack() throws Exception {
        prepare("back", 4);
        var first = consumer("back", "explicit", "back");
        List<ConsumerRecord<String, String>> records = poll(first, 4);
        first.acknowledge(records.get(0));
        first.acknowledge(records.get(1), AcknowledgeType.RELEASE);
        first.close();
        try (var second = consumer("back", "implicit", "back")) {
            same(List.of(1, 2, 3), numbers(poll(second, 3)));
            committed(second);
            nothing(second, "back");
        }
        // So is what it would have acknowledged with its next poll.
        try (var third = consumer("back", "implicit", "back")) {
            produce("back", 4, 6);
            same(List.of(4, 5), numbers(poll(third, 2)));
        }
        try (var fourth = consumer("back", "implicit", "back")) {
            for (ConsumerRecord<String, String> record : poll(fourth, 2)) {
                Desk.check(number(record) == 4 || number(record) == 5, "it is " + number(record));
                same((short) 2, record.deliveryCount().orElseThrow());
            }
            committed(fourth);
            nothing(fourth, "back");
        }
    }

    private static void deliveryLimit() throws Exception {
        prepare("limit", 2);
        set("limit", "share.delivery.count.limit", "3");
        Map<Integer, List<Integer>> counts = new HashMap<>();
        try (var consumer = consumer("limit", "explicit", "limit")) {
            Desk.until(
                    () -> {
                        for (var record : consumer.poll(Duration.ofMillis(200))) {
                            int count = record.deliveryCount().get();
                            counts.computeIfAbsent(number(record), it -> new ArrayList<>()).add(count);
                            boolean isGood = number(record) == 1 && count == 2;
                            consumer.acknowledge(record, isGood ? AcknowledgeType.ACCEPT : AcknowledgeType.RELEASE);
                        }
                        consumer.commitSync();
                        return counts.getOrDefault(0, List.of()).size() == 3;
                    },
                    COMES_SECONDS,
                    "as often as it may be delivered");
            nothing(consumer, "limit");
        }
        same(Map.of(0, List.of(1, 2, 3), 1, List.of(1, 2)), counts);
    }

    /** Who says that it is still at work keeps what it has (KIP-1222). */
    private static void renewal() throws Exception {
        prepare("renewal", 2);
        create("renewal-other");
        set("renewal", "share.record.lock.duration.ms", "2000");
        try (var other = consumer("renewal", "explicit", "renewal-other");
                var slow = consumer("renewal", "explicit", "renewal")) {
            // Who joins a group for the first time may take longer than the lock.
            nothing(other, "renewal-other");
            List<ConsumerRecord<String, String>> records = poll(slow, 2);
            other.subscribe(List.of("renewal", "renewal-other"));
            same(2000, slow.acquisitionLockTimeoutMs().orElseThrow());
            // Longer than the lock, in pieces shorter than it. What is renewed is polled again, from the client's own memory.
            long over = System.nanoTime() + 5_000_000_000L;
            while (System.nanoTime() < over) {
                records.forEach(record -> slow.acknowledge(record, AcknowledgeType.RENEW));
                committed(slow);
                records = poll(slow, 2);
                nothing(other, "renewal-other");
            }
            for (ConsumerRecord<String, String> record : records) {
                same((short) 1, record.deliveryCount().orElseThrow());
                slow.acknowledge(record);
            }
            committed(slow);
            nothing(other, "renewal-other");
        }
    }

    private static void groups() throws Exception {
        prepare("groups", 60);
        set("groups-2", "share.auto.offset.reset", "earliest");
        Map<String, TreeMap<Integer, Integer>> seen = new HashMap<>();
        List<KafkaShareConsumer<String, String>> consumers = new ArrayList<>();
        for (String group : List.of("groups", "groups", "groups-2", "groups-2")) {
            consumers.add(consumer(group, "implicit", "groups"));
        }
        Desk.until(
                () -> {
                    for (int at = 0; at < 4; at++) {
                        var of = seen.computeIfAbsent(at < 2 ? "groups" : "groups-2", it -> new TreeMap<>());
                        consumers.get(at).poll(Duration.ofMillis(100)).forEach(record -> of.merge(number(record), 1, Integer::sum));
                    }
                    return seen.values().stream().allMatch(of -> of.size() == 60);
                },
                COMES_SECONDS,
                "each group has every record");
        consumers.forEach(KafkaShareConsumer::close);
        seen.forEach((group, of) -> Desk.check(of.values().stream().allMatch(times -> times == 1), group + ", each once: " + of));
    }

    private static void asSent() throws Exception {
        prepare("sent", 0);
        Map<String, Object> config = Map.of("bootstrap.servers", server, "compression.type", "zstd");
        try (KafkaProducer<String, String> producer = new KafkaProducer<>(config, new StringSerializer(), new StringSerializer())) {
            for (int number = 0; number < 40; number++) {
                ProducerRecord<String, String> record = new ProducerRecord<>("sent", 0, 1_700_000_000_000L + number, "k" + number, Integer.toString(number));
                record.headers().add("unit", ("u" + number).getBytes());
                producer.send(record);
            }
        }
        try (var consumer = consumer("sent", "implicit", "sent")) {
            List<ConsumerRecord<String, String>> records = poll(consumer, 40);
            for (int number = 0; number < 40; number++) {
                ConsumerRecord<String, String> record = records.get(number);
                same((long) number, record.offset());
                same("k" + number, record.key());
                same(Integer.toString(number), record.value());
                same(1_700_000_000_000L + number, record.timestamp());
                same("u" + number, new String(record.headers().lastHeader("unit").value()));
            }
        }
    }

    private static void deletedRecords() throws Exception {
        prepare("deleted", 10);
        admin.deleteRecords(Map.of(new TopicPartition("deleted", 0), RecordsToDelete.beforeOffset(4))).all().get();
        try (var consumer = consumer("deleted", "explicit", "deleted")) {
            List<ConsumerRecord<String, String>> records = poll(consumer, 6);
            same(List.of(4, 5, 6, 7, 8, 9), numbers(records));
            // Also those that somebody holds.
            admin.deleteRecords(Map.of(new TopicPartition("deleted", 0), RecordsToDelete.beforeOffset(8))).all().get();
            records.forEach(record -> consumer.acknowledge(record, AcknowledgeType.RELEASE));
            consumer.commitSync();
            TreeSet<Integer> again = new TreeSet<>();
            Desk.until(
                    () -> {
                        for (var record : consumer.poll(Duration.ofMillis(200))) {
                            again.add(number(record));
                            consumer.acknowledge(record);
                        }
                        consumer.commitSync();
                        return again.containsAll(Set.of(8, 9));
                    },
                    COMES_SECONDS,
                    "what is left");
            same(Set.of(8, 9), again);
            nothing(consumer, "deleted");
        }
    }

    private static void comeAndGo() throws Exception {
        prepare("stays", 1);
        set("comes", "share.auto.offset.reset", "earliest");
        Properties properties = new Properties();
        properties.put("bootstrap.servers", server);
        properties.put("group.id", "comes");
        properties.put("metadata.max.age.ms", "500");
        properties.put("allow.auto.create.topics", "false");
        try (KafkaShareConsumer<String, String> consumer =
                new KafkaShareConsumer<>(properties, new StringDeserializer(), new StringDeserializer())) {
            consumer.subscribe(List.of("stays", "comes"));
            same(List.of(0), numbers(poll(consumer, 1)));
            prepare("comes", 2);
            same(List.of(0, 1), numbers(poll(consumer, 2)));
            committed(consumer);
            admin.deleteTopics(List.of("comes")).all().get();
            produce("stays", 1, 3);
            same(List.of(1, 2), numbers(poll(consumer, 2)));
        }
    }

    private static void kill() throws Exception {
        prepare("kill", 100);
        try (var consumer = consumer("kill", "explicit", "kill")) {
            Desk.until(
                    () -> {
                        for (var record : consumer.poll(Duration.ofMillis(200))) {
                            int number = Integer.parseInt(record.value());
                            if (number % 2 == 0) {
                                consumer.acknowledge(record, AcknowledgeType.ACCEPT);
                                DONE.add(number);
                            } else {
                                consumer.acknowledge(record, AcknowledgeType.RELEASE);
                            }
                        }
                        consumer.commitSync();
                        return DONE.size() >= 10;
                    },
                    60,
                    "some records");
        }
        Desk.ask("restart kill");
        TreeSet<Integer> seen = new TreeSet<>();
        try (var consumer = consumer("kill", "implicit", "kill")) {
            Desk.until(
                    () -> {
                        for (var record : consumer.poll(Duration.ofMillis(200))) {
                            seen.add(Integer.parseInt(record.value()));
                        }
                        return seen.size() >= 100 - DONE.size();
                    },
                    60,
                    "the rest");
        }
        for (Integer number : DONE) {
            Desk.check(!seen.contains(number), number + " was acknowledged");
        }
    }
}
