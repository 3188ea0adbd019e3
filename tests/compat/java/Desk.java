import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.util.function.BooleanSupplier;

/** The line to the matrix runner (proof/src/compat/session.rs), and how a scenario is reported. */
final class Desk {
    /** The real stdout and stdin, also while a tool's own are swapped. */
    private static final PrintStream OUT = System.out;
    private static final BufferedReader IN = new BufferedReader(new InputStreamReader(System.in));
    private static int failed;

    private Desk() {}

    interface Scenario {
        void run() throws Exception;
    }

    /** Runs one scenario and reports it. */
    static void scenario(String name, Scenario scenario) {
        long started = System.nanoTime();
        try {
            scenario.run();
            OUT.println("@pass " + name);
        } catch (Throwable error) {
            failed++;
            error.printStackTrace();
            OUT.println("@fail " + name + ": " + String.valueOf(error).replaceAll("\\s+", " "));
        }
        OUT.printf("%s: %.1f s%n", name, (System.nanoTime() - started) / 1e9);
        OUT.flush();
    }

    /** Ends the program: with 0 if every scenario passed. */
    static void end() {
        OUT.flush();
        Runtime.getRuntime().halt(failed == 0 ? 0 : 1);
    }

    /** Asks the runner and returns what follows its ok; anything else fails the scenario. */
    static String ask(String request) throws Exception {
        OUT.println("@" + request);
        OUT.flush();
        String reply = IN.readLine();
        check(reply != null && (reply.equals("ok") || reply.startsWith("ok ")), request + ": " + reply);
        return reply.substring(2).trim();
    }

    static void check(boolean holds, String why) {
        if (!holds) {
            throw new AssertionError(why);
        }
    }

    static void until(BooleanSupplier condition, int seconds, String what) throws Exception {
        long deadline = System.nanoTime() + seconds * 1_000_000_000L;
        while (!condition.getAsBoolean()) {
            check(System.nanoTime() < deadline, "not within " + seconds + " s: " + what);
            Thread.sleep(20);
        }
    }
}
