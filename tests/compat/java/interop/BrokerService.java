package org.apache.activemq.broker;

import java.io.BufferedReader;
import java.io.File;
import java.io.InputStreamReader;
import java.lang.reflect.Proxy;
import java.net.HttpURLConnection;
import java.net.ServerSocket;
import java.net.URI;
import java.net.URLEncoder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import javax.management.ObjectName;
import org.apache.activemq.broker.jmx.BrokerView;
import org.apache.activemq.broker.jmx.ManagementContext;
import org.apache.activemq.broker.region.policy.PolicyMap;
import org.apache.activemq.security.SimpleAuthenticationPlugin;
import org.apache.activemq.store.PersistenceAdapter;
import org.apache.activemq.usage.SystemUsage;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.common.config.ConfigResource;

/**
 * Stands where Qpid's JMS tests look for the broker that they embed, and starts ours as a program; what they ask of its management is
 * answered from ours. The property {@code broker.program} is the program, {@code broker.work} a directory of the tests' own. What there is
 * nothing for here ends a test with a word that says so.
 */
public class BrokerService {
    /** The newest that was started, for who asks for the broker of this process ({@code vm://}). */
    public static volatile BrokerService newest;

    /** Those that run, by name: what is asked of the managed objects goes to the one that has the name now. */
    private static final Map<String, BrokerService> NAMED = new ConcurrentHashMap<>();
    private static final String DEAD_LETTERS = "ActiveMQ.DLQ";
    private static final AtomicInteger NUMBER = new AtomicInteger();
    private static final File WORK = new File(System.getProperty("broker.work"));
    private final ManagementContext management = new Management();
    private final BrokerView view = view();
    private final List<TransportConnector> connectors = new ArrayList<>();
    private final Map<String, String> users = new HashMap<>();
    private String name = "localhost";
    private File data;
    private boolean isPersistent;
    private boolean begins = true;
    private Process process;
    private String kafka;
    private String http;
    private String amqp;

    public void setBrokerName(String name) {
        this.name = name;
    }

    public String getBrokerName() {
        return name;
    }

    public void setPersistent(boolean isPersistent) {
        this.isPersistent = isPersistent;
    }

    public boolean isPersistent() {
        return isPersistent;
    }

    public void setDeleteAllMessagesOnStartup(boolean begins) {
        this.begins = begins;
    }

    public void setDataDirectory(String path) {
        data = new File(WORK, "data-" + new File(path).getName());
    }

    public void setPlugins(BrokerPlugin[] plugins) {
        for (BrokerPlugin plugin : plugins) {
            if (plugin instanceof SimpleAuthenticationPlugin) {
                users.putAll(((SimpleAuthenticationPlugin) plugin).getUserPasswords());
            }
        }
    }

    public void setSslContext(SslContext context) {
        // The keys in it cannot be had; those of the tests' own key store are.
    }

    /** Nothing has to be done for these: they are about how the other broker does things. */
    public void setSchedulerSupport(boolean is) {}

    public void setAdvisorySupport(boolean is) {}

    public void setUseJmx(boolean is) {}

    public void setKeepDurableSubsActive(boolean is) {}

    public void setPersistenceAdapter(PersistenceAdapter adapter) {}

    public void setDestinationPolicy(PolicyMap policies) {
        throw new UnsupportedOperationException("not to be had here: limits of memory by destination");
    }

    public SystemUsage getSystemUsage() {
        return new SystemUsage();
    }

    public ManagementContext getManagementContext() {
        return management;
    }

    public BrokerView getAdminView() {
        return view;
    }

    public ObjectName getBrokerObjectName() {
        try {
            return new ObjectName("org.apache.activemq:type=Broker,brokerName=" + name);
        } catch (Exception wrong) {
            throw new IllegalStateException(wrong);
        }
    }

    public List<TransportConnector> getTransportConnectors() {
        return connectors;
    }

