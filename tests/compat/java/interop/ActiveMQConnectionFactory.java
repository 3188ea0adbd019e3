package org.apache.activemq;

import java.io.File;
import java.net.URI;
import java.net.URL;
import java.net.URLClassLoader;
import java.util.ArrayList;
import java.util.List;
import javax.jms.Connection;
import javax.jms.ConnectionFactory;
import javax.jms.JMSContext;
import javax.jms.JMSException;
import org.apache.activemq.broker.BrokerService;

/**
 * Stands where Qpid's JMS tests look for a second client, of the other broker's own protocol: this one is Qpid JMS 1.x, of the older API. It has
 * classes of the same names as the newer one, so that it is loaded apart, from the files of the property {@code javax.jars}.
 */
public class ActiveMQConnectionFactory implements ConnectionFactory {
    private static final ClassLoader CLIENT = client();

    public ActiveMQConnectionFactory(URI broker) {}

    public ActiveMQConnectionFactory(String broker) {}

    private static ClassLoader client() {
        List<URL> jars = new ArrayList<>();
        try {
            for (String jar : System.getProperty("javax.jars").split(File.pathSeparator)) {
                jars.add(new File(jar).toURI().toURL());
            }
        } catch (Exception wrong) {
            throw new IllegalStateException(wrong);
        }
        ClassLoader shared = new ClassLoader(ClassLoader.getPlatformClassLoader()) {
            @Override
            protected Class<?> findClass(String name) throws ClassNotFoundException {
                if (name.startsWith("javax.jms.")) {
                    return ActiveMQConnectionFactory.class.getClassLoader().loadClass(name);
                }
                throw new ClassNotFoundException(name);
            }
        };
        return new URLClassLoader(jars.toArray(new URL[0]), shared);
    }

    private interface Making<T> {
        T of(ConnectionFactory factory) throws JMSException;
    }

    /** Makes something by the client's own factory. It looks for its parts by the thread's class loader. */
    private static <T> T make(Making<T> making) throws JMSException {
        Thread thread = Thread.currentThread();
        ClassLoader before = thread.getContextClassLoader();
        thread.setContextClassLoader(CLIENT);
        try {
            String uri = "amqp://" + BrokerService.newest.amqp();
            Class<?> factory = CLIENT.loadClass("org.apache.qpid.jms.JmsConnectionFactory");
            return making.of((ConnectionFactory) factory.getConstructor(String.class).newInstance(uri));
        } catch (ReflectiveOperationException wrong) {
            throw new IllegalStateException(wrong);
        } finally {
            thread.setContextClassLoader(before);
        }
    }

    @Override
    public Connection createConnection() throws JMSException {
        return make(ConnectionFactory::createConnection);
    }

    @Override
    public Connection createConnection(String user, String password) throws JMSException {
        return make(it -> it.createConnection(user, password));
    }

    @Override
    public JMSContext createContext() {
        throw new UnsupportedOperationException("no test has a context");
    }

    @Override
    public JMSContext createContext(String user, String password) {
        return createContext();
    }

    @Override
    public JMSContext createContext(String user, String password, int mode) {
        return createContext();
    }

    @Override
    public JMSContext createContext(int mode) {
        return createContext();
    }
}
