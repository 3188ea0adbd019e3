import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.LongDeserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StoreQueryParameters;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.processor.StateRestoreListener;
import org.apache.kafka.streams.state.QueryableStoreTypes;
import org.apache.kafka.streams.state.ReadOnlyKeyValueStore;

/** Kafka Streams against a broker: its topics of its own are compacted, and hold its state. */
public final class Streams {
    private static final long FIRST_TIMESTAMP = 1_700_000_000_000L;
    private static final List<String> WORDS =
            List.of("river", "delta", "silt", "bed", "bank", "flood", "mouth", "spring", "ford", "weir");
    private static String broker;
    private static Admin admin;

    public static void main(String[] arguments) {
        broker = arguments[0];
        admin = Admin.create(client());
        Desk.scenario("stateless", Streams::stateless);
        Desk.scenario("word count", Streams::wordCount);
        Desk.scenario("topics of its own", Streams::ownTopics);
        Desk.scenario("windowed", Streams::windowed);
        Desk.scenario("restart with restored state", Streams::restored);
        Desk.end();
    }

    private static Properties client() {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", broker);
        properties.put("default.api.timeout.ms", "40000");
        return properties;
    }

    private static void create(String name, int partitions, Map<String, String> settings) throws Exception {
        admin.createTopics(List.of(new NewTopic(name, partitions, (short) -1).configs(settings))).all().get();
    }

    /** Sends records of keys and values, a second apart. */
    private static void send(String topic, List<String[]> records) throws Exception {
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        try (KafkaProducer<String, String> to =
                new KafkaProducer<>(client(), new StringSerializer(), new StringSerializer())) {
            long time = FIRST_TIMESTAMP;
            for (String[] record : records) {
                sent.add(to.send(new ProducerRecord<>(topic, null, time, record[0], record[1])));
                time += 1_000;
            }
            to.flush();
            for (Future<RecordMetadata> future : sent) {
                future.get();
            }
        }
    }

    /** The latest value of each key in all partitions of a topic, once `isWhole` says so. */
    private static <V> Map<String, V> table(
            String topic,
            org.apache.kafka.common.serialization.Deserializer<V> values,
            java.util.function.Predicate<Map<String, V>> isWhole)
            throws Exception {
        Map<String, V> latest = new TreeMap<>();
        try (KafkaConsumer<String, V> from = new KafkaConsumer<>(client(), new StringDeserializer(), values)) {
            List<TopicPartition> partitions = new ArrayList<>();
            from.partitionsFor(topic).forEach(it -> partitions.add(new TopicPartition(topic, it.partition())));
            from.assign(partitions);
            from.seekToBeginning(partitions);
            try {
                Desk.until(
                        () -> {
                            from.poll(Duration.ofMillis(100)).forEach(it -> latest.put(it.key(), it.value()));
                            return isWhole.test(latest);
                        },
                        60,
                        "the table in " + topic);
            } catch (AssertionError error) {
                throw new AssertionError(error.getMessage() + ": " + latest);
            }
        }
        return latest;
    }

    private static KafkaStreams start(String application, Topology topology, StateRestoreListener restored)
            throws Exception {
        Properties properties = client();
        properties.remove("default.api.timeout.ms");
        properties.put("application.id", application);
        properties.put("state.dir", "state");
        properties.put("commit.interval.ms", "100");
        properties.put("statestore.cache.max.bytes", "0");
        properties.put("replication.factor", "-1");
        properties.put("num.stream.threads", "1");
        properties.put("auto.offset.reset", "earliest");
        properties.put("session.timeout.ms", "6000");
        properties.put("heartbeat.interval.ms", "500");
        KafkaStreams streams = new KafkaStreams(topology, properties);
        streams.setUncaughtExceptionHandler(
                error -> {
                    error.printStackTrace();
                    return org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler
                            .StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
                });
        if (restored != null) {
            streams.setGlobalStateRestoreListener(restored);
        }
        streams.start();
        Desk.until(() -> streams.state() == KafkaStreams.State.RUNNING, 60, application + " runs");
        return streams;
    }

    private static void end(KafkaStreams streams) {
        Desk.check(streams.state() == KafkaStreams.State.RUNNING, "the state is " + streams.state());
        Desk.check(streams.close(Duration.ofSeconds(20)), "it does not end");
    }

    private static void stateless() throws Exception {
        create("readings", 3, Map.of());
        create("hot", 2, Map.of());
        List<String[]> readings = new ArrayList<>();
        Map<String, String> expected = new TreeMap<>();
        for (int i = 0; i < 500; i++) {
            readings.add(new String[] {"sensor-" + i, "" + i % 100});
            if (i % 100 >= 90) {
                expected.put("sensor-" + i, "hot " + i % 100);
            }
        }
        StreamsBuilder builder = new StreamsBuilder();
        builder.stream("readings", Consumed.with(Serdes.String(), Serdes.String()))
                .filter((key, value) -> Integer.parseInt(value) >= 90)
                .mapValues(value -> "hot " + value)
                .to("hot", Produced.with(Serdes.String(), Serdes.String()));
        send("readings", readings);
        KafkaStreams streams = start("stateless", builder.build(), null);
        table("hot", new StringDeserializer(), expected::equals);
        end(streams);
    }

