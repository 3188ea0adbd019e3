import com.azure.core.amqp.AmqpRetryMode;
import com.azure.core.amqp.AmqpRetryOptions;
import com.azure.core.amqp.exception.AmqpErrorCondition;
import com.azure.core.amqp.exception.AmqpException;
import com.azure.messaging.eventhubs.EventData;
import com.azure.messaging.eventhubs.EventDataBatch;
import com.azure.messaging.eventhubs.EventHubClientBuilder;
import com.azure.messaging.eventhubs.EventHubConsumerAsyncClient;
import com.azure.messaging.eventhubs.EventHubProducerClient;
import com.azure.messaging.eventhubs.EventHubProperties;
import com.azure.messaging.eventhubs.PartitionProperties;
import com.azure.messaging.eventhubs.models.CreateBatchOptions;
import com.azure.messaging.eventhubs.models.EventPosition;
import com.azure.messaging.eventhubs.models.PartitionEvent;
import com.azure.messaging.eventhubs.models.ReceiveOptions;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.function.BooleanSupplier;
import java.util.stream.IntStream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import reactor.core.Disposable;

/** Azure's client of Event Hubs for Java against the AMQP front, and Kafka's clients for the records that its events became. */
public final class Hubs {
    private static final int COUNT = 300;
    private static final int MANY = 10_000;
    private static final int PARTITIONS = 3;
    private static final int COMES_SECONDS = 60;
    private static final String GROUP = EventHubClientBuilder.DEFAULT_CONSUMER_GROUP_NAME;
    private static String kafka;
    private static String address;

    private Hubs() {}

    interface Work {
        void with(EventHubProducerClient client) throws Exception;
    }

    public static void main(String[] arguments) throws Exception {
        kafka = arguments[0];
        address = Desk.ask("amqp");
        Desk.scenario("properties", Hubs::properties);
        Desk.scenario("there and back", Hubs::thereAndBack);
        Desk.scenario("positions", Hubs::positions);
        Desk.scenario("partition keys", Hubs::partitionKeys);
        Desk.scenario("owner level", Hubs::ownerLevel);
        Desk.scenario("kafka", Hubs::toAndFromKafka);
        Desk.scenario("kill", Hubs::kill);
        Desk.end();
    }

    /** By what Azure's emulator is reached: nothing is encrypted. A broker is away for a moment. */
    private static EventHubClientBuilder builder(String topic, int retries) {
        String connection = "Endpoint=sb://" + address + ";SharedAccessKeyName=any;SharedAccessKey=any;UseDevelopmentEmulator=true";
        AmqpRetryOptions options = new AmqpRetryOptions()
                .setMode(AmqpRetryMode.FIXED)
                .setMaxRetries(retries)
                .setDelay(Duration.ofMillis(200))
                .setMaxDelay(Duration.ofSeconds(1))
                .setTryTimeout(Duration.ofSeconds(20));
        return new EventHubClientBuilder().connectionString(connection, topic).retryOptions(options);
    }

