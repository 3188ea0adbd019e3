import jakarta.jms.BytesMessage;
import jakarta.jms.Connection;
import jakarta.jms.DeliveryMode;
import jakarta.jms.Destination;
import jakarta.jms.InvalidSelectorException;
import jakarta.jms.JMSException;
import jakarta.jms.MapMessage;
import jakarta.jms.Message;
import jakarta.jms.MessageConsumer;
import jakarta.jms.MessageProducer;
import jakarta.jms.ObjectMessage;
import jakarta.jms.Queue;
import jakarta.jms.QueueBrowser;
import jakarta.jms.Session;
import jakarta.jms.StreamMessage;
import jakarta.jms.TemporaryQueue;
import jakarta.jms.TemporaryTopic;
import jakarta.jms.TextMessage;
import jakarta.jms.Topic;
import jakarta.jms.TransactionRolledBackException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import org.apache.qpid.jms.JmsConnectionFactory;

/** Qpid JMS against the AMQP front: what the JMS API promises of queues, topics, subscriptions, transactions and temporary destinations. */
public final class Jms {
    /** How long something that comes may take, and how long something that does not is waited for. */
    private static final long COMES_MS = 30_000;
    private static final long STAYS_AWAY_MS = 500;
    private static String address;
    private static int names;

    private Jms() {}

    interface Work {
        void with(Connection connection) throws Exception;
    }

    interface OfPrefetch {
        void run(int prefetch) throws Exception;
    }

    public static void main(String[] arguments) throws Exception {
        address = Desk.ask("amqp");
        both("bodies", Jms::bodies);
        Desk.scenario("headers", Jms::headers);
        both("acknowledgements", Jms::acknowledgements);
        both("selectors", Jms::selectors);
        both("browser", Jms::browser);
        both("transacted session", Jms::transacted);
        both("temporary queue", Jms::temporaryQueue);
        Desk.scenario("temporary topic", Jms::temporaryTopic);
        Desk.scenario("topics", Jms::topics);
        Desk.scenario("durable subscription", Jms::durable);
        Desk.scenario("shared subscriptions", Jms::shared);
        Desk.scenario("time to live", Jms::timeToLive);
        Desk.scenario("kill", Jms::kill);
        Desk.end();
    }

    /** A scenario that a client without prefetched messages passes, and one with many. */
    private static void both(String name, OfPrefetch scenario) {
        Desk.scenario(name, () -> {
            scenario.run(0);
            scenario.run(1000);
        });
    }

    /** A name that no other scenario has. */
    private static synchronized String name(String of) {
        names++;
        return of + "-" + names + "-" + ProcessHandle.current().pid();
    }

    private static void connected(int prefetch, Work work) throws Exception {
        connected(prefetch, null, work);
    }

    private static void connected(int prefetch, String client, Work work) throws Exception {
        String url = "amqp://" + address + "?jms.prefetchPolicy.all=" + prefetch;
        JmsConnectionFactory factory = new JmsConnectionFactory(url);
        try (Connection connection = factory.createConnection()) {
            if (client != null) {
                connection.setClientID(client);
            }
            connection.start();
            work.with(connection);
        }
    }

    private static void send(Session session, Destination to, String... texts) throws JMSException {
        try (MessageProducer producer = session.createProducer(to)) {
            for (String text : texts) {
                producer.send(session.createTextMessage(text));
            }
        }
    }

    private static Message next(MessageConsumer consumer) throws JMSException {
        Message message = consumer.receive(COMES_MS);
        Desk.check(message != null, "nothing comes");
        return message;
    }

    private static String text(MessageConsumer consumer) throws JMSException {
        return ((TextMessage) next(consumer)).getText();
    }

    private static void nothing(MessageConsumer consumer) throws JMSException {
        Message message = consumer.receive(STAYS_AWAY_MS);
        Desk.check(message == null, "something comes: " + message);
        message = consumer.receiveNoWait();
        Desk.check(message == null, "something comes at once: " + message);
    }

