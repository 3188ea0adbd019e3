import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.InputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.UUID;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.utils.Exit;
import org.apache.kafka.tools.ConsoleProducer;
import org.apache.kafka.tools.DeleteRecordsCommand;
import org.apache.kafka.tools.DumpLogSegments;
import org.apache.kafka.tools.GetOffsetShell;
import org.apache.kafka.tools.TopicCommand;
import org.apache.kafka.tools.consumer.ConsoleConsumer;
import org.apache.kafka.tools.consumer.ConsoleShareConsumer;
import org.apache.kafka.tools.consumer.group.ConsumerGroupCommand;
import org.apache.kafka.tools.consumer.group.ShareGroupCommand;

/**
 * Kafka's console tools against a broker: their main methods, one after the other in one process,
 * but for the verifiable ones, which report in a shutdown hook.
 */
public final class Tools {
    private static final InputStream REAL_IN = System.in;
    private static final PrintStream REAL_OUT = System.out;
    private static final ThreadLocal<Integer> EXIT_CODE = new ThreadLocal<>();
    private static final ThreadLocal<List<Runnable>> HOOKS = ThreadLocal.withInitial(ArrayList::new);
    private static String broker;

    public static void main(String[] arguments) throws Exception {
        broker = arguments[0];
        Exit.setExitProcedure(Tools::exit);
        Exit.setHaltProcedure(Tools::exit);
        Exit.setShutdownHookAdder((name, hook) -> HOOKS.get().add(hook));
        Desk.scenario("topics", Tools::topics);
        Desk.scenario("configs", Tools::configs);
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            Desk.scenario("codec " + codec, () -> codec(codec));
        }
        Desk.scenario("get-offsets", Tools::getOffsets);
        Desk.scenario("consumer-groups", Tools::consumerGroups);
        Desk.scenario("share-groups", Tools::shareGroups);
        Desk.scenario("delete-records", Tools::deleteRecords);
        Desk.scenario("verifiable producer and consumer", Tools::verifiable);
        Desk.scenario("users and quotas", Tools::usersAndQuotas);
        Desk.scenario("restart", Tools::restart);
        Desk.scenario("dump segments", Tools::dumpSegments);
        Desk.end();
    }

    /** Stands for the end of a tool's process. */
    private static final class Ended extends Error {}

    private static void exit(int code, String message) {
        if (EXIT_CODE.get() == null) {
            EXIT_CODE.set(code);
        }
        throw new Ended();
    }

    interface Main {
        void main(String[] arguments) throws Exception;
    }

    /** Runs a tool to its end and returns its exit code. */
    private static int code(Main tool, String... arguments) throws Exception {
        EXIT_CODE.remove();
        HOOKS.get().clear();
        try {
            tool.main(arguments);
        } catch (Ended ended) {
            // its exit code is set
        }
        Integer code = EXIT_CODE.get();
        for (Runnable hook : HOOKS.get()) {
            hook.run();
        }
        return code == null ? 0 : code;
    }

    /** Runs a tool that must succeed, and returns what it printed. */
    private static String tool(String input, Main tool, String... arguments) throws Exception {
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        System.setIn(new ByteArrayInputStream(input.getBytes(StandardCharsets.UTF_8)));
        System.setOut(new PrintStream(bytes, true));
        int code;
        try {
            code = code(tool, arguments);
        } finally {
            System.setIn(REAL_IN);
            System.setOut(REAL_OUT);
        }
        String output = bytes.toString(StandardCharsets.UTF_8);
        Desk.check(code == 0, String.join(" ", arguments) + " ended with " + code + ": " + output);
        return output;
    }

    private static String run(Main tool, String arguments) throws Exception {
        return tool("", tool, ("--bootstrap-server " + broker + " " + arguments).split(" "));
    }

    /** Runs a tool in a process of its own, and returns what it printed. */
    private static String process(String tool, String arguments) throws Exception {
        List<String> command =
                new ArrayList<>(
                        List.of(
                                Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                                "-Xmx128m",
                                "-XX:TieredStopAtLevel=1",
                                "-cp",
                                System.getProperty("java.class.path"),
                                "org.apache.kafka.tools." + tool,
                                "--bootstrap-server",
                                broker));
        command.addAll(List.of(arguments.split(" ")));
        Process process = new ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.INHERIT).start();
        String output = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
        Desk.check(process.waitFor() == 0, tool + " ended with " + process.exitValue() + ": " + output);
        return output;
    }

    private static void has(String output, String part) {
        Desk.check(output.contains(part), "no \"" + part + "\" in " + output);
    }

    private static List<String> lines(int count) {
        return IntStream.range(0, count)
                .mapToObj(i -> "device-" + i % 5 + "\t" + ("reading " + i + " ").repeat(9 + i % 13).trim())
                .collect(Collectors.toList());
    }

    private static void produce(String topic, List<String> lines, String... more) throws Exception {
        List<String> arguments =
                new ArrayList<>(
                        List.of("--bootstrap-server", broker, "--topic", topic, "--reader-property", "parse.key=true"));
        arguments.addAll(List.of(more));
        tool(String.join("\n", lines) + "\n", ConsoleProducer::main, arguments.toArray(new String[0]));
    }

    private static List<String> consume(String topic, int count, String more) throws Exception {
        String output =
                run(
                        ConsoleConsumer::main,
                        "--topic " + topic + " --max-messages " + count
                                + " --timeout-ms 30000 --formatter-property print.key=true" + more);
        return output.lines().collect(Collectors.toList());
    }

    private static void create(String topic, String more) throws Exception {
        run(TopicCommand::main, "--create --topic " + topic + more);
    }

    private static void topics() throws Exception {
        create("created", " --partitions 4 --replication-factor 1 --config retention.ms=7200000");
        has(run(TopicCommand::main, "--list"), "created");
        String described = run(TopicCommand::main, "--describe --topic created");
        has(described, "PartitionCount: 4");
        has(described, "retention.ms=7200000");
        has(described, "Leader: 1");
        run(TopicCommand::main, "--alter --topic created --partitions 6");
        has(run(TopicCommand::main, "--describe --topic created"), "PartitionCount: 6");
        run(TopicCommand::main, "--delete --topic created");
        Desk.until(
                () -> {
                    try {
                        return !run(TopicCommand::main, "--list").contains("created");
                    } catch (Exception error) {
                        throw new AssertionError(error);
                    }
                },
                20,
                "the topic is gone");
    }

    private static void configs() throws Exception {
        create("configured", "");
        String entity = "--entity-type topics --entity-name configured ";
        run(kafka.admin.ConfigCommand::main, entity + "--alter --add-config retention.ms=3600000,max.message.bytes=2000");
        String described = run(kafka.admin.ConfigCommand::main, entity + "--describe");
        has(described, "retention.ms=3600000");
        has(described, "max.message.bytes=2000");
        run(kafka.admin.ConfigCommand::main, entity + "--alter --delete-config retention.ms");
        described = run(kafka.admin.ConfigCommand::main, entity + "--describe");
        Desk.check(!described.contains("retention.ms=3600000"), "still there: " + described);
        has(run(kafka.admin.ConfigCommand::main, entity + "--describe --all"), "retention.ms=604800000");
        has(run(kafka.admin.ConfigCommand::main, "--entity-type brokers --entity-name 1 --describe --all"), "auto.create.topics.enable=true");
        has(run(kafka.admin.ConfigCommand::main, "--entity-type groups --entity-name no-such-group --describe"), "doesn't exist");
        has(run(kafka.admin.ConfigCommand::main, "--entity-type broker-loggers --entity-name 1 --describe"), "root=");
    }

    private static String configs(String arguments) throws Exception {
        return run(kafka.admin.ConfigCommand::main, arguments);
    }

    private static void usersAndQuotas() throws Exception {
        String bob = "--entity-type users --entity-name bob ";
        configs(bob + "--alter --add-config SCRAM-SHA-256=[iterations=8192,password=long-secret]");
        configs(bob + "--alter --add-config SCRAM-SHA-512=[password=long-secret]");
        String described = configs(bob + "--describe");
        has(described, "SCRAM-SHA-256=iterations=8192");
        has(described, "SCRAM-SHA-512=iterations=4096");
        String app = bob + "--entity-type clients --entity-name app ";
        configs(app + "--alter --add-config producer_byte_rate=1048576,consumer_byte_rate=2097152");
        configs(bob + "--alter --add-config request_percentage=200");
        configs("--entity-type clients --entity-default --alter --add-config controller_mutation_rate=50");
        configs("--entity-type ips --entity-name 192.0.2.7 --alter --add-config connection_creation_rate=100");
        described = configs(app + "--describe");
        has(described, "producer_byte_rate=1048576");
        has(described, "consumer_byte_rate=2097152");
        has(configs(bob + "--describe"), "request_percentage=200");
        has(configs("--entity-type clients --entity-default --describe"), "controller_mutation_rate=50");
        has(configs("--entity-type ips --describe"), "connection_creation_rate=100");
        configs(app + "--alter --delete-config producer_byte_rate,consumer_byte_rate");
        configs(bob + "--alter --delete-config request_percentage");
        configs("--entity-type clients --entity-default --alter --delete-config controller_mutation_rate");
        configs("--entity-type ips --entity-name 192.0.2.7 --alter --delete-config connection_creation_rate");
        described = configs(app + "--describe") + configs("--entity-type ips --describe");
        Desk.check(!described.contains("_rate"), "still there: " + described);
        configs(bob + "--alter --delete-config SCRAM-SHA-256,SCRAM-SHA-512");
        described = configs("--entity-type users --describe");
        Desk.check(!described.contains("bob"), "still there: " + described);
    }

    private static void codec(String codec) throws Exception {
        String topic = "codec-" + codec;
        create(topic, "");
        List<String> sent = lines(300);
        produce(topic, sent, "--compression-codec", codec);
        Desk.ask("codec " + topic + " 0 " + codec);
        List<String> got = consume(topic, 300, " --from-beginning");
        Desk.check(got.equals(sent), got.size() + " lines: " + got.subList(0, Math.min(3, got.size())));
    }

    private static void getOffsets() throws Exception {
        create("offsets", "");
        produce("offsets", lines(20));
        Thread.sleep(20); // the tools stamp records with the clock; the halves must differ
        long middle = System.currentTimeMillis();
        Thread.sleep(20);
        produce("offsets", lines(20));
        has(run(GetOffsetShell::main, "--topic offsets"), "offsets:0:40");
        has(run(GetOffsetShell::main, "--topic offsets --time earliest"), "offsets:0:0");
        has(run(GetOffsetShell::main, "--topic offsets --time max-timestamp"), "offsets:0:");
        has(run(GetOffsetShell::main, "--topic offsets --time " + middle), "offsets:0:20");
    }

    private static void consumerGroups() throws Exception {
        create("grouped", " --partitions 4");
        List<Thread> members = new ArrayList<>();
        List<Integer> codes = Collections.synchronizedList(new ArrayList<>());
        for (int i = 0; i < 2; i++) {
            String[] arguments =
                    ("--bootstrap-server " + broker + " --topic grouped --group pair --timeout-ms 8000").split(" ");
            Thread member =
                    new Thread(
                            () -> {
                                try {
                                    codes.add(code(ConsoleConsumer::main, arguments));
                                } catch (Exception error) {
                                    error.printStackTrace();
                                }
                            });
            member.start();
            members.add(member);
        }
        Pattern two = Pattern.compile("(?m)^pair\\s.*\\s2\\s*$");
        Desk.until(
                () -> {
                    try {
                        String output = run(ConsumerGroupCommand::main, "--describe --group pair --members");
                        return two.matcher(output).results().count() == 2;
                    } catch (Exception | AssertionError error) {
                        return false;
                    }
                },
                20,
                "two members with two partitions each");
        has(run(ConsumerGroupCommand::main, "--list --state"), "Stable");
        for (Thread member : members) {
            member.join(20_000);
        }
        Desk.check(codes.size() == 2, "members ended with " + codes);
        produce("grouped", lines(40));
        run(ConsumerGroupCommand::main, "--group pair --topic grouped --reset-offsets --to-earliest --execute");
        String described = run(ConsumerGroupCommand::main, "--describe --group pair");
        int lag = described.lines().filter(line -> line.startsWith("pair")).mapToInt(line -> Integer.parseInt(line.trim().split("\\s+")[5])).sum();
        Desk.check(lag == 40, "a lag of " + lag + ": " + described);
        Desk.check(consume("grouped", 40, " --group pair").size() == 40, "not all of the group's records");
        String past = "--group pair --topic grouped --reset-offsets --to-datetime 2020-01-01T00:00:00.000 --dry-run";
        has(run(ConsumerGroupCommand::main, past), "grouped");
        String settings = "--entity-type groups --entity-name pair --describe";
        has(run(kafka.admin.ConfigCommand::main, settings), "configs for group pair are:");
        has(run(kafka.admin.ConfigCommand::main, settings + " --all"), "configs for group pair are:");
        has(run(kafka.admin.ConfigCommand::main, "--entity-type groups --describe"), "configs for group pair are:");
        run(ConsumerGroupCommand::main, "--delete --group pair");
        Desk.check(!run(ConsumerGroupCommand::main, "--list").contains("pair"), "the group is still listed");
    }

    private static List<String> share(int count) throws Exception {
        String output =
                run(
                        ConsoleShareConsumer::main,
                        "--topic shared --group sharers --max-messages " + count + " --timeout-ms 30000");
        return output.lines().collect(Collectors.toList());
    }

    private static void shareGroups() throws Exception {
        create("shared", "");
        run(
                kafka.admin.ConfigCommand::main,
                "--entity-type groups --entity-name sharers --alter --add-config share.auto.offset.reset=earliest");
        produce("shared", lines(40));
        Desk.check(share(40).size() == 40, "not all of the group's records");
        has(run(ShareGroupCommand::main, "--list"), "sharers");
        has(run(ShareGroupCommand::main, "--list --state"), "Empty");
        has(run(ShareGroupCommand::main, "--describe --group sharers --state"), "sharers");
        String described = run(ShareGroupCommand::main, "--describe --group sharers --offsets");
        Pattern finished = Pattern.compile("(?m)^sharers\\s+shared\\s+0\\s+40\\b");
        Desk.check(finished.matcher(described).find(), "it is not at the end: " + described);
        run(ShareGroupCommand::main, "--group sharers --topic shared --reset-offsets --to-earliest --execute");
        described = run(ShareGroupCommand::main, "--describe --group sharers --offsets");
        Pattern reset = Pattern.compile("(?m)^sharers\\s+shared\\s+0\\s+0\\b");
        Desk.check(reset.matcher(described).find(), "it is not at the beginning: " + described);
        Desk.check(share(40).size() == 40, "not all of them again");
        run(ShareGroupCommand::main, "--delete-offsets --group sharers --topic shared");
        run(ShareGroupCommand::main, "--delete --group sharers");
        Desk.check(!run(ShareGroupCommand::main, "--list").contains("sharers"), "the group is still listed");
    }

    private static void deleteRecords() throws Exception {
        create("deleted", "");
        for (int i = 0; i < 4; i++) {
            produce("deleted", lines(10));
        }
        Path file = Files.createTempFile(Path.of("."), "delete", ".json");
        Files.writeString(file, "{\"partitions\":[{\"topic\":\"deleted\",\"partition\":0,\"offset\":13}],\"version\":1}");
        has(run(DeleteRecordsCommand::main, "--offset-json-file " + file), "low_watermark: 13");
        has(run(GetOffsetShell::main, "--topic deleted --time earliest"), "deleted:0:13");
        List<String> left = consume("deleted", 27, " --from-beginning");
        Desk.check(left.size() == 27 && left.get(0).equals(lines(10).get(3)), "left: " + left);
    }

    private static void verifiable() throws Exception {
        create("verifiable", "");
        String produced = process("VerifiableProducer", "--topic verifiable --max-messages 200 --acks -1");
        long acknowledged = produced.lines().filter(line -> line.contains("\"producer_send_success\"")).count();
        Desk.check(acknowledged == 200, acknowledged + " acknowledged: " + produced);
        String consumed =
                process(
                        "VerifiableConsumer",
                        "--topic verifiable --group-id verifiable --max-messages 200 --reset-policy earliest --verbose");
        long read = consumed.lines().filter(line -> line.contains("\"record_data\"")).count();
        Desk.check(read == 200, read + " read: " + consumed);
        has(consumed, "\"offsets_committed\"");
    }

    private static void restart() throws Exception {
        create("restart", "");
        List<String> sent = lines(30);
        String group = " --group lasting --command-property auto.offset.reset=earliest";
        produce("restart", sent.subList(0, 10));
        Desk.check(consume("restart", 10, group).equals(sent.subList(0, 10)), "before the restart");
        Desk.ask("restart term");
        produce("restart", sent.subList(10, 20));
        Desk.check(consume("restart", 10, group).equals(sent.subList(10, 20)), "after the restart");
        Desk.ask("restart kill");
        produce("restart", sent.subList(20, 30));
        Desk.check(consume("restart", 10, group).equals(sent.subList(20, 30)), "after the kill");
        Desk.check(consume("restart", 30, " --from-beginning").equals(sent), "all of it");
    }

    private static void dumpSegments() throws Exception {
        // 1 MiB is the smallest segment that Kafka takes; three of them are filled.
        create("dumped", " --config segment.bytes=1048576");
        String reading = "x".repeat(10_000);
        List<String> sent = IntStream.range(0, 350).mapToObj(i -> "k\t" + i + reading).collect(Collectors.toList());
        produce("dumped", sent);
        Matcher id = Pattern.compile("TopicId: (\\S+)").matcher(run(TopicCommand::main, "--describe --topic dumped"));
        Desk.check(id.find(), "no topic id");
        Uuid topicId = Uuid.fromString(id.group(1));
        UUID spelled = new UUID(topicId.getMostSignificantBits(), topicId.getLeastSignificantBits());
        // What a running broker has laid down can be read at any time.
        List<String> running = new ArrayList<>();
        Desk.until(
                () -> {
                    try {
                        running.add(Desk.ask("segments dumped " + spelled + " 0").replace(' ', ','));
                        return true;
                    } catch (Exception | AssertionError error) {
                        return false; // nothing is laid down yet
                    }
                },
                40,
                "a segment file");
        tool("", DumpLogSegments::main, "--files", running.get(0));
        Desk.ask("stop term");
        String files = Desk.ask("segments dumped " + spelled + " 0").replace(' ', ',');
        Desk.check(files.split(",").length >= 3, "only " + files);
        String dumped = tool("", DumpLogSegments::main, "--deep-iteration", "--files", files);
        Pattern batch = Pattern.compile("baseOffset: (\\d+) lastOffset: (\\d+) .*isvalid: (\\w+)");
        int next = 0;
        for (String line : dumped.lines().collect(Collectors.toList())) {
            Matcher found = batch.matcher(line);
            if (found.find()) {
                Desk.check(Integer.parseInt(found.group(1)) == next && found.group(3).equals("true"), line);
                next = Integer.parseInt(found.group(2)) + 1;
            }
        }
        Desk.check(next == 350, "the files end at " + next);
        List<Integer> offsets =
                Pattern.compile("(?m)^\\| offset: (\\d+)").matcher(dumped).results()
                        .map(found -> Integer.parseInt(found.group(1)))
                        .collect(Collectors.toList());
        Desk.check(
                offsets.equals(IntStream.range(0, 350).boxed().collect(Collectors.toList())),
                "records at " + offsets);
    }
}
