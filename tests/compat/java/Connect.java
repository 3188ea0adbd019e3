import java.io.File;
import java.net.ServerSocket;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.time.Duration;
import java.util.ArrayList;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.common.config.ConfigResource;

/** Kafka Connect, distributed, with its file connectors: its three topics of its own are compacted, and hold its state. */
public final class Connect {
    private static final Path IN = Path.of("in.txt");
    private static final Path OUT = Path.of("out.txt");
    private static final HttpClient HTTP = HttpClient.newHttpClient();
    private static final List<String> lines = new ArrayList<>();
    private static String broker;
    private static Admin admin;
    private static int port;
    private static Process worker;

    public static void main(String[] arguments) throws Exception {
        broker = arguments[0];
        Properties properties = new Properties();
        properties.put("bootstrap.servers", broker);
        admin = Admin.create(properties);
        Files.deleteIfExists(OUT);
        Files.writeString(IN, "");
        Desk.scenario("topics of its own", Connect::ownTopics);
        Desk.scenario("file to topic to file", Connect::pipe);
        Desk.scenario("worker restart", Connect::workerRestart);
        Desk.scenario("broker restart", Connect::brokerRestart);
        Desk.scenario("what is deleted stays away", Connect::deleted);
        worker.destroyForcibly();
        Desk.end();
    }

    private static void start() throws Exception {
        try (ServerSocket free = new ServerSocket(0)) {
            port = free.getLocalPort();
        }
        String text =
                String.join(
                        "\n",
                        "bootstrap.servers=" + broker,
                        "group.id=connect",
                        "listeners=http://127.0.0.1:" + port,
                        "config.storage.topic=connect-configs",
                        "offset.storage.topic=connect-offsets",
                        "status.storage.topic=connect-status",
                        "config.storage.replication.factor=1",
                        "offset.storage.replication.factor=1",
                        "status.storage.replication.factor=-1",
                        "offset.storage.partitions=5",
                        "status.storage.partitions=2",
                        "offset.flush.interval.ms=300",
                        "key.converter=org.apache.kafka.connect.storage.StringConverter",
                        "value.converter=org.apache.kafka.connect.storage.StringConverter",
                        "plugin.discovery=service_load",
                        "scheduled.rebalance.max.delay.ms=0",
                        "session.timeout.ms=6000",
                        "heartbeat.interval.ms=500",
                        "worker.sync.timeout.ms=2000",
                        "consumer.session.timeout.ms=6000",
                        "consumer.heartbeat.interval.ms=500",
                        "consumer.auto.offset.reset=earliest");
        Path settings = Path.of("worker.properties");
        Files.writeString(settings, text + "\n");
        worker =
                new ProcessBuilder(
                                "java",
                                "-Xmx256m",
                                "-XX:+UseSerialGC",
                                "-XX:TieredStopAtLevel=1",
                                "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
                                "-cp",
                                System.getProperty("java.class.path"),
                                "org.apache.kafka.connect.cli.ConnectDistributed",
                                settings.toString())
                        .redirectErrorStream(true)
                        .redirectOutput(ProcessBuilder.Redirect.appendTo(new File("worker.log")))
                        .start();
        Desk.until(() -> status("GET", "/connectors", null) == 200, 60, "the worker answers");
    }

    private static HttpResponse<String> call(String method, String path, String body) throws Exception {
        HttpRequest.BodyPublisher publisher =
                body == null
                        ? HttpRequest.BodyPublishers.noBody()
                        : HttpRequest.BodyPublishers.ofString(body);
        HttpRequest request =
                HttpRequest.newBuilder(URI.create("http://127.0.0.1:" + port + path))
                        .timeout(Duration.ofSeconds(20))
                        .header("Content-Type", "application/json")
                        .method(method, publisher)
                        .build();
        return HTTP.send(request, HttpResponse.BodyHandlers.ofString());
    }

    /** The status of an answer, or 0 if there is none yet. */
    private static int status(String method, String path, String body) {
        try {
            Desk.check(worker.isAlive(), "the worker has ended");
            return call(method, path, body).statusCode();
        } catch (Exception error) {
            sleep(200);
            return 0;
        }
    }