    private static void same(Object expected, Object found) {
        boolean same = expected instanceof byte[] bytes ? Arrays.equals(bytes, (byte[]) found) : expected.equals(found);
        Desk.check(same, found + " in the place of " + expected);
    }

    private static void bodies(int prefetch) throws Exception {
        connected(prefetch, connection -> {
            Session session = connection.createSession(Session.AUTO_ACKNOWLEDGE);
            Queue queue = session.createQueue(name("bodies"));
            MessageProducer producer = session.createProducer(queue);
            producer.send(session.createTextMessage("text äöü"));
            producer.send(session.createTextMessage());
            producer.send(session.createMessage());
            BytesMessage bytes = session.createBytesMessage();
            bytes.writeBytes(new byte[] {0, 1, -1});
            producer.send(bytes);
            MapMessage map = session.createMapMessage();
            map.setInt("int", 7);
            map.setString("string", "s");
            map.setBytes("bytes", new byte[] {5});
            producer.send(map);
            StreamMessage stream = session.createStreamMessage();
            stream.writeLong(8L);
            stream.writeString("t");
            producer.send(stream);
            producer.send(session.createObjectMessage(new ArrayList<>(List.of("a", 1))));
            byte[] large = new byte[700_000];
            Arrays.fill(large, (byte) 9);
            bytes = session.createBytesMessage();
            bytes.writeBytes(large);
            producer.send(bytes);
            MessageConsumer consumer = session.createConsumer(queue);
            same("text äöü", text(consumer));
            Desk.check(((TextMessage) next(consumer)).getText() == null, "a text of nothing");
            Message empty = next(consumer);
            Desk.check(!(empty instanceof TextMessage), "a message without a body is " + empty);
            BytesMessage found = (BytesMessage) next(consumer);
            byte[] three = new byte[3];
            same(3, found.readBytes(three));
            same(new byte[] {0, 1, -1}, three);
            MapMessage foundMap = (MapMessage) next(consumer);
            same(7, foundMap.getInt("int"));
            same("s", foundMap.getString("string"));
            same(new byte[] {5}, foundMap.getBytes("bytes"));
            StreamMessage foundStream = (StreamMessage) next(consumer);
            same(8L, foundStream.readLong());
            same("t", foundStream.readString());
            same(List.of("a", 1), ((ObjectMessage) next(consumer)).getObject());
            found = (BytesMessage) next(consumer);
            same((long) large.length, found.getBodyLength());
            byte[] all = new byte[large.length];
            found.readBytes(all);
            same(large, all);
            nothing(consumer);
        });
    }

    private static void headers() throws Exception {
        connected(1000, connection -> {
            Session session = connection.createSession(Session.AUTO_ACKNOWLEDGE);
            Queue queue = session.createQueue(name("headers"));
            Queue answers = session.createQueue(name("answers"));
            Message message = session.createTextMessage("x");
            message.setJMSCorrelationID("c");
            message.setJMSReplyTo(answers);
            message.setJMSType("type");
            message.setBooleanProperty("boolean", true);
            message.setByteProperty("byte", (byte) 1);
            message.setShortProperty("short", (short) 2);
            message.setIntProperty("int", 3);
            message.setLongProperty("long", 4L);
            message.setFloatProperty("float", 5.5f);
            message.setDoubleProperty("double", 6.5);
            message.setStringProperty("string", "s");
            message.setStringProperty("JMSXGroupID", "g");
            message.setIntProperty("JMSXGroupSeq", 9);
            MessageProducer producer = session.createProducer(queue);
            producer.setPriority(8);
            producer.setDeliveryMode(DeliveryMode.NON_PERSISTENT);
            producer.send(message);
            MessageConsumer consumer = session.createConsumer(queue);
            Message found = next(consumer);
            same(message.getJMSMessageID(), found.getJMSMessageID());
            same(message.getJMSTimestamp(), found.getJMSTimestamp());
            same("c", found.getJMSCorrelationID());
            same(answers, found.getJMSReplyTo());
            same(queue, found.getJMSDestination());
            same("type", found.getJMSType());
            same(8, found.getJMSPriority());
            same(DeliveryMode.NON_PERSISTENT, found.getJMSDeliveryMode());
            same(false, found.getJMSRedelivered());
            same(1, found.getIntProperty("JMSXDeliveryCount"));
            same("g", found.getStringProperty("JMSXGroupID"));
            same(9, found.getIntProperty("JMSXGroupSeq"));
            for (String property : List.of("boolean", "byte", "short", "int", "long", "float", "double", "string")) {
                same(message.getObjectProperty(property), found.getObjectProperty(property));
            }
        });
    }

