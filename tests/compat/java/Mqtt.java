import com.hivemq.client.mqtt.datatypes.MqttQos;
import com.hivemq.client.mqtt.mqtt3.Mqtt3AsyncClient;
import com.hivemq.client.mqtt.mqtt3.Mqtt3Client;
import com.hivemq.client.mqtt.mqtt5.Mqtt5AsyncClient;
import com.hivemq.client.mqtt.mqtt5.Mqtt5Client;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.eclipse.paho.client.mqttv3.IMqttDeliveryToken;
import org.eclipse.paho.client.mqttv3.persist.MemoryPersistence;

/** Java's clients of MQTT: HiveMQ's and Eclipse Paho's, by both versions; and a Kafka consumer for the records. */
public final class Mqtt {
    private static final int COUNT = 200;
    private static final int AT_ONCE = 20;
    private static String server;
    private static String host;
    private static int port;

    private Mqtt() {}

    /** A connection, and what it got. */
    private abstract static class Peer implements AutoCloseable {
        final List<String> got = Collections.synchronizedList(new ArrayList<>());

        abstract void subscribe(String filter, int qos) throws Exception;

        /** Begins to publish; what it gives waits until that is acknowledged. */
        abstract Acked publish(String topic, String value, int qos) throws Exception;

        @Override
        public abstract void close() throws Exception;
    }

    private interface Acked {
        void await() throws Exception;
    }

    private interface Kind {
        Peer connect(String name, boolean isKept) throws Exception;
    }

    private static byte[] bytes(String value) {
        return value.getBytes(StandardCharsets.UTF_8);
    }

    private static String text(byte[] value) {
        return new String(value, StandardCharsets.UTF_8);
    }

    private static Acked acked(Future<?> future) {
        return () -> future.get(60, TimeUnit.SECONDS);
    }

    private static Peer hivemq5(String name, boolean isKept) throws Exception {
        Mqtt5AsyncClient client = Mqtt5Client.builder().identifier(name).serverHost(host).serverPort(port)
            .automaticReconnect().initialDelay(100, TimeUnit.MILLISECONDS).maxDelay(500, TimeUnit.MILLISECONDS)
            .applyAutomaticReconnect().buildAsync();
        client.connectWith().cleanStart(!isKept).sessionExpiryInterval(isKept ? 300 : 0).send().get(60, TimeUnit.SECONDS);
        return new Peer() {
            @Override
            void subscribe(String filter, int qos) throws Exception {
                client.subscribeWith().topicFilter(filter).qos(MqttQos.fromCode(qos))
                    .callback(message -> got.add(text(message.getPayloadAsBytes()))).send().get(60, TimeUnit.SECONDS);
            }

            @Override
            Acked publish(String topic, String value, int qos) {
                return acked(client.publishWith().topic(topic).payload(bytes(value)).qos(MqttQos.fromCode(qos)).send());
            }

            @Override
            public void close() throws Exception {
                client.disconnect().get(60, TimeUnit.SECONDS);
            }
        };
    }

    private static Peer hivemq3(String name, boolean isKept) throws Exception {
        Mqtt3AsyncClient client = Mqtt3Client.builder().identifier(name).serverHost(host).serverPort(port)
            .automaticReconnect().initialDelay(100, TimeUnit.MILLISECONDS).maxDelay(500, TimeUnit.MILLISECONDS)
            .applyAutomaticReconnect().buildAsync();
        client.connectWith().cleanSession(!isKept).send().get(60, TimeUnit.SECONDS);
        return new Peer() {
            @Override
            void subscribe(String filter, int qos) throws Exception {
                client.subscribeWith().topicFilter(filter).qos(MqttQos.fromCode(qos))
                    .callback(message -> got.add(text(message.getPayloadAsBytes()))).send().get(60, TimeUnit.SECONDS);
            }

            @Override
            Acked publish(String topic, String value, int qos) {
                return acked(client.publishWith().topic(topic).payload(bytes(value)).qos(MqttQos.fromCode(qos)).send());
            }

            @Override
            public void close() throws Exception {
                client.disconnect().get(60, TimeUnit.SECONDS);
            }
        };
    }