    private static void sleep(long millis) {
        try {
            Thread.sleep(millis);
        } catch (InterruptedException error) {
            throw new AssertionError(error);
        }
    }

    /** What the worker shows there, or nothing if there is no answer yet. */
    private static String shown(String path) {
        try {
            return call("GET", path, null).body();
        } catch (Exception error) {
            sleep(200);
            return "";
        }
    }

    private static void runs(String connector) throws Exception {
        Desk.until(
                () -> shown("/connectors/" + connector + "/status").split("\"state\":\"RUNNING\"", -1).length == 3,
                60,
                connector + " runs");
    }

    private static void write(int count) throws Exception {
        StringBuilder text = new StringBuilder();
        for (int i = 0; i < count; i++) {
            String line = "line " + lines.size();
            lines.add(line);
            text.append(line).append('\n');
        }
        Files.writeString(IN, text, StandardOpenOption.APPEND);
    }

    /** Waits until all lines have come out, in order. A worker that was killed may say some again. */
    private static void cameOut() throws Exception {
        Desk.until(
                () -> {
                    try {
                        List<String> out = Files.exists(OUT) ? Files.readAllLines(OUT) : List.of();
                        return new ArrayList<>(new LinkedHashSet<>(out)).equals(lines);
                    } catch (java.io.IOException error) {
                        throw new AssertionError(error);
                    }
                },
                60,
                lines.size() + " lines in " + OUT);
    }

    private static void ownTopics() throws Exception {
        start();
        for (Map.Entry<String, Integer> topic :
                Map.of("connect-configs", 1, "connect-offsets", 5, "connect-status", 2).entrySet()) {
            String name = topic.getKey();
            int partitions =
                    admin.describeTopics(List.of(name)).allTopicNames().get().get(name).partitions().size();
            Desk.check(partitions == topic.getValue(), name + " has " + partitions + " partitions");
            ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, name);
            String policy =
                    admin.describeConfigs(List.of(resource)).all().get().get(resource).get("cleanup.policy").value();
            Desk.check(policy.equals("compact"), name + " has cleanup.policy=" + policy);
        }
    }

    private static void pipe() throws Exception {
        String source =
                "{\"connector.class\":\"org.apache.kafka.connect.file.FileStreamSourceConnector\","
                        + "\"tasks.max\":\"1\",\"topic\":\"lines\",\"file\":\"" + IN.toAbsolutePath() + "\"}";
        String sink =
                "{\"connector.class\":\"org.apache.kafka.connect.file.FileStreamSinkConnector\","
                        + "\"tasks.max\":\"1\",\"topics\":\"lines\",\"file\":\"" + OUT.toAbsolutePath() + "\"}";
        write(200);
        Desk.until(() -> status("PUT", "/connectors/source/config", source) == 201, 30, "the source is made");
        Desk.until(() -> status("PUT", "/connectors/sink/config", sink) == 201, 30, "the sink is made");
        runs("source");
        runs("sink");
        cameOut();
    }

    /** A worker that is killed: the next one knows connectors and offsets from the compacted topics. */
    private static void workerRestart() throws Exception {
        // The source looks for acknowledged lines only after its next poll, which waits a second for more.
        String told = "\"position\":" + Files.size(IN);
        Desk.until(() -> shown("/connectors/source/offsets").contains(told), 30, "the source tells its offset");
        worker.destroyForcibly().waitFor();
        write(100);
        start();
        runs("source");
        runs("sink");
        cameOut();
        List<String> out = Files.readAllLines(OUT);
        Desk.check(out.size() < lines.size() + 200, "it began from the start: " + out.size() + " lines");
    }

    private static void brokerRestart() throws Exception {
        Desk.ask("restart kill");
        write(100);
        cameOut();
        Desk.ask("restart term");
        write(100);
        cameOut();
    }

    /** Its deletion is a tombstone in the topic of configurations. */
    private static void deleted() throws Exception {
        Desk.until(() -> status("DELETE", "/connectors/sink", null) == 204, 30, "the sink is deleted");
        worker.destroyForcibly().waitFor();
        start();
        runs("source");
        String connectors = call("GET", "/connectors", null).body();
        Desk.check(connectors.equals("[\"source\"]"), "there are " + connectors);
    }
}
