import java.nio.file.Path;

import org.elasticsearch.common.logging.LogConfigurator;
import org.elasticsearch.common.settings.Settings;
import org.elasticsearch.env.Environment;
import org.elasticsearch.node.Node;

/**
 * One node of Elasticsearch on loopback, for tests: java … Server HOME DATA PORT [SETTING=VALUE…]. It ends with its
 * standard input, so that it never outlives a killed test.
 */
public final class Server {
    public static void main(String[] args) throws Exception {
        Settings.Builder settings = Settings.builder()
            .put("path.home", args[0])
            .put("path.data", args[1])
            .put("path.logs", args[1] + "/logs")
            .put("node.name", "test")
            .put("cluster.name", "groundplan-test")
            .put("discovery.type", "single-node")
            .put("network.host", "127.0.0.1")
            .put("http.port", args[2])
            .put("transport.port", "0")
            // A machine whose disk is nearly full still tests.
            .put("cluster.routing.allocation.disk.threshold_enabled", "false");
        for (int i = 3; i < args.length; i++) {
            String[] setting = args[i].split("=", 2);
            settings.put(setting[0], setting[1]);
        }
        Settings built = settings.build();
        LogConfigurator.loadLog4jPlugins();
        LogConfigurator.configureESLogging();
        LogConfigurator.setNodeName("test");
        LogConfigurator.configureWithoutConfig(built);
        Node node = new Node(new Environment(built, Path.of(args[0], "config")));
        node.start();
        while (System.in.read() >= 0) {
            // Nothing is said to it.
        }
        Runtime.getRuntime().halt(0);
    }
}