    public TransportConnector getTransportConnectorByName(String wanted) {
        return connectors.stream().filter(it -> wanted.equals(it.getName())).findFirst().orElse(null);
    }

    public TransportConnector addConnector(String bind) throws Exception {
        URI uri = new URI(bind.replaceAll("\\?.*", ""));
        int port = uri.getPort() > 0 ? uri.getPort() : freePort();
        TransportConnector connector = new Connector(uri.getScheme(), port);
        connectors.add(connector);
        return connector;
    }

    public boolean isStarted() {
        return process != null && process.isAlive();
    }

    public void start() throws Exception {
        if (data == null) {
            data = new File(WORK, "data-" + name + "-" + NUMBER.incrementAndGet());
        }
        // What the other one keeps in memory is gone with it.
        if (begins || !isPersistent) {
            remove(data.toPath());
        }
        List<String> command = new ArrayList<>(List.of(
            System.getProperty("broker.program"), "serve", "--data", data.getPath(),
            "--kafka", "127.0.0.1:0", "--mqtt", "off", "--http", listens("ws", "127.0.0.1:0"),
            "--amqp", Stream.of(listens("amqp", null), listens("amqp+ssl", null)).filter(it -> it != null).findFirst().orElse("127.0.0.1:0"),
            // The tests send messages of 10 MiB.
            "-X", "message.max.bytes=12582912", "-X", "amqp.message.bytes.max=12582912",
            "-X", "wal.file.bytes=33554432", "-X", "wal.files.min=2"));
        if (connectors.stream().anyMatch(it -> ((Connector) it).isEncrypted())) {
            command.addAll(List.of("-X", "ssl.keystore.type=PEM", "-X", "ssl.keystore.location=" + Keys.file(WORK)));
        }
        File log = new File(WORK, "broker.log");
        process = new ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.appendTo(log)).start();
        BufferedReader said = new BufferedReader(new InputStreamReader(process.getInputStream()));
        kafka = null;
        while (kafka == null) {
            String line = said.readLine();
            if (line == null) {
                throw new IllegalStateException("the broker did not start: see " + log);
            }
            Files.writeString(log.toPath(), line + "\n", StandardOpenOption.APPEND);
            kafka = behind("kafka=", line);
            http = behind("http=", line);
            amqp = behind("AMQP=", line);
        }
        newest = this;
        NAMED.put(name, this);
        prepare();
    }

    public boolean waitUntilStarted() {
        return isStarted();
    }

    public void stop() throws Exception {
        if (process != null) {
            process.destroy();
            if (!process.waitFor(20, TimeUnit.SECONDS)) {
                process.destroyForcibly();
                throw new IllegalStateException("the broker does not stop");
            }
            process = null;
        }
        if (!isPersistent && data != null) {
            remove(data.toPath());
        }
    }

    public void waitUntilStopped() {}

    /** Where its AMQP is; that of the other doors is at a port of its own. */
    public String amqp() {
        return amqp;
    }

    /** Users, dead letters, and as many deliveries as there can be: the other one has no limit. */
    private void prepare() throws Exception {
        for (Map.Entry<String, String> user : users.entrySet()) {
            String body = "{\"name\": \"" + user.getKey() + "\", \"password\": \"" + user.getValue() + "\"}";
            int status = send("POST", "/api/v1/users", body);
            if (status >= 300 && status != 409) {
                throw new IllegalStateException("no user " + user.getKey() + ": " + status);
            }
        }
        if (!begins && isPersistent) {
            return;
        }
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", kafka))) {
            NewTopic dead = new NewTopic(DEAD_LETTERS, 1, (short) 1);
            dead.configs(Map.of("errors.deadletterqueue.group.enable", "true"));
            admin.createTopics(List.of(dead)).all().get();
            Map<String, String> settings = Map.of(
                "errors.deadletterqueue.topic.name", DEAD_LETTERS, "share.delivery.count.limit", "25");
            Collection<AlterConfigOp> changes = new ArrayList<>();
            settings.forEach((key, value) -> changes.add(new AlterConfigOp(new ConfigEntry(key, value), AlterConfigOp.OpType.SET)));
            ConfigResource group = new ConfigResource(ConfigResource.Type.GROUP, "queue");
            admin.incrementalAlterConfigs(Map.of(group, changes)).all().get();
        }
    }

    private String listens(String scheme, String otherwise) {
        for (TransportConnector it : connectors) {
            Connector connector = (Connector) it;
            if (connector.scheme.equals(scheme) || scheme.equals("ws") && connector.scheme.equals("wss")) {
                String encrypted = Map.of("amqp+ssl", "amqps://", "wss", "https://").getOrDefault(connector.scheme, "");
                return encrypted + "127.0.0.1:" + connector.port;
            }
        }
        return otherwise;
    }

    private static String behind(String word, String line) {
        Matcher found = Pattern.compile("(?:^| )" + word + "(\\S+)").matcher(line);
        return line.startsWith("ready") && found.find() ? found.group(1) : null;
    }

    private static int freePort() throws Exception {
        try (ServerSocket socket = new ServerSocket(0)) {
            return socket.getLocalPort();
        }
    }

    private static void remove(Path path) throws Exception {
        if (Files.exists(path)) {
            try (Stream<Path> all = Files.walk(path)) {
                for (Path one : (Iterable<Path>) all.sorted(Collections.reverseOrder())::iterator) {
                    Files.delete(one);
                }
            }
        }
    }

    private int send(String method, String path, String body) throws Exception {
        HttpURLConnection connection = (HttpURLConnection) URI.create("http://" + http + path).toURL().openConnection();
        connection.setRequestMethod(method);
        connection.setRequestProperty("Content-Type", "application/json");
        connection.setDoOutput(true);
        connection.getOutputStream().write(body.getBytes(StandardCharsets.UTF_8));
        return connection.getResponseCode();
    }

    /** What a GET is answered; null if there is no such thing. */
    private String get(String path) {
        try {
            HttpURLConnection connection = (HttpURLConnection) URI.create("http://" + http + path).toURL().openConnection();
            if (connection.getResponseCode() == 404) {
                return null;
            }
            return new String(connection.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
        } catch (Exception wrong) {
            throw new IllegalStateException(wrong);
        }
    }

    private static long sum(String json, String... fields) {
        long sum = 0;
        for (String field : fields) {
            Matcher found = Pattern.compile("\"" + field + "\":(-?\\d+)").matcher(json);
            if (!found.find()) {
                throw new IllegalStateException("no " + field + " in " + json);
            }
            sum += Long.parseLong(found.group(1));
        }
        return sum;
    }

    private long metric(String sample) {
        for (String line : get("/metrics").split("\n")) {
            if (line.startsWith(sample + " ")) {
                return Long.parseLong(line.substring(sample.length() + 1).trim());
            }
        }
        throw new IllegalStateException("no metric " + sample);
    }

    private static String encoded(String text) {
        return URLEncoder.encode(text, StandardCharsets.UTF_8).replace("+", "%20");
    }

    /** Messages of a queue that are not finished; all of its topic, as long as no consumer has begun with it. */
    private long queueSize(String queue) {
        String shared = get("/api/v1/queues/queue/" + encoded(queue));
        return shared == null ? stored(queue) : sum(shared, "available", "held", "archiving");
    }

    private long inFlight(String queue) {
        String shared = get("/api/v1/queues/queue/" + encoded(queue));
        return shared == null ? 0 : sum(shared, "held");
    }

    /** Messages of a topic. */
    private long stored(String topic) {
        String found = get("/api/v1/topics/" + encoded(topic) + "/partitions");
        if (found == null) {
            throw new IllegalStateException("there is no " + topic);
        }
        long sum = 0;
        for (String partition : found.split("\\{\"partition\"")) {
            if (partition.contains("end_offset")) {
                sum += sum(partition, "end_offset") - sum(partition, "start_offset");
            }
        }
        return sum;
    }

    /** The durable subscriptions of topics: the groups of them and what they have not finished; null for all topics. */
    private Map<String, Long> durables(String ofTopic) {
        Map<String, Long> found = new HashMap<>();
        for (String one : get("/api/v1/queues").split("\\},\\{|\\[\\{")) {
            Matcher group = Pattern.compile("\"group\":\"(sub:[^\"]*)\"").matcher(one);
            if (group.find() && (ofTopic == null || one.contains("\"topic\":\"" + ofTopic + "\""))) {
                found.put(group.group(1), sum(one, "available", "held", "archiving"));
            }
        }
        return found;
    }

    private BrokerView view() {
        try {
            return new View();
        } catch (Exception wrong) {
            throw new IllegalStateException(wrong);
        }
    }

    private static ObjectName[] names(long count) {
        return new ObjectName[Math.toIntExact(count)];
    }

    private final class View extends BrokerView {
        View() throws Exception {
            super(null, null);
        }

        @Override
        public ObjectName[] getQueueSubscribers() {
            return names(metric("alluvium_amqp_links{kind=\"consumer\"}"));
        }

        @Override
        public ObjectName[] getQueueProducers() {
            return names(metric("alluvium_amqp_links{kind=\"producer\"}"));
        }

        @Override
        public long getTotalProducerCount() {
            return metric("alluvium_amqp_links{kind=\"producer\"}");
        }

        /** Only subscriptions that are kept have consumers in the tests that ask. */
        @Override
        public ObjectName[] getDurableTopicSubscribers() {
            return names(metric("alluvium_amqp_links{kind=\"consumer\"}"));
        }

        @Override
        public ObjectName[] getInactiveDurableTopicSubscribers() {
            return names(durables(null).size() - metric("alluvium_amqp_links{kind=\"consumer\"}"));
        }

        @Override
        public ObjectName[] getTemporaryQueues() {
            return names(metric("alluvium_amqp_temporary_nodes"));
        }

        @Override
        public ObjectName[] getTemporaryTopics() {
            return names(metric("alluvium_amqp_temporary_nodes"));
        }

        @Override
        public int getCurrentConnectionsCount() {
            return Math.toIntExact(metric("alluvium_amqp_connections"));
        }
    }

    /** Answers for the managed objects that the tests look at. */
    private final class Management extends ManagementContext {
        @Override
        public Object newProxyInstance(ObjectName of, Class<?> as, boolean notifies) {
            String node = of.getKeyProperty("destinationName");
            boolean isTopic = "Topic".equals(of.getKeyProperty("destinationType"));
            return Proxy.newProxyInstance(as.getClassLoader(), new Class<?>[] {as}, (proxy, method, arguments) -> {
                BrokerService now = NAMED.getOrDefault(name, BrokerService.this);
                if (node == null) {
                    return method.invoke(now.view, arguments);
                }
                switch (method.getName()) {
                    case "getQueueSize":
                        return isTopic ? now.durables(node).values().stream().mapToLong(it -> it).sum() : now.queueSize(node);
                    case "getEnqueueCount":
                        return now.stored(node);
                    case "getInFlightCount":
                        return now.inFlight(node);
                    default:
                        throw new UnsupportedOperationException("not to be had here: " + method.getName());
                }
            });
        }
    }

    /** A door of the broker. */
    private static final class Connector extends TransportConnector {
        private final String scheme;
        private final int port;

        Connector(String scheme, int port) {
            this.scheme = scheme;
            this.port = port;
        }

        boolean isEncrypted() {
            return scheme.equals("amqp+ssl") || scheme.equals("wss");
        }

        @Override
        public URI getPublishableConnectURI() {
            return URI.create(scheme + "://127.0.0.1:" + port);
        }

        @Override
        public String getPublishableConnectString() {
            return getPublishableConnectURI().toString();
        }
    }
}