    private static Peer paho3(String name, boolean isKept) throws Exception {
        var client = new org.eclipse.paho.client.mqttv3.MqttAsyncClient("tcp://" + host + ":" + port, name, new MemoryPersistence());
        var options = new org.eclipse.paho.client.mqttv3.MqttConnectOptions();
        options.setCleanSession(!isKept);
        options.setAutomaticReconnect(true);
        options.setMaxReconnectDelay(500);
        options.setMaxInflight(64);
        Peer peer = new Peer() {
            @Override
            void subscribe(String filter, int qos) throws Exception {
                client.subscribe(filter, qos).waitForCompletion(60_000);
            }

            @Override
            Acked publish(String topic, String value, int qos) throws Exception {
                IMqttDeliveryToken token = client.publish(topic, bytes(value), qos, false);
                return () -> token.waitForCompletion(60_000);
            }

            @Override
            public void close() throws Exception {
                client.disconnect().waitForCompletion(60_000);
                client.close();
            }
        };
        client.setCallback(new org.eclipse.paho.client.mqttv3.MqttCallback() {
            @Override
            public void connectionLost(Throwable cause) {}

            @Override
            public void messageArrived(String topic, org.eclipse.paho.client.mqttv3.MqttMessage message) {
                peer.got.add(text(message.getPayload()));
            }

            @Override
            public void deliveryComplete(IMqttDeliveryToken token) {}
        });
        client.connect(options).waitForCompletion(60_000);
        return peer;
    }

    private static Peer paho5(String name, boolean isKept) throws Exception {
        var client = new org.eclipse.paho.mqttv5.client.MqttAsyncClient("tcp://" + host + ":" + port, name,
            new org.eclipse.paho.mqttv5.client.persist.MemoryPersistence());
        var options = new org.eclipse.paho.mqttv5.client.MqttConnectionOptions();
        options.setCleanStart(!isKept);
        options.setSessionExpiryInterval(isKept ? 300L : 0L);
        Peer peer = new Peer() {
            @Override
            void subscribe(String filter, int qos) throws Exception {
                client.subscribe(filter, qos).waitForCompletion(60_000);
            }

            @Override
            Acked publish(String topic, String value, int qos) throws Exception {
                var token = client.publish(topic, bytes(value), qos, false);
                return () -> token.waitForCompletion(60_000);
            }

            @Override
            public void close() throws Exception {
                client.disconnect().waitForCompletion(60_000);
                client.close();
            }
        };
        client.setCallback(new org.eclipse.paho.mqttv5.client.MqttCallback() {
            @Override
            public void disconnected(org.eclipse.paho.mqttv5.client.MqttDisconnectResponse response) {}

            @Override
            public void mqttErrorOccurred(org.eclipse.paho.mqttv5.common.MqttException exception) {}

            @Override
            public void messageArrived(String topic, org.eclipse.paho.mqttv5.common.MqttMessage message) {
                peer.got.add(text(message.getPayload()));
            }

            @Override
            public void deliveryComplete(org.eclipse.paho.mqttv5.client.IMqttToken token) {}

            @Override
            public void connectComplete(boolean reconnect, String uri) {}

            @Override
            public void authPacketArrived(int code, org.eclipse.paho.mqttv5.common.packet.MqttProperties properties) {}
        });
        client.connect(options).waitForCompletion(60_000);
        return peer;
    }

    private static List<String> numbers(int from, int to) {
        List<String> all = new ArrayList<>();
        for (int number = from; number < to; number++) {
            all.add(String.valueOf(number));
        }
        return all;
    }

    private static void publish(Peer peer, String topic, List<String> values, int qos) throws Exception {
        ArrayDeque<Acked> waiting = new ArrayDeque<>();
        for (String value : values) {
            waiting.add(peer.publish(topic, value, qos));
            if (waiting.size() == AT_ONCE) {
                waiting.remove().await();
            }
        }
        for (Acked acked : waiting) {
            acked.await();
        }
    }

