import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import java.util.TreeSet;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.AcknowledgeType;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaShareConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** Kafka's share consumer (KIP-932): one partition, several consumers. The argument is the bootstrap server. */
public final class Shares {
    private static final String TOPIC = "jobs";
    private static String server;
    /** What was acknowledged before the kill. */
    private static final TreeSet<Integer> DONE = new TreeSet<>();

    private Shares() {}

    public static void main(String[] arguments) throws Exception {
        server = arguments[0];
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", server))) {
            admin.createTopics(List.of(new NewTopic(TOPIC, 1, (short) 1))).all().get();
            for (String group : List.of("implicit", "explicit", "expiry", "kill")) {
                set(admin, group, "share.auto.offset.reset", "earliest");
            }
            set(admin, "expiry", "share.record.lock.duration.ms", "1000");
        }
        produce(0, 100);
        Desk.scenario("implicit", Shares::implicit);
        Desk.scenario("explicit", Shares::explicit);
        Desk.scenario("expiry", Shares::expiry);
        Desk.scenario("kill", Shares::kill);
        Desk.end();
    }

    private static void set(Admin admin, String group, String name, String value) throws Exception {
        ConfigResource resource = new ConfigResource(ConfigResource.Type.GROUP, group);
        AlterConfigOp op = new AlterConfigOp(new ConfigEntry(name, value), AlterConfigOp.OpType.SET);
        admin.incrementalAlterConfigs(Map.of(resource, List.of(op))).all().get();
    }

    private static void produce(int from, int to) throws Exception {
        Map<String, Object> config = Map.of("bootstrap.servers", server, "linger.ms", 5);
        try (KafkaProducer<String, String> producer =
                new KafkaProducer<>(config, new StringSerializer(), new StringSerializer())) {
            for (int number = from; number < to; number++) {
                producer.send(new ProducerRecord<>(TOPIC, Integer.toString(number)));
            }
        }
    }

    private static KafkaShareConsumer<String, String> consumer(String group, String mode) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", server);
        properties.put("group.id", group);
        properties.put("share.acknowledgement.mode", mode);
        properties.put("max.poll.records", 10);
        KafkaShareConsumer<String, String> consumer =
                new KafkaShareConsumer<>(properties, new StringDeserializer(), new StringDeserializer());
        consumer.subscribe(List.of(TOPIC));
        return consumer;
    }

    private static void implicit() throws Exception {
        TreeMap<Integer, Integer> seen = new TreeMap<>();
        try (var one = consumer("implicit", "implicit");
                var other = consumer("implicit", "implicit")) {
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
        try (var third = consumer("implicit", "implicit")) {
            for (int turn = 0; turn < 10; turn++) {
                Desk.check(third.poll(Duration.ofMillis(200)).isEmpty(), "all are done");
            }
        }
    }

    private static void explicit() throws Exception {
        Map<Integer, List<Integer>> counts = new HashMap<>();
        TreeSet<Integer> done = new TreeSet<>();
        try (var consumer = consumer("explicit", "explicit")) {
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
        var slow = consumer("expiry", "explicit");
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
        try (var quick = consumer("expiry", "explicit")) {
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

    private static void kill() throws Exception {
        try (var consumer = consumer("kill", "explicit")) {
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
        try (var consumer = consumer("kill", "implicit")) {
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
