import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import java.util.stream.IntStream;
import org.apache.qpid.protonj2.client.Client;
import org.apache.qpid.protonj2.client.Connection;
import org.apache.qpid.protonj2.client.ConnectionOptions;
import org.apache.qpid.protonj2.client.Delivery;
import org.apache.qpid.protonj2.client.DeliveryState;
import org.apache.qpid.protonj2.client.Message;
import org.apache.qpid.protonj2.client.Receiver;
import org.apache.qpid.protonj2.client.ReceiverOptions;
import org.apache.qpid.protonj2.client.Sender;
import org.apache.qpid.protonj2.client.Session;
import org.apache.qpid.protonj2.client.Tracker;
import org.apache.qpid.protonj2.client.exceptions.ClientException;

/** protonj2's client against the AMQP front, and Kafka's consumer and producer on the other side. */
public final class Proton {
    private static final int COUNT = 200;
    private static final long COMES_SECONDS = 40;
    private static String kafka;
    private static String host;
    private static int port;

    private Proton() {}

    interface Work {
        void with(Connection connection) throws Exception;
    }

    public static void main(String[] arguments) throws Exception {
        kafka = arguments[0];
        String[] address = Desk.ask("amqp").split(":");
        host = address[0];
        port = Integer.parseInt(address[1]);
        Desk.scenario("bodies", Proton::bodies);
        Desk.scenario("credit", Proton::credit);
        Desk.scenario("outcomes", Proton::outcomes);
        Desk.scenario("transactions", Proton::transactions);
        Desk.scenario("kafka", Proton::kafka);
        Desk.scenario("kill", Proton::kill);
        Desk.end();
    }

    private static void connected(Work work) throws Exception {
        connected(new ConnectionOptions(), work);
    }

    private static void connected(ConnectionOptions options, Work work) throws Exception {
        try (Client client = Client.create(); Connection connection = client.connect(host, port, options)) {
            work.with(connection);
        }
    }

    private static List<String> numbers(int first, int end) {
        return IntStream.range(first, end).mapToObj(it -> "m" + it).toList();
    }

    private static void send(Sender sender, Message<?> message) throws Exception {
        Tracker tracker = sender.send(message).awaitSettlement(COMES_SECONDS, TimeUnit.SECONDS);
        same(DeliveryState.Type.ACCEPTED, tracker.remoteState().getType());
    }

    private static void send(Connection connection, String target, List<String> texts) throws Exception {
        try (Sender sender = connection.openSender(target)) {
            for (String text : texts) {
                send(sender, Message.create(text));
            }
        }
    }

    private static Delivery next(Receiver receiver) throws Exception {
        Delivery delivery = receiver.receive(COMES_SECONDS, TimeUnit.SECONDS);
        Desk.check(delivery != null, "nothing comes");
        return delivery;
    }

    private static String text(Delivery delivery) throws Exception {
        return String.valueOf(delivery.message().body());
    }

    private static List<String> receive(Receiver receiver, int count) throws Exception {
        List<String> found = new ArrayList<>();
        for (int at = 0; at < count; at++) {
            Delivery delivery = next(receiver);
            found.add(text(delivery));
            delivery.accept();
        }
        return found;
    }

    private static void nothing(Receiver receiver) throws Exception {
        Delivery delivery = receiver.receive(300, TimeUnit.MILLISECONDS);
        Desk.check(delivery == null, "something comes");
    }

    private static ReceiverOptions manual(int credit) {
        return new ReceiverOptions().creditWindow(credit).autoAccept(false);
    }

    private static void same(Object expected, Object found) {
        boolean same = expected instanceof byte[] bytes ? found instanceof byte[] other && Arrays.equals(bytes, other) : expected.equals(found);
        Desk.check(same, found + " in the place of " + expected);
    }

    private static void bodies() throws Exception {
        byte[] large = new byte[700_000];
        Arrays.fill(large, (byte) 9);
        List<Object> bodies = List.of(
            "text äöü", -7, 1L << 40, true, 6.5, Map.of("k", "v"), List.of("x", "y"), new byte[] {0, 1, -1}, large);
        connected(connection -> {
            try (Sender sender = connection.openSender("protonj2-bodies")) {
                for (Object body : bodies) {
                    send(sender, Message.create(body));
                }
                send(sender, Message.create());
            }
            Receiver receiver = connection.openReceiver("protonj2-bodies", manual(100));
            for (Object body : bodies) {
                Delivery delivery = next(receiver);
                same(body, delivery.message().body());
                delivery.accept();
            }
            Delivery delivery = next(receiver);
            Desk.check(delivery.message().body() == null, "a body");
            delivery.accept();
            nothing(receiver);
        });
    }

    private static void credit() throws Exception {
        connected(connection -> {
            send(connection, "protonj2-credit", numbers(0, COUNT));
            List<String> found = new ArrayList<>();
            try (Receiver one = connection.openReceiver("protonj2-credit", manual(0))) {
                for (int at = 0; at < 3; at++) {
                    one.addCredit(1);
                    found.addAll(receive(one, 1));
                    nothing(one);
                }
            }
            try (Receiver many = connection.openReceiver("protonj2-credit", manual(1000))) {
                found.addAll(receive(many, COUNT - 3));
                nothing(many);
            }
            same(numbers(0, COUNT), found);
            // A drain of an empty queue is answered.
            try (Receiver drained = connection.openReceiver("protonj2-credit", manual(0))) {
                drained.addCredit(10);
                drained.drain().get(COMES_SECONDS, TimeUnit.SECONDS);
            }
        });
    }