    private static void acknowledgements(int prefetch) throws Exception {
        connected(prefetch, connection -> {
            Session session = connection.createSession(Session.CLIENT_ACKNOWLEDGE);
            Queue queue = session.createQueue(name("acknowledged"));
            send(session, queue, "a", "b", "c");
            MessageConsumer consumer = session.createConsumer(queue);
            same("a", text(consumer));
            same("b", text(consumer));
            session.recover();
            Message again = next(consumer);
            same("a", ((TextMessage) again).getText());
            same(true, again.getJMSRedelivered());
            same(2, again.getIntProperty("JMSXDeliveryCount"));
            same("b", text(consumer));
            same("c", text(consumer));
            again.acknowledge();
            nothing(consumer);
            consumer.close();
            // What a consumer has prefetched is others' when it goes.
            send(session, queue, "d", "e");
            MessageConsumer first = session.createConsumer(queue);
            same("d", text(first));
            first.close();
            session.close();
            session = connection.createSession(Session.AUTO_ACKNOWLEDGE);
            MessageConsumer second = session.createConsumer(queue);
            List<String> both = new ArrayList<>(List.of(text(second), text(second)));
            Collections.sort(both);
            same(List.of("d", "e"), both);
            nothing(second);
        });
    }

    private static void selectors(int prefetch) throws Exception {
        connected(prefetch, connection -> {
            Session session = connection.createSession(Session.AUTO_ACKNOWLEDGE);
            Queue queue = session.createQueue(name("selected"));
            MessageProducer producer = session.createProducer(queue);
            for (int number = 0; number < 6; number++) {
                Message message = session.createTextMessage("m" + number);
                message.setIntProperty("number", number);
                message.setStringProperty("color", number % 2 == 0 ? "red" : "blue");
                message.setJMSType("t" + number);
                producer.send(message);
            }
            MessageConsumer red = session.createConsumer(queue, "color = 'red' AND number BETWEEN 1 AND 4");
            same("m2", text(red));
            same("m4", text(red));
            nothing(red);
            red.close();
            MessageConsumer typed = session.createConsumer(queue, "JMSType LIKE 't!_' ESCAPE '!' OR JMSType IN ('t5') AND JMSPriority = 4");
            same("m5", text(typed));
            nothing(typed);
            typed.close();
            MessageConsumer rest = session.createConsumer(queue);
            for (String expected : List.of("m0", "m1", "m3")) {
                same(expected, text(rest));
            }
            nothing(rest);
            try {
                session.createConsumer(queue, "color =");
                Desk.check(false, "no such selector");
            } catch (InvalidSelectorException expected) {
                Desk.check(expected.getMessage() != null, "it says why");
            }
        });
    }

    private static void browser(int prefetch) throws Exception {
        connected(prefetch, connection -> {
            Session session = connection.createSession(Session.AUTO_ACKNOWLEDGE);
            Queue queue = session.createQueue(name("browsed"));
            same(List.of(), browsed(session, queue, null));
            MessageProducer producer = session.createProducer(queue);
            for (int number = 0; number < 20; number++) {
                Message message = session.createTextMessage("m" + number);
                message.setIntProperty("number", number);
                producer.send(message);
            }
            same(20, browsed(session, queue, null).size());
            same(List.of("m18", "m19"), browsed(session, queue, "number > 17"));
            MessageConsumer consumer = session.createConsumer(queue);
            for (int number = 0; number < 18; number++) {
                same("m" + number, text(consumer));
            }
            same(List.of("m18", "m19"), browsed(session, queue, null));
            same("m18", text(consumer));
            same("m19", text(consumer));
            nothing(consumer);
        });
    }