    private static Topology counting() {
        StreamsBuilder builder = new StreamsBuilder();
        Serde<String> text = Serdes.String();
        builder.stream("lines", Consumed.with(text, text))
                .flatMapValues(line -> List.of(line.split(" ")))
                .groupBy((key, word) -> word, Grouped.with("words", text, text))
                .count(Materialized.as("counts"))
                .toStream()
                .to("word-counts", Produced.with(text, Serdes.Long()));
        return builder.build();
    }

    /** Lines of three words each, and how often each word is in them. */
    private static List<String[]> lines(int from, int to, Map<String, Long> counts) {
        List<String[]> lines = new ArrayList<>();
        for (int i = from; i < to; i++) {
            List<String> words = new ArrayList<>();
            for (int n : new int[] {i % 10, i / 3 % 10, i / 7 % 10}) {
                words.add(WORDS.get(n));
                counts.merge(WORDS.get(n), 1L, Long::sum);
            }
            lines.add(new String[] {"line-" + i, String.join(" ", words)});
        }
        return lines;
    }

    private static final Map<String, Long> counts = new TreeMap<>();

    private static void wordCount() throws Exception {
        create("lines", 3, Map.of());
        create("word-counts", 2, Map.of("cleanup.policy", "compact"));
        send("lines", lines(0, 600, counts));
        KafkaStreams streams = start("words", counting(), null);
        table("word-counts", new LongDeserializer(), counts::equals);
        Desk.check(counts.equals(stored(streams)), "the store has " + stored(streams) + ", not " + counts);
        end(streams);
    }

    private static Map<String, Long> stored(KafkaStreams streams) {
        ReadOnlyKeyValueStore<String, Long> store =
                streams.store(StoreQueryParameters.fromNameAndType("counts", QueryableStoreTypes.keyValueStore()));
        Map<String, Long> all = new TreeMap<>();
        try (var rows = store.all()) {
            rows.forEachRemaining(row -> all.put(row.key, row.value));
        }
        return all;
    }

    private static void policy(String topic, String wanted) throws Exception {
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        Config config = admin.describeConfigs(List.of(resource)).all().get().get(resource);
        String found = config.get("cleanup.policy").value();
        Desk.check(found.equals(wanted), topic + " has cleanup.policy=" + found);
    }

    private static void ownTopics() throws Exception {
        policy("words-counts-changelog", "compact");
        policy("words-words-repartition", "delete");
        int partitions =
                admin.describeTopics(List.of("words-counts-changelog"))
                        .allTopicNames()
                        .get()
                        .get("words-counts-changelog")
                        .partitions()
                        .size();
        Desk.check(partitions == 3, partitions + " partitions");
        Map<String, Long> kept = table("words-counts-changelog", new LongDeserializer(), counts::equals);
        Desk.check(kept.equals(counts), "the changelog has " + kept);
    }

    private static void windowed() throws Exception {
        create("clicks", 2, Map.of());
        create("clicks-a-minute", 2, Map.of());
        List<String[]> clicks = new ArrayList<>();
        Map<String, Long> expected = new TreeMap<>();
        for (int i = 0; i < 300; i++) {
            String page = "page-" + i % 4;
            clicks.add(new String[] {page, "click"});
            long minute = (FIRST_TIMESTAMP + i * 1_000L) / 60_000 * 60_000;
            expected.merge(page + "@" + minute, 1L, Long::sum);
        }
        StreamsBuilder builder = new StreamsBuilder();
        builder.stream("clicks", Consumed.with(Serdes.String(), Serdes.String()))
                .groupByKey()
                .windowedBy(TimeWindows.ofSizeWithNoGrace(Duration.ofMinutes(1)))
                .count(Materialized.as("a-minute"))
                .toStream((window, count) -> window.key() + "@" + window.window().start())
                .to("clicks-a-minute", Produced.with(Serdes.String(), Serdes.Long()));
        send("clicks", clicks);
        KafkaStreams streams = start("clicks", builder.build(), null);
        table("clicks-a-minute", new LongDeserializer(), expected::equals);
        policy("clicks-a-minute-changelog", "compact,delete");
        end(streams);
    }

    /** The state directory goes, the broker is killed: what the next run knows of before comes from the changelog. */
    private static void restored() throws Exception {
        Desk.ask("restart kill");
        AtomicLong restored = new AtomicLong();
        StateRestoreListener listener =
                new StateRestoreListener() {
                    @Override
                    public void onRestoreStart(TopicPartition partition, String store, long from, long to) {}

                    @Override
                    public void onBatchRestored(TopicPartition partition, String store, long at, long count) {}

                    @Override
                    public void onRestoreEnd(TopicPartition partition, String store, long count) {
                        restored.addAndGet(count);
                    }
                };
        Properties nothing = new Properties();
        nothing.put("application.id", "words");
        nothing.put("bootstrap.servers", broker);
        nothing.put("state.dir", "state");
        KafkaStreams cleaner = new KafkaStreams(counting(), nothing);
        cleaner.cleanUp();
        cleaner.close();
        send("lines", lines(600, 900, counts));
        KafkaStreams streams = start("words", counting(), listener);
        table("word-counts", new LongDeserializer(), counts::equals);
        Desk.check(counts.equals(stored(streams)), "the store has " + stored(streams) + ", not " + counts);
        Desk.check(restored.get() > 0, "nothing was restored");
        end(streams);
    }
}