    private static void outcomes() throws Exception {
        connected(connection -> {
            send(connection, "protonj2-outcomes", numbers(0, 4));
            List<String> seen = new ArrayList<>();
            try (Receiver receiver = connection.openReceiver("protonj2-outcomes", manual(1))) {
                while (seen.size() < 6) {
                    Delivery delivery = next(receiver);
                    String said = text(delivery) + " " + delivery.message().deliveryCount();
                    boolean again = seen.contains(said);
                    seen.add(said);
                    switch (said) {
                        case "m0 0" -> delivery.modified(true, false);
                        case "m1 0" -> {
                            if (again) {
                                delivery.accept();
                            } else {
                                delivery.release();
                            }
                        }
                        case "m2 0" -> delivery.reject("test:wrong", "not wanted");
                        default -> delivery.accept();
                    }
                }
                nothing(receiver);
            }
            same(List.of("m0 0", "m0 1", "m1 0", "m1 0", "m2 0", "m3 0"), seen.stream().sorted().toList());
        });
    }

    private static void transactions() throws Exception {
        connected(connection -> {
            send(connection, "protonj2-from", numbers(0, 3));
            Session session = connection.openSession();
            Sender sender = session.openSender("protonj2-to");
            Receiver receiver = session.openReceiver("protonj2-from", manual(0));
            List<String> seen = new ArrayList<>();
            for (String ends : List.of("commit", "rollback", "commit", "commit")) {
                session.beginTransaction();
                receiver.addCredit(1);
                Delivery delivery = next(receiver);
                seen.add(text(delivery) + " " + delivery.message().deliveryCount());
                sender.send(Message.create(text(delivery)));
                delivery.accept();
                if (ends.equals("commit")) {
                    session.commitTransaction();
                } else {
                    session.rollbackTransaction();
                }
            }
            same(List.of("m0 0", "m1 0", "m1 1", "m2 0"), seen);
            Receiver moved = connection.openReceiver("protonj2-to", manual(10));
            same(numbers(0, 3), receive(moved, 3));
            nothing(moved);
            nothing(connection.openReceiver("protonj2-from", manual(10)));
        });
        same(numbers(0, 3), Records.values(kafka, "protonj2-to"));
    }

    private static void kafka() throws Exception {
        connected(connection -> {
            try (Sender sender = connection.openSender("protonj2-kafka")) {
                for (String text : numbers(0, COUNT)) {
                    Message<String> message = Message.create(text);
                    message.subject("reading").property("unit", "K").annotation("x-opt-partition-key", "key");
                    send(sender, message);
                }
            }
            var records = Records.stored(kafka, "protonj2-kafka");
            same(numbers(0, COUNT), records.stream().map(it -> it.value()).toList());
            boolean same = records.stream().allMatch(it -> it.key().equals("key") && "K".equals(Records.header(it, "unit")));
            Desk.check(same, "key and headers");
            Records.produce(kafka, "protonj2-kafka", "from kafka", "unit", "C");
            Receiver receiver = connection.openReceiver("protonj2-kafka", manual(1000));
            Delivery first = next(receiver);
            same("reading", first.message().subject());
            first.accept();
            receive(receiver, COUNT - 1);
            Delivery last = next(receiver);
            same("from kafka".getBytes(), last.message().body());
            same("C", last.message().property("unit"));
            last.accept();
        });
    }

    /** The client connects again by itself. What is not accepted by then fails, and is sent again. */
    private static void kill() throws Exception {
        ConnectionOptions options = new ConnectionOptions();
        options.reconnectOptions().reconnectEnabled(true).reconnectDelay(100).maxReconnectDelay(500);
        connected(options, connection -> {
            Sender sender = connection.openSender("protonj2-kill");
            for (String text : numbers(0, COUNT)) {
                if (text.equals("m" + COUNT / 2)) {
                    Desk.ask("restart kill");
                }
                for (boolean sent = false; !sent;) {
                    try {
                        send(sender, Message.create(text));
                        sent = true;
                    } catch (ClientException lost) {
                        System.out.println("again: " + lost);
                    }
                }
            }
            Set<String> found = new LinkedHashSet<>();
            Receiver receiver = connection.openReceiver("protonj2-kill", manual(10));
            boolean isKilled = false;
            while (found.size() < COUNT) {
                if (found.size() == COUNT / 2 && !isKilled) {
                    isKilled = true;
                    Desk.ask("restart kill");
                }
                Delivery delivery = next(receiver);
                String text = text(delivery);
                try {
                    delivery.accept();
                    found.add(text);
                } catch (ClientException lost) {
                    System.out.println("again: " + lost);
                }
            }
            same(Set.copyOf(numbers(0, COUNT)), found);
        });
        same(Set.copyOf(numbers(0, COUNT)), Set.copyOf(Records.values(kafka, "protonj2-kill")));
    }
}
