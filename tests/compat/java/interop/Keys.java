package org.apache.activemq.broker;

import java.io.File;
import java.io.FileInputStream;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.attribute.PosixFilePermissions;
import java.security.KeyStore;
import java.security.cert.Certificate;
import java.util.Base64;
import java.util.Collections;

/** The key and the certificate of the tests' own key store, as our broker reads them. */
final class Keys {
    private static final String STORE = "src/test/resources/broker-jks.keystore";
    private static final char[] PASSWORD = "password".toCharArray();

    private Keys() {}

    /** A file with both, in a directory. */
    static String file(File directory) throws Exception {
        KeyStore store = KeyStore.getInstance("JKS");
        try (InputStream file = new FileInputStream(STORE)) {
            store.load(file, PASSWORD);
        }
        StringBuilder text = new StringBuilder();
        for (String alias : Collections.list(store.aliases())) {
            if (store.isKeyEntry(alias)) {
                put(text, "PRIVATE KEY", store.getKey(alias, PASSWORD).getEncoded());
                for (Certificate one : store.getCertificateChain(alias)) {
                    put(text, "CERTIFICATE", one.getEncoded());
                }
            }
        }
        File pem = new File(directory, "broker.pem");
        Files.deleteIfExists(pem.toPath());
        // The broker refuses a key that others may read.
        Files.createFile(pem.toPath(), PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rw-------")));
        Files.writeString(pem.toPath(), text.toString());
        return pem.getPath();
    }

    private static void put(StringBuilder text, String what, byte[] bytes) {
        String lines = Base64.getMimeEncoder(64, new byte[] {'\n'}).encodeToString(bytes);
        text.append("-----BEGIN ").append(what).append("-----\n").append(lines).append("\n-----END ").append(what).append("-----\n");
    }
}
