import jakarta.jms.BytesMessage;
import jakarta.jms.Connection;
import jakarta.jms.JMSException;
import jakarta.jms.Message;
import jakarta.jms.MessageConsumer;
import jakarta.jms.MessageProducer;
import jakarta.jms.Session;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.net.URI;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Random;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import org.apache.qpid.jms.JmsConnection;
import org.apache.qpid.jms.JmsConnectionFactory;
import org.apache.qpid.jms.JmsConnectionListener;
import org.apache.qpid.jms.message.JmsInboundMessageDispatch;

/**
 * JMS clients under the exam's faults (proof/src/exam/jms.rs, which tells what they say): producers, a consumer in a transacted session, one that
 * acknowledges, and one that moves messages in transactions. Arguments: address, queue, topic, seed, and how many of these.
 */
public final class Fleet {
    private static final PrintStream OUT = System.out;
    private static final List<BlockingQueue<String>> ANSWERS = new ArrayList<>();
    /** How long one who finds nothing waits before it may rest. */
    private static final long LOOK_EVERY_MS = 100;
    private static final long PAUSE_MS = 5;
    /** One in so many transactions is rolled back. */
    private static final int ROLLED_BACK = 8;
    private static String address;
    private static String jobs;
    private static String done;
    private static long seed;

    private Fleet() {}

    /** What a client does with a session, until an exception. */
    interface Role {
        void work(Client client, Session session) throws Exception;
    }

