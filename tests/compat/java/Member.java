import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.Instant;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.stream.Collectors;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.RangeAssignor;
import org.apache.kafka.clients.consumer.RoundRobinAssignor;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.FencedInstanceIdException;
import org.apache.kafka.common.serialization.StringDeserializer;

/** The Java client as a member of a group under chaos: see ../python/logbook.py for what it tells. */
public final class Member {
    /** What was seen takes some time to work on before it is committed: see ../python/logbook.py. */
    private static final long WORK_MS = 100;
    private static final AtomicBoolean LEAVING = new AtomicBoolean();
    private static KafkaConsumer<String, String> consumer;

    public static void main(String[] arguments) throws InterruptedException {
        int session = Integer.parseInt(arguments[3]);
        Properties properties = new Properties();
        properties.put("bootstrap.servers", arguments[0]);
        properties.put("group.id", arguments[1]);
        properties.put("enable.auto.commit", "false");
        properties.put("auto.offset.reset", "earliest");
        properties.put("session.timeout.ms", session);
        properties.put("heartbeat.interval.ms", session / 8);
        properties.put("max.poll.interval.ms", arguments[4]);
        properties.put("max.poll.records", 100);
        properties.put(
                "partition.assignment.strategy", List.of(RangeAssignor.class, RoundRobinAssignor.class));
        if (arguments.length > 5) {
            properties.put("group.instance.id", arguments[5]);
        }
        Thread listening = new Thread(Member::waitToBeTold);
        listening.setDaemon(true);
        listening.start();
        consumer = new KafkaConsumer<>(properties, new StringDeserializer(), new StringDeserializer());
        consumer.subscribe(List.of(arguments[2]), new Listener());
        while (!LEAVING.get()) {
            try {
                work();
            } catch (FencedInstanceIdException error) {
                say("fenced", "\"why\":" + quoted(error.toString()));
                break;
            } catch (KafkaException error) {
                // The broker may be away; the client goes on with the next poll.
                say("trouble", "\"why\":" + quoted(error.toString()));
            }
        }
        consumer.close(Duration.ofSeconds(5));
    }

    private static void waitToBeTold() {
        try {
            while (System.in.read() > '\n') {
                continue;
            }
        } catch (IOException error) {
            // Nobody is there to tell any more.
        }
        LEAVING.set(true);
    }

    private static void work() throws InterruptedException {
        ConsumerRecords<String, String> records = consumer.poll(Duration.ofMillis(200));
        Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
        for (TopicPartition partition : records.partitions()) {
            List<ConsumerRecord<String, String>> seen = records.records(partition);
            String pairs =
                    seen.stream()
                            .map(each -> "[" + each.offset() + "," + quoted(each.value()) + "]")
                            .collect(Collectors.joining(","));
            say("seen", "\"partition\":" + partition.partition() + ",\"records\":[" + pairs + "]");
            offsets.put(partition, new OffsetAndMetadata(seen.get(seen.size() - 1).offset() + 1));
        }
        if (offsets.isEmpty()) {
            return;
        }
        Thread.sleep(WORK_MS);
        String named =
                offsets.entrySet().stream()
                        .map(each -> "\"" + each.getKey().partition() + "\":" + each.getValue().offset())
                        .collect(Collectors.joining(","));
        say("committing", "\"generation\":" + generation() + ",\"offsets\":{" + named + "}");
        try {
            consumer.commitSync(offsets, Duration.ofSeconds(5));
            say("committed", "\"generation\":" + generation());
        } catch (FencedInstanceIdException error) {
            throw error;
        } catch (KafkaException error) {
            say("refused", "\"why\":" + quoted(error.toString()));
        }
    }

    private static int generation() {
        return consumer.groupMetadata().generationId();
    }

    private static final class Listener implements ConsumerRebalanceListener {
        @Override
        public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
            String owned =
                    partitions.stream().map(each -> "" + each.partition()).collect(Collectors.joining(","));
            say("assigned", "\"generation\":" + generation() + ",\"partitions\":[" + owned + "]");
        }

        @Override
        public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
            say("revoked", "\"count\":" + partitions.size());
        }

        @Override
        public void onPartitionsLost(Collection<TopicPartition> partitions) {
            say("lost", "\"count\":" + partitions.size());
        }
    }

    private static synchronized void say(String event, String facts) {
        Instant now = Instant.now();
        long micros = now.getEpochSecond() * 1_000_000 + now.getNano() / 1000;
        String line = "{\"event\":\"" + event + "\",\"at_us\":" + micros + "," + facts + "}\n";
        byte[] bytes = line.getBytes(StandardCharsets.UTF_8);
        System.out.write(bytes, 0, bytes.length);
        System.out.flush();
    }

    private static String quoted(String text) {
        return "\"" + text.replace("\\", "\\\\").replace("\"", "\\\"").replaceAll("\\s+", " ") + "\"";
    }
}