    private static List<String> browsed(Session session, Queue queue, String selector) throws JMSException {
        List<String> all = new ArrayList<>();
        try (QueueBrowser browser = session.createBrowser(queue, selector)) {
            for (Object message : Collections.list(browser.getEnumeration())) {
                all.add(((TextMessage) message).getText());
            }
        }
        return all;
    }

    private static void transacted(int prefetch) throws Exception {
        connected(prefetch, connection -> {
            Session plain = connection.createSession(Session.AUTO_ACKNOWLEDGE);
            Queue from = plain.createQueue(name("from"));
            Queue to = plain.createQueue(name("to"));
            Queue other = plain.createQueue(name("other"));
            send(plain, from, "a", "b", "c");
            MessageConsumer committed = plain.createConsumer(to);
            MessageConsumer committedToo = plain.createConsumer(other);
            Session session = connection.createSession(Session.SESSION_TRANSACTED);
            MessageConsumer consumer = session.createConsumer(from);
            same("a", text(consumer));
            same("b", text(consumer));
            send(session, to, "A", "B");
            send(session, other, "AB");
            nothing(committed);
            session.rollback();
            nothing(committed);
            Message again = next(consumer);
            same("a", ((TextMessage) again).getText());
            same(true, again.getJMSRedelivered());
            same("b", text(consumer));
            send(session, to, "A", "B");
            send(session, other, "AB");
            session.commit();
            same("A", text(committed));
            same("B", text(committed));
            same("AB", text(committedToo));
            // The next one begins by itself, and ends with its session.
            same("c", text(consumer));
            send(session, to, "C");
            session.close();
            nothing(committed);
            try (MessageConsumer rest = plain.createConsumer(from)) {
                same("c", text(rest));
                nothing(rest);
            }
            // More than is kept for a connection's transactions.
            Session much = connection.createSession(Session.SESSION_TRANSACTED);
            MessageProducer producer = much.createProducer(to);
            try {
                for (int number = 0; number < 12; number++) {
                    BytesMessage message = much.createBytesMessage();
                    message.writeBytes(new byte[900_000]);
                    producer.send(message);
                }
                much.commit();
                Desk.check(false, "it cannot be committed");
            } catch (TransactionRolledBackException expected) {
                Desk.check(expected.getMessage() != null, "it says why");
            } catch (JMSException refused) {
                much.rollback();
            }
            nothing(committed);
            send(much, to, "D");
            much.commit();
            same("D", text(committed));
        });
    }

    private static void temporaryQueue(int prefetch) throws Exception {
        String service = name("service");
        connected(prefetch, serving -> {
            Session server = serving.createSession(Session.AUTO_ACKNOWLEDGE);
            MessageConsumer requests = server.createConsumer(server.createQueue(service));
            MessageProducer replies = server.createProducer(null);
            requests.setMessageListener(request -> {
                try {
                    TextMessage reply = server.createTextMessage(((TextMessage) request).getText().toUpperCase());
                    reply.setJMSCorrelationID(request.getJMSMessageID());
                    replies.send(request.getJMSReplyTo(), reply);
                } catch (JMSException error) {
                    error.printStackTrace();
                }
            });
            connected(prefetch, asking -> {
                Session client = asking.createSession(Session.AUTO_ACKNOWLEDGE);
                TemporaryQueue answers = client.createTemporaryQueue();
                MessageConsumer consumer = client.createConsumer(answers);
                MessageProducer producer = client.createProducer(client.createQueue(service));
                for (String text : List.of("one", "two")) {
                    TextMessage request = client.createTextMessage(text);
                    request.setJMSReplyTo(answers);
                    producer.send(request);
                    TextMessage reply = (TextMessage) next(consumer);
                    same(text.toUpperCase(), reply.getText());
                    same(request.getJMSMessageID(), reply.getJMSCorrelationID());
                }
                consumer.close();
                answers.delete();
            });
        });
    }

