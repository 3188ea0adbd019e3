import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.errors.SaslAuthenticationException;
import org.apache.kafka.common.errors.SslAuthenticationException;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** The Java client on the encrypted listeners: by each mechanism that it knows, and by a certificate. */
final class Secured {
    private Secured() {}

    static void saslSsl() throws Exception {
        String[] places = Desk.ask("secured").split(" ");
        for (String mechanism : List.of("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")) {
            Properties login = trusting(places[0], "SASL_SSL", places[2] + "/ca.pem");
            login.put("sasl.mechanism", mechanism);
            login.put("sasl.jaas.config", login(mechanism, "correct horse battery"));
            roundTrip("secured-" + mechanism, "User:alice", login);
            login.put("sasl.jaas.config", login(mechanism, "wrong"));
            refused(login, SaslAuthenticationException.class);
        }
    }

    static void mutualTls() throws Exception {
        String[] places = Desk.ask("secured").split(" ");
        Properties shown = trusting(places[1], "SSL", places[2] + "/ca.pem");
        shown.put("ssl.keystore.type", "PEM");
        shown.put("ssl.keystore.location", places[2] + "/client.pem");
        roundTrip("secured-by-certificate", "User:CN=press4", shown);
        shown.put("ssl.truststore.location", places[2] + "/client.crt");
        refused(shown, SslAuthenticationException.class);
    }

    private static Properties trusting(String address, String protocol, String authority) {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", address);
        settings.put("security.protocol", protocol);
        settings.put("ssl.truststore.type", "PEM");
        settings.put("ssl.truststore.location", authority);
        settings.put("default.api.timeout.ms", "40000");
        return settings;
    }

    private static String login(String mechanism, String password) {
        String module = mechanism.equals("PLAIN") ? "plain.PlainLoginModule" : "scram.ScramLoginModule";
        return "org.apache.kafka.common.security." + module + " required username=\"alice\" password=\"" + password + "\";";
    }

    /** Sends, reads back in a group, and asks whom the broker takes the connections for. */
    private static void roundTrip(String topic, String user, Properties settings) throws Exception {
        try (Admin admin = Admin.create(settings)) {
            admin.createTopics(List.of(new NewTopic(topic, 1, (short) 1))).all().get();
        }
        List<String> sent = new ArrayList<>();
        try (KafkaProducer<String, String> to =
                new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer())) {
            for (int i = 0; i < 50; i++) {
                sent.add("reading " + i);
                to.send(new ProducerRecord<>(topic, sent.get(i)));
            }
        }
        Properties reading = new Properties();
        reading.putAll(settings);
        reading.putAll(Map.of("group.id", topic, "auto.offset.reset", "earliest"));
        List<String> got = new ArrayList<>();
        try (KafkaConsumer<String, String> from =
                new KafkaConsumer<>(reading, new StringDeserializer(), new StringDeserializer())) {
            from.subscribe(List.of(topic));
            Desk.until(
                    () -> {
                        from.poll(Duration.ofMillis(200)).forEach(record -> got.add(record.value()));
                        return got.size() >= sent.size();
                    },
                    40,
                    "the records");
            Desk.ask("caller " + user);
        }
        Desk.check(got.equals(sent), "got " + got);
    }

    private static void refused(Properties settings, Class<? extends Exception> why) throws Exception {
        try (Admin admin = Admin.create(settings)) {
            admin.describeCluster().clusterId().get();
            Desk.check(false, "let in");
        } catch (ExecutionException refusal) {
            Desk.check(why.isInstance(refusal.getCause()), refusal.toString());
        }
    }
}
