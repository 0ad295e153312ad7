import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.HttpURLConnection;
import java.net.InetSocketAddress;
import java.net.Proxy;
import java.net.URL;
import java.nio.charset.StandardCharsets;
import java.util.Base64;

/** `java Client.java socks|http PORT`: asks for each URL, one in Base64 on each line of its input. */
class Client {
    public static void main(String[] args) throws Exception {
        var kind = args[0].equals("socks") ? Proxy.Type.SOCKS : Proxy.Type.HTTP;
        var proxy = new Proxy(kind, InetSocketAddress.createUnresolved("127.0.0.1", Integer.parseInt(args[1])));
        var lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line; (line = lines.readLine()) != null; ) {
            var url = new String(Base64.getDecoder().decode(line), StandardCharsets.UTF_8);
            try {
                var connection = (HttpURLConnection) new URL(url).openConnection(proxy);
                connection.setInstanceFollowRedirects(false);
                connection.setConnectTimeout(3000);
                connection.setReadTimeout(3000);
                connection.setRequestProperty("Connection", "close");
                connection.getResponseCode();
                System.out.println("ok");
            } catch (Exception error) {
                System.out.println("error");
            }
        }
    }
}