    private static void temporaryTopic() throws Exception {
        connected(1000, connection -> {
            Session session = connection.createSession(Session.AUTO_ACKNOWLEDGE);
            TemporaryTopic topic = session.createTemporaryTopic();
            MessageConsumer one = session.createConsumer(topic);
            MessageConsumer two = session.createConsumer(topic);
            send(session, topic, "a");
            same("a", text(one));
            same("a", text(two));
            one.close();
            two.close();
            topic.delete();
        });
    }

    private static void topics() throws Exception {
        connected(1000, connection -> {
            Session session = connection.createSession(Session.AUTO_ACKNOWLEDGE);
            Topic topic = session.createTopic(name("news"));
            send(session, topic, "before");
            MessageConsumer all = session.createConsumer(topic);
            MessageConsumer some = session.createConsumer(topic, "color = 'red'");
            MessageProducer producer = session.createProducer(topic);
            for (String color : List.of("blue", "red")) {
                Message message = session.createTextMessage(color);
                message.setStringProperty("color", color);
                producer.send(message);
            }
            same("blue", text(all));
            same("red", text(all));
            same("red", text(some));
            nothing(all);
            nothing(some);
            // What is not acknowledged, or rolled back, comes again.
            Session acknowledging = connection.createSession(Session.CLIENT_ACKNOWLEDGE);
            MessageConsumer consumer = acknowledging.createConsumer(topic);
            Session transacted = connection.createSession(Session.SESSION_TRANSACTED);
            MessageConsumer rolledBack = transacted.createConsumer(topic);
            send(session, topic, "a", "b");
            for (int round = 0; round < 2; round++) {
                for (MessageConsumer one : List.of(consumer, rolledBack)) {
                    Message message = next(one);
                    same("a", ((TextMessage) message).getText());
                    same(round > 0, message.getJMSRedelivered());
                    same("b", text(one));
                }
                if (round == 0) {
                    acknowledging.recover();
                    transacted.rollback();
                }
            }
            transacted.commit();
            nothing(consumer);
            nothing(rolledBack);
        });
    }

    private static void durable() throws Exception {
        String topic = name("kept");
        String client = name("client");
        connected(1000, client, connection -> {
            Session session = connection.createSession(Session.AUTO_ACKNOWLEDGE);
            MessageConsumer consumer = session.createDurableConsumer(session.createTopic(topic), "s");
            send(session, session.createTopic(topic), "a");
            same("a", text(consumer));
        });
        connected(1000, connection -> {
            Session session = connection.createSession(Session.AUTO_ACKNOWLEDGE);
            send(session, session.createTopic(topic), "b", "c");
        });
        connected(1000, client, connection -> {
            Session session = connection.createSession(Session.SESSION_TRANSACTED);
            Topic kept = session.createTopic(topic);
            MessageConsumer consumer = session.createDurableConsumer(kept, "s");
            same("b", text(consumer));
            session.commit();
            same("c", text(consumer));
            session.rollback();
            same("c", text(consumer));
            session.commit();
            nothing(consumer);
            consumer.close();
            // Another selector makes another one of it.
            consumer = session.createDurableConsumer(kept, "s", "color = 'red'", false);
            nothing(consumer);
            consumer.close();
            session.unsubscribe("s");
            try {
                session.unsubscribe("s");
                Desk.check(false, "it is gone");
            } catch (JMSException expected) {
                Desk.check(expected.getMessage() != null, "it says why");
            }
        });
    }