    /** The records of an MQTT topic: values, in order. */
    private static List<String> stored(String topic) {
        List<String> values = new ArrayList<>();
        Map<String, Object> config = Map.of("bootstrap.servers", server, "fetch.max.wait.ms", 10);
        try (var consumer = new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer())) {
            List<TopicPartition> partitions = consumer.partitionsFor("mqtt").stream()
                .map(it -> new TopicPartition("mqtt", it.partition())).toList();
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
            while (partitions.stream().anyMatch(it -> consumer.position(it) < ends.get(it))) {
                for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(100))) {
                    if (topic.equals(record.key())) {
                        values.add(record.value());
                    }
                }
            }
        }
        return values;
    }

    private static void same(List<String> found, List<String> wanted, String what) {
        synchronized (found) {
            Desk.check(found.equals(wanted), what + ": " + found.size() + " of " + wanted.size() + ", " + found);
        }
    }

    private static void thereAndBack(Kind kind, String name) throws Exception {
        for (int qos = 0; qos < 3; qos++) {
            String topic = name + "/" + qos;
            try (Peer reader = kind.connect(name + "-r", false); Peer writer = kind.connect(name + "-w", false)) {
                reader.subscribe(name + "/+", qos);
                publish(writer, topic, numbers(0, COUNT), qos);
                Desk.until(() -> reader.got.size() >= COUNT, 60, topic);
                same(reader.got, numbers(0, COUNT), topic);
            }
            same(stored(topic), numbers(0, COUNT), "records of " + topic);
        }
    }

    /** Both come back by themselves, with their sessions. */
    private static void overKill(Kind kind, String name) throws Exception {
        for (int qos = 1; qos < 3; qos++) {
            String topic = name + "/kill/" + qos;
            try (Peer reader = kind.connect(name + "-kr" + qos, true); Peer writer = kind.connect(name + "-kw" + qos, true)) {
                reader.subscribe(topic, qos);
                publish(writer, topic, numbers(0, 100), qos);
                Desk.until(() -> reader.got.size() >= 100, 60, topic + " before the kill");
                ArrayDeque<Acked> under = new ArrayDeque<>();
                for (String value : numbers(100, 140)) {
                    under.add(writer.publish(topic, value, qos));
                }
                Desk.ask("restart kill");
                for (Acked acked : under) {
                    acked.await();
                }
                publish(writer, topic, numbers(140, COUNT), qos);
                Desk.until(() -> reader.got.contains(String.valueOf(COUNT - 1)), 60, topic + " after the kill");
                if (qos == 2) {
                    same(reader.got, numbers(0, COUNT), topic);
                    same(stored(topic), numbers(0, COUNT), "records of " + topic);
                } else {
                    TreeSet<String> wanted = new TreeSet<>(numbers(0, COUNT));
                    Desk.check(new TreeSet<>(reader.got).equals(wanted), topic);
                    Desk.check(new TreeSet<>(stored(topic)).equals(wanted), "records of " + topic);
                }
            }
        }
    }

    public static void main(String[] arguments) throws Exception {
        server = arguments[0];
        String address = Desk.ask("mqtt");
        int colon = address.lastIndexOf(':');
        host = address.substring(0, colon);
        port = Integer.parseInt(address.substring(colon + 1));
        Desk.scenario("hivemq 3.1.1", () -> thereAndBack(Mqtt::hivemq3, "hivemq3"));
        Desk.scenario("hivemq 5", () -> thereAndBack(Mqtt::hivemq5, "hivemq5"));
        Desk.scenario("hivemq 3.1.1 kill", () -> overKill(Mqtt::hivemq3, "hivemq3"));
        Desk.scenario("hivemq 5 kill", () -> overKill(Mqtt::hivemq5, "hivemq5"));
        Desk.scenario("paho 3.1.1", () -> thereAndBack(Mqtt::paho3, "paho3"));
        Desk.scenario("paho 5", () -> thereAndBack(Mqtt::paho5, "paho5"));
        Desk.scenario("paho 3.1.1 kill", () -> overKill(Mqtt::paho3, "paho3"));
        Desk.end();
    }
}