    public static void main(String[] arguments) throws Exception {
        address = arguments[0];
        jobs = arguments[1];
        done = arguments[2];
        seed = Long.parseUnsignedLong(arguments[3]);
        List<Client> clients = List.of(
                new Client(0, 10, Session.AUTO_ACKNOWLEDGE, Client::produce),
                new Client(1, 10, Session.AUTO_ACKNOWLEDGE, Client::produce),
                new Client(2, 0, Session.SESSION_TRANSACTED, Client::consume),
                new Client(3, 10, Session.CLIENT_ACKNOWLEDGE, Client::acknowledge),
                new Client(4, 4, Session.SESSION_TRANSACTED, Client::move));
        clients = clients.subList(0, Integer.parseInt(arguments[4]));
        for (Client client : clients) {
            ANSWERS.add(new LinkedBlockingQueue<>());
        }
        clients.forEach(client -> new Thread(client).start());
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            String[] words = line.split(" ", 2);
            ANSWERS.get(Integer.parseInt(words[0])).put(words[1]);
        }
        Runtime.getRuntime().halt(0);
    }

    private static synchronized void say(String line) {
        OUT.println("@" + line);
        OUT.flush();
    }

    /** Tells of connections. */
    private static final class Listener implements JmsConnectionListener {
        @Override
        public void onConnectionInterrupted(URI remote) {
            say("interrupted");
        }

        @Override
        public void onConnectionRestored(URI remote) {
            say("restored");
        }

        @Override
        public void onConnectionEstablished(URI remote) {}

        @Override
        public void onConnectionFailure(Throwable error) {}

        @Override
        public void onInboundMessage(JmsInboundMessageDispatch envelope) {}

        @Override
        public void onSessionClosed(Session session, Throwable cause) {}

        @Override
        public void onConsumerClosed(MessageConsumer consumer, Throwable cause) {}

        @Override
        public void onProducerClosed(MessageProducer producer, Throwable cause) {}
    }

    /** A message as it came. */
    record Job(byte[] value, String id, boolean isFirst) {}

    /**
     * One client, with a connection that fails over. A session ends with its first exception: rolled back after a commit that failed, Qpid JMS 2.10
     * releases what the consumer has prefetched, and may hand it out all the same.
     */
    record Client(int lane, int prefetch, int mode, Role role) implements Runnable {
        @Override
        public void run() {
            try {
                while (true) {
                    try (Connection connection = connect()) {
                        connection.start();
                        while (true) {
                            Session session = connection.createSession(mode);
                            try {
                                role.work(this, session);
                            } catch (JMSException error) {
                                trouble(error);
                            }
                            session.close();
                        }
                    } catch (JMSException error) {
                        trouble(error);
                        Thread.sleep(LOOK_EVERY_MS);
                    }
                }
            } catch (Throwable error) {
                error.printStackTrace();
                Runtime.getRuntime().halt(1);
            }
        }

        private Connection connect() throws Exception {
            String options = "?failover.reconnectDelay=20&failover.maxReconnectDelay=250&failover.maxReconnectAttempts=-1&jms.prefetchPolicy.all=";
            Connection connection = new JmsConnectionFactory("failover:(amqp://" + address + ")" + options + prefetch).createConnection();
            ((JmsConnection) connection).addConnectionListener(new Listener());
            return connection;
        }

        private String ask(String request) throws InterruptedException {
            say(lane + " " + request);
            return ANSWERS.get(lane).take();
        }

        private void trouble(JMSException error) throws InterruptedException {
            ask("trouble " + words(error));
        }

        private static String words(JMSException error) {
            return error.toString().replaceAll("\\s+", " ");
        }

        private void produce(Session session) throws Exception {
            MessageProducer producer = session.createProducer(session.createQueue(jobs));
            while (true) {
                ask("go");
                String[] words = ask("send").split(" ");
                BytesMessage message = session.createBytesMessage();
                message.setStringProperty("JMSXGroupID", words[0]);
                message.writeBytes(HexFormat.of().parseHex(words[2]));
                try {
                    producer.send(message);
                } catch (JMSException error) {
                    ask("unsent " + words[1] + " " + words(error));
                    throw new JMSException("it begins anew");
                }
                ask("sent " + words[1]);
                Thread.sleep(PAUSE_MS);
            }
        }

        private void consume(Session session) throws Exception {
            Random random = random();
            MessageConsumer consumer = session.createConsumer(session.createQueue(jobs));
            while (true) {
                List<Job> taken = some(consumer, 1 + random.nextInt(3), null);
                if (taken.isEmpty()) {
                    continue;
                }
                if (isRolledBack(random, taken)) {
                    session.rollback();
                    continue;
                }
                ask("takes " + ids(taken));
                session.commit();
                ask("finished " + ids(taken));
            }
        }

        private void acknowledge(Session session) throws Exception {
            Random random = random();
            MessageConsumer consumer = session.createConsumer(session.createQueue(jobs));
            while (true) {
                Message[] last = new Message[1];
                List<Job> taken = some(consumer, 1 + random.nextInt(3), last);
                if (taken.isEmpty()) {
                    continue;
                }
                ask("takes " + ids(taken));
                // All that the session has received.
                last[0].acknowledge();
                ask("acknowledged " + ids(taken));
            }
        }

        private void move(Session session) throws Exception {
            Random random = random();
            MessageConsumer consumer = session.createConsumer(session.createQueue(jobs));
            MessageProducer producer = session.createProducer(session.createTopic(done));
            while (true) {
                List<Job> moved = some(consumer, 1 + random.nextInt(3), null);
                if (moved.isEmpty()) {
                    continue;
                }
                for (Job job : moved) {
                    BytesMessage message = session.createBytesMessage();
                    message.writeBytes(job.value);
                    producer.send(message);
                }
                if (isRolledBack(random, moved)) {
                    session.rollback();
                } else {
                    session.commit();
                    ask("moved " + ids(moved));
                }
            }
        }

        /** Waits for leave to work, and then for messages; fewer than that many if no more come soon. */
        private List<Job> some(MessageConsumer consumer, int count, Message[] last) throws Exception {
            ask("go");
            List<Job> jobs = new ArrayList<>();
            while (jobs.size() < count) {
                BytesMessage message = (BytesMessage) consumer.receive(LOOK_EVERY_MS);
                if (message == null) {
                    break;
                }
                byte[] value = new byte[(int) message.getBodyLength()];
                message.readBytes(value);
                String id = ask("got " + HexFormat.of().formatHex(value));
                jobs.add(new Job(value, id, message.getIntProperty("JMSXDeliveryCount") == 1));
                if (last != null) {
                    last[0] = message;
                }
            }
            return jobs;
        }

        /** What is delivered again counts: it is not rolled back twice, as it would be given up in the end. */
        private static boolean isRolledBack(Random random, List<Job> jobs) {
            return random.nextInt(ROLLED_BACK) == 0 && jobs.stream().allMatch(Job::isFirst);
        }

        private static String ids(List<Job> jobs) {
            return String.join(" ", jobs.stream().map(Job::id).toList());
        }

        private Random random() {
            return new Random(seed + lane);
        }
    }
}