    private static void shared() throws Exception {
        String topic = name("shared");
        String client = name("client");
        connected(1, client, connection -> {
            Session session = connection.createSession(Session.AUTO_ACKNOWLEDGE);
            Topic shared = session.createTopic(topic);
            MessageConsumer one = session.createSharedDurableConsumer(shared, "s");
            MessageConsumer two = session.createSharedDurableConsumer(shared, "s");
            MessageConsumer fleeting = session.createSharedConsumer(shared, "f");
            send(session, shared, "a", "b", "c", "d");
            List<String> all = new ArrayList<>();
            for (int round = 0; all.size() < 4 && round < 60; round++) {
                for (MessageConsumer consumer : List.of(one, two)) {
                    Message message = consumer.receive(STAYS_AWAY_MS);
                    if (message != null) {
                        all.add(((TextMessage) message).getText());
                    }
                }
            }
            Collections.sort(all);
            same(List.of("a", "b", "c", "d"), all);
            for (String expected : List.of("a", "b", "c", "d")) {
                same(expected, text(fleeting));
            }
            one.close();
            two.close();
            fleeting.close();
            session.unsubscribe("s");
        });
        // Of no client at all.
        connected(1000, connection -> {
            Session session = connection.createSession(Session.AUTO_ACKNOWLEDGE);
            Topic shared = session.createTopic(topic);
            String name = name("global");
            MessageConsumer consumer = session.createSharedDurableConsumer(shared, name);
            send(session, shared, "e");
            same("e", text(consumer));
            consumer.close();
            session.unsubscribe(name);
        });
    }

    /** The broker is killed under a producer that waits for each message, and under a transacted session; the client connects again. */
    private static void kill() throws Exception {
        String url = "failover:(amqp://" + address + ")?failover.reconnectDelay=100&failover.maxReconnectAttempts=300";
        try (Connection connection = new JmsConnectionFactory(url).createConnection()) {
            connection.start();
            Session session = connection.createSession(Session.AUTO_ACKNOWLEDGE);
            Queue queue = session.createQueue(name("killed"));
            Queue moved = session.createQueue(name("moved"));
            MessageProducer producer = session.createProducer(queue);
            List<String> sent = new ArrayList<>();
            for (int number = 0; number < 60; number++) {
                if (number == 30) {
                    Desk.ask("restart kill");
                }
                producer.send(session.createTextMessage("m" + number));
                sent.add("m" + number);
            }
            // Each is moved in a transaction; one that the kill meets is rolled back, and done again.
            Session transacted = connection.createSession(Session.SESSION_TRANSACTED);
            MessageConsumer consumer = transacted.createConsumer(queue);
            MessageProducer mover = transacted.createProducer(moved);
            boolean isKilled = false;
            for (int count = 0; count < sent.size(); count++) {
                Message message = next(consumer);
                mover.send(message);
                if (count == 20 && !isKilled) {
                    isKilled = true;
                    Desk.ask("restart kill");
                }
                try {
                    transacted.commit();
                } catch (JMSException expected) {
                    transacted.rollback();
                    count--;
                }
            }
            List<String> found = new ArrayList<>();
            MessageConsumer all = session.createConsumer(moved);
            while (found.size() < sent.size()) {
                found.add(text(all));
            }
            nothing(all);
            Collections.sort(found);
            Collections.sort(sent);
            same(sent, found);
        }
    }

    private static void timeToLive() throws Exception {
        connected(1000, connection -> {
            Session session = connection.createSession(Session.AUTO_ACKNOWLEDGE);
            Queue queue = session.createQueue(name("fleeting"));
            MessageProducer producer = session.createProducer(queue);
            producer.send(session.createTextMessage("gone"), DeliveryMode.PERSISTENT, 4, 1);
            producer.send(session.createTextMessage("there"), DeliveryMode.PERSISTENT, 4, 600_000);
            Thread.sleep(50);
            MessageConsumer consumer = session.createConsumer(queue);
            Message found = next(consumer);
            same("there", ((TextMessage) found).getText());
            Desk.check(found.getJMSExpiration() > System.currentTimeMillis(), "it says until when");
            nothing(consumer);
        });
    }
}
