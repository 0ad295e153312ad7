import java.net.URI;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.io.ByteArrayInputStream;
import java.security.MessageDigest;
import java.time.Duration;
import java.util.Arrays;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.concurrent.CompletableFuture;

/** Client.java BASE [--host NAME] [--other URL] [--http 1|2]: checks with java.net.http. Trust and proxies come from the environment alone. */
public class Client {
    static final int SIZE = 4 << 20;
    static String base, host, other;
    static HttpClient client;
    static HttpClient.Version expected;
    static boolean failed;

    interface Act { void run() throws Exception; }

    static void that(String name, Act act) {
        try {
            act.run();
            System.out.println("ok " + name);
        } catch (Exception error) {
            failed = true;
            String said = error.toString().replace("\n", "; ");
            System.out.println("FAIL " + name + ": " + said.substring(0, Math.min(300, said.length())));
        }
    }

    static void equal(String what, Object got, Object want) {
        if (!want.equals(got)) throw new IllegalStateException(what + " is " + got + ", not " + want);
    }

    static HttpRequest.Builder to(String path) {
        return HttpRequest.newBuilder(URI.create(base + path)).timeout(Duration.ofSeconds(30));
    }

    static HttpResponse<String> ask(HttpRequest.Builder request) throws Exception {
        HttpResponse<String> answer = client.send(request.build(), BodyHandlers.ofString());
        equal("version", answer.version(), expected);
        return answer;
    }

    static String echoed(HttpRequest.Builder request) throws Exception {
        HttpResponse<String> answer = ask(request);
        equal("status", answer.statusCode(), 200);
        return answer.body();
    }

    /** There is no JSON in the JDK; the server writes it in one form. */
    static void says(String body, String name, String value) {
        if (!body.contains("\"" + name + "\":\"" + value + "\"")) throw new IllegalStateException(name + " is not " + value + ": " + body);
    }

    static byte[] pattern() {
        byte[] all = new byte[SIZE];
        for (int i = 0; i < SIZE; i++) all[i] = (byte) (i % 251);
        return all;
    }

    static void uploaded(HttpRequest.BodyPublisher body) throws Exception {
        String got = echoed(to("/upload").POST(body));
        says(got, "sha256", HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(pattern())));
    }

    public static void main(String[] args) {
        base = args[0].replaceAll("/$", "");
        host = URI.create(base).getRawAuthority();
        int http = 1;
        for (int i = 1; i + 1 < args.length; i += 2) {
            switch (args[i]) {
                case "--host" -> host = args[i + 1];
                case "--other" -> other = args[i + 1];
                case "--http" -> http = Integer.parseInt(args[i + 1]);
                default -> throw new IllegalArgumentException(args[i]);
            }
        }
        // Version 2 is what a client has that nobody configured. In plain text it asks for an upgrade (h2c), which a server may pass over.
        HttpClient.Builder builder = HttpClient.newBuilder().followRedirects(HttpClient.Redirect.ALWAYS).connectTimeout(Duration.ofSeconds(20));
        client = (http == 1 ? builder.version(HttpClient.Version.HTTP_1_1) : builder).build();
        expected = http == 2 && base.startsWith("https:") ? HttpClient.Version.HTTP_2 : HttpClient.Version.HTTP_1_1;

        that("get", () -> {
            String got = echoed(to("/echo/a%20b/c?x=1&y=%C3%A9").header("X-Remit-Test", "one, two; three=four").header("Cookie", "a=1; b=2"));
            says(got, "path", "/echo/a%20b/c?x=1&y=%C3%A9");
            says(got, "host", host);
            says(got, "method", "GET");
            says(got, "proto", expected == HttpClient.Version.HTTP_2 ? "HTTP/2.0" : "HTTP/1.1");
            says(got, "x-remit-test", "one, two; three=four");
            says(got, "cookie", "a=1; b=2");
        });
        that("head", () -> {
            HttpResponse<String> answer = ask(to("/echo/head").method("HEAD", BodyPublishers.noBody()));
            equal("status", answer.statusCode(), 200);
            equal("method", answer.headers().firstValue("x-method").orElse(""), "HEAD");
            equal("cookies", answer.headers().allValues("set-cookie").size(), 2);
        });
        that("post", () -> {
            String got = echoed(to("/echo/post").header("Content-Type", "application/json").POST(BodyPublishers.ofString("hällo")));
            says(got, "body", "hällo");
            says(got, "content-type", "application/json");
        });
        that("methods", () -> {
            for (String method : List.of("PUT", "PATCH", "DELETE", "OPTIONS")) {
                says(echoed(to("/echo/methods").method(method, BodyPublishers.noBody())), "method", method);
            }
        });
        that("download", () -> {
            byte[] got = client.send(to("/bytes/" + SIZE).build(), BodyHandlers.ofByteArray()).body();
            equal("content is the same", Arrays.equals(got, pattern()), true);
        });
        that("upload", () -> uploaded(BodyPublishers.ofByteArray(pattern())));
        that("upload-stream", () -> uploaded(BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(pattern()))));
        that("chunked", () -> equal("lines", (int) ask(to("/chunked?n=16")).body().lines().count(), 16));
        that("events", () -> {
            List<Long> at = new ArrayList<>();
            client.send(to("/events?n=4&every=200").build(), BodyHandlers.ofLines()).body().forEach(line -> {
                if (line.startsWith("data: ")) at.add(System.nanoTime());
            });
            equal("events", at.size(), 4);
            equal("events come one by one", at.get(3) - at.get(0) > 400_000_000L, true);
        });
        that("redirect", () -> says(echoed(to("/redirect?to=/echo/there")), "path", "/echo/there"));
        if (other != null) {
            that("redirect-away", () -> {
                String to = "/redirect?to=" + URLEncoder.encode(other, StandardCharsets.UTF_8);
                says(client.send(to(to).build(), BodyHandlers.ofString()).body(), "host", URI.create(other).getRawAuthority());
            });
        }
        that("parallel", () -> {
            List<CompletableFuture<HttpResponse<String>>> all = new ArrayList<>();
            for (int i = 0; i < 20; i++) all.add(client.sendAsync(to("/echo/parallel/" + i).build(), BodyHandlers.ofString()));
            for (int i = 0; i < 20; i++) says(all.get(i).get().body(), "path", "/echo/parallel/" + i);
        });
        that("denied", () -> {
            HttpResponse<String> answer = ask(to("/undeclared"));
            equal("status", answer.statusCode(), 403);
            equal("type", answer.headers().firstValue("content-type").orElse(""), "application/problem+json");
            equal("reason is there", answer.body().contains("\"path_not_declared\""), true);
        });
        that("after-denied", () -> echoed(to("/echo/after")));
        System.exit(failed ? 1 : 0);
    }
}