    private static void create(String topic) throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", kafka))) {
            admin.createTopics(List.of(new NewTopic(topic, PARTITIONS, (short) 1))).all().get();
        }
    }

    private static void producing(String topic, Work work) throws Exception {
        try (EventHubProducerClient client = builder(topic, 60).buildProducerClient()) {
            work.with(client);
        }
    }

    private static CreateBatchOptions in(int partition) {
        return new CreateBatchOptions().setPartitionId(Integer.toString(partition));
    }

    private static CreateBatchOptions keyed(String key) {
        return new CreateBatchOptions().setPartitionKey(key);
    }

    private static List<String> numbers(int first, int end) {
        return IntStream.range(first, end).mapToObj(it -> "m" + it).toList();
    }

    private static List<EventData> events(List<String> bodies) {
        return bodies.stream().map(EventData::new).toList();
    }

    /** Sends events in as few batches as they go into. */
    private static void send(EventHubProducerClient client, CreateBatchOptions where, List<EventData> events) {
        EventDataBatch batch = client.createBatch(where);
        for (EventData event : events) {
            if (!batch.tryAdd(event)) {
                client.send(batch);
                batch = client.createBatch(where);
                Desk.check(batch.tryAdd(event), "it goes into a batch");
            }
        }
        client.send(batch);
    }

    private static void send(EventHubProducerClient client, CreateBatchOptions where, String... bodies) {
        send(client, where, events(List.of(bodies)));
    }

    private static void same(Object expected, Object found) {
        Desk.check(expected.equals(found), found + " in the place of " + expected);
    }

    private static boolean isNow(Instant when) {
        return Duration.between(when, Instant.now()).abs().toMinutes() < 10;
    }

    /** A receiver of a partition, which keeps what comes. When its connection is lost the client ends the stream; it goes on behind what it has. */
    private static final class Reader implements AutoCloseable {
        private final EventHubConsumerAsyncClient client;
        private final int partition;
        private final ReceiveOptions options;
        private Disposable subscription;
        private boolean isClosed;
        final List<PartitionEvent> events = new CopyOnWriteArrayList<>();
        final List<Throwable> errors = new CopyOnWriteArrayList<>();

        Reader(String topic, String group, int partition, EventPosition from, Long ownerLevel, int retries) {
            this.partition = partition;
            client = builder(topic, retries).consumerGroup(group).prefetchCount(100).buildAsyncConsumerClient();
            options = new ReceiveOptions().setOwnerLevel(ownerLevel);
            subscribe(from);
        }

        private synchronized void subscribe(EventPosition from) {
            if (!isClosed) {
                var stream = client.receiveFromPartition(Integer.toString(partition), from, options);
                subscription = stream.subscribe(events::add, errors::add, () -> {
                    EventData last = events.isEmpty() ? null : events.get(events.size() - 1).getData();
                    subscribe(last == null ? from : EventPosition.fromSequenceNumber(last.getSequenceNumber()));
                });
            }
        }

        List<String> bodies() {
            return events.stream().map(it -> it.getData().getBodyAsString()).toList();
        }

        void until(BooleanSupplier condition, String what) throws Exception {
            long deadline = System.nanoTime() + COMES_SECONDS * 1_000_000_000L;
            while (!condition.getAsBoolean()) {
                Desk.check(System.nanoTime() < deadline, what + ": " + events.size() + " events, " + errors);
                Thread.sleep(20);
            }
        }

        @Override
        public synchronized void close() {
            isClosed = true;
            subscription.dispose();
            client.close();
        }
    }

    /** What a partition gives from a position on. */
    private static List<PartitionEvent> read(String topic, int partition, int count, EventPosition from) throws Exception {
        try (Reader reader = new Reader(topic, GROUP, partition, from, null, 60)) {
            reader.until(() -> reader.events.size() >= count, count + " events of " + topic);
            return List.copyOf(reader.events);
        }
    }

    private static List<String> bodies(List<PartitionEvent> events) {
        return events.stream().map(it -> it.getData().getBodyAsString()).toList();
    }

    private static void properties() throws Exception {
        create("java-properties");
        producing("java-properties", client -> {
            EventHubProperties hub = client.getEventHubProperties();
            same("java-properties", hub.getName());
            same(List.of("0", "1", "2"), hub.getPartitionIds().stream().toList());
            send(client, in(1), events(numbers(0, 5)));
            PartitionProperties found = client.getPartitionProperties("1");
            same(0L, found.getBeginningSequenceNumber());
            same(4L, found.getLastEnqueuedSequenceNumber());
            same("4", found.getLastEnqueuedOffset());
            Desk.check(!found.isEmpty() && isNow(found.getLastEnqueuedTime()), "it is not empty: " + found.getLastEnqueuedTime());
            Desk.check(client.getPartitionProperties("2").isEmpty(), "nothing was sent there");
        });
        try (EventHubProducerClient once = builder("java-properties", 0).buildProducerClient()) {
            PartitionProperties nowhere = once.getPartitionProperties("9");
            Desk.check(false, "there is no such partition: " + nowhere);
        } catch (AmqpException expected) {
            same(AmqpErrorCondition.NOT_FOUND, expected.getErrorCondition());
        }
    }

    private static void thereAndBack() throws Exception {
        create("java-back");
        byte[] large = new byte[300_000];
        for (int at = 0; at < large.length; at++) {
            large[at] = (byte) (at % 251);
        }
        producing("java-back", client -> {
            EventData rich = new EventData("rich");
            rich.getProperties().putAll(Map.of("unit", "K", "count", 7L, "good", true));
            rich.setContentType("text/plain").setCorrelationId("c-1").setMessageId("m-1");
            send(client, in(0), List.of(rich));
            send(client, in(0), List.of(new EventData(large)));
            send(client, in(0), events(numbers(0, COUNT)));
            send(client, in(1), events(numbers(0, MANY)));
        });
        List<PartitionEvent> found = read("java-back", 0, COUNT + 2, EventPosition.earliest());
        EventData first = found.get(0).getData();
        same("rich", first.getBodyAsString());
        same(Map.of("unit", "K", "count", 7L, "good", true), first.getProperties());
        same(List.of("text/plain", "c-1", "m-1"), List.of(first.getContentType(), first.getCorrelationId(), first.getMessageId()));
        Desk.check(Arrays.equals(large, found.get(1).getData().getBody()), "a long one");
        same(numbers(0, COUNT), bodies(found.subList(2, found.size())));
        for (int at = 0; at < found.size(); at++) {
            EventData event = found.get(at).getData();
            same("0", found.get(at).getPartitionContext().getPartitionId());
            same((long) at, event.getSequenceNumber());
            same(Integer.toString(at), event.getOffsetString());
            Desk.check(isNow(event.getEnqueuedTime()), "now: " + event.getEnqueuedTime());
        }
        same(numbers(0, MANY), bodies(read("java-back", 1, MANY, EventPosition.earliest())));
    }

    private static void positions() throws Exception {
        create("java-positions");
        producing("java-positions", client -> {
            send(client, in(0), events(numbers(0, 10)));
            List<PartitionEvent> earlier = read("java-positions", 0, 10, EventPosition.earliest());
            // Times have milliseconds: what is sent now is later than what was.
            Thread.sleep(50);
            send(client, in(0), events(numbers(10, 20)));
            Instant later = read("java-positions", 0, 20, EventPosition.earliest()).get(10).getData().getEnqueuedTime();
            Map<Integer, EventPosition> positions = new TreeMap<>(Map.of(
                    5, EventPosition.fromOffsetString("4"),
                    12, EventPosition.fromSequenceNumber(11),
                    11, EventPosition.fromSequenceNumber(11, true),
                    10, EventPosition.fromEnqueuedTime(later.minusMillis(1))));
            for (var position : positions.entrySet()) {
                int from = position.getKey();
                same(numbers(from, 20), bodies(read("java-positions", 0, 20 - from, position.getValue())));
            }
            Instant last = earlier.get(9).getData().getEnqueuedTime();
            same(numbers(10, 20), bodies(read("java-positions", 0, 10, EventPosition.fromEnqueuedTime(last))));
            try (Reader reader = new Reader("java-positions", GROUP, 0, EventPosition.latest(), null, 60)) {
                // When it is attached nobody is told: what comes later does.
                for (int turn = 0; turn < COMES_SECONDS * 5 && reader.events.isEmpty(); turn++) {
                    send(client, in(0), "new");
                    Thread.sleep(200);
                }
                same(Set.of("new"), Set.copyOf(reader.bodies()));
            }
        });
    }

    private static void partitionKeys() throws Exception {
        create("java-keys");
        producing("java-keys", client -> {
            for (int number = 0; number < 20; number++) {
                for (int key = 0; key < 10; key++) {
                    send(client, keyed("device " + key), "device " + key + ": " + number);
                }
            }
        });
        Map<String, Integer> places = new HashMap<>();
        Map<String, List<String>> values = new HashMap<>();
        Map<Integer, Integer> counts = new HashMap<>();
        for (ConsumerRecord<String, String> record : Records.stored(kafka, "java-keys")) {
            Integer before = places.put(record.key(), record.partition());
            Desk.check(before == null || before == record.partition(), record.key() + " is in one partition");
            values.computeIfAbsent(record.key(), it -> new ArrayList<>()).add(record.value());
            counts.merge(record.partition(), 1, Integer::sum);
        }
        same(10, places.size());
        values.forEach((key, of) -> same(IntStream.range(0, 20).mapToObj(it -> key + ": " + it).toList(), of));
        Desk.check(counts.size() > 1, "keys are spread over partitions: " + counts);
        for (var entry : counts.entrySet()) {
            for (PartitionEvent event : read("java-keys", entry.getKey(), entry.getValue(), EventPosition.earliest())) {
                same(event.getData().getBodyAsString().split(":")[0], event.getData().getPartitionKey());
            }
        }
    }

    private static Reader owner(String group, Long level) {
        // Without a second try, as some are refused.
        return new Reader("java-owner", group, 0, EventPosition.earliest(), level, 0);
    }

    private static void ownerLevel() throws Exception {
        create("java-owner");
        producing("java-owner", client -> {
            send(client, in(0), "first");
            try (Reader low = owner(GROUP, 1L);
                    Reader other = owner("other", null)) {
                low.until(() -> low.events.size() == 1, "the first owner reads");
                other.until(() -> other.events.size() == 1, "another group reads");
                try (Reader high = owner(GROUP, 2L)) {
                    high.until(() -> high.events.size() == 1, "the new owner reads");
                    low.until(() -> !low.errors.isEmpty(), "the old owner is told");
                    same(AmqpErrorCondition.LINK_STOLEN, ((AmqpException) low.errors.get(0)).getErrorCondition());
                    try (Reader none = owner(GROUP, null)) {
                        none.until(() -> !none.errors.isEmpty(), "who has no level is told");
                        send(client, in(0), "second");
                        high.until(() -> high.events.size() == 2, "the owner reads on");
                        other.until(() -> other.events.size() == 2, "and another group");
                        same(List.of(), none.bodies());
                    }
                    same(List.of("first", "second"), high.bodies());
                    same(List.of("first"), low.bodies());
                    same(List.of(), high.errors);
                    same(List.of(), other.errors);
                }
            }
        });
    }

    private static void toAndFromKafka() throws Exception {
        create("java-kafka");
        producing("java-kafka", client -> {
            List<EventData> events = events(numbers(0, COUNT));
            events.forEach(event -> event.getProperties().put("unit", "K"));
            send(client, keyed("key"), events);
        });
        List<ConsumerRecord<String, String>> records = Records.stored(kafka, "java-kafka");
        same(numbers(0, COUNT), records.stream().map(ConsumerRecord::value).toList());
        for (ConsumerRecord<String, String> record : records) {
            same("key K", record.key() + " " + Records.header(record, "unit"));
        }
        Records.produce(kafka, "java-kafka", "from kafka", "unit", "C");
        ConsumerRecord<String, String> stored = Records.stored(kafka, "java-kafka").stream()
                .filter(it -> it.value().equals("from kafka"))
                .findFirst()
                .orElseThrow();
        EventPosition there = EventPosition.fromSequenceNumber(stored.offset(), true);
        EventData found = read("java-kafka", stored.partition(), 1, there).get(0).getData();
        same("from kafka C", found.getBodyAsString() + " " + found.getProperties().get("unit"));
    }

    /** Producer and readers go on by themselves over two of them. */
    private static void kill() throws Exception {
        create("java-kill");
        List<Reader> readers = new ArrayList<>();
        for (int partition = 0; partition < PARTITIONS; partition++) {
            readers.add(new Reader("java-kill", GROUP, partition, EventPosition.earliest(), null, 60));
        }
        producing("java-kill", client -> {
            for (int number = 0; number < COUNT; number++) {
                if (number == COUNT / 3 || number == 2 * COUNT / 3) {
                    Desk.ask("restart kill");
                }
                send(client, in(number % PARTITIONS), "m" + number);
            }
        });
        Set<String> all = Set.copyOf(numbers(0, COUNT));
        for (Reader reader : readers) {
            reader.until(
                    () -> {
                        Set<String> found = new HashSet<>();
                        readers.forEach(it -> found.addAll(it.bodies()));
                        return found.equals(all);
                    },
                    "all come, over two kills");
        }
        readers.forEach(Reader::close);
        same(all, Set.copyOf(Records.values(kafka, "java-kill")));
    }
}
