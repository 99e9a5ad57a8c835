import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.confluent.parallelconsumer.ParallelConsumerOptions;
import io.confluent.parallelconsumer.vertx.VertxParallelEoSStreamProcessor;
import io.vertx.core.Future;
import io.vertx.core.Promise;
import io.vertx.core.Vertx;
import io.vertx.core.buffer.Buffer;
import io.vertx.ext.web.client.HttpResponse;
import io.vertx.ext.web.client.WebClient;
import io.vertx.ext.web.client.WebClientOptions;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** The job in Parallel Consumer with Vert.x, ordered by key, tuned; arguments as in bench/peers/task.py. */
public final class Job {
    private static final int ATTEMPTS = 5;
    private static final ObjectMapper JSON = new ObjectMapper();

    public static void main(String[] args) {
        int inFlight = Integer.parseInt(args[3]);
        int sessionMs = (int) (Double.parseDouble(args[6]) * 1000);
        var consumer = new KafkaConsumer<byte[], byte[]>(Map.of(
            "bootstrap.servers", args[0], "group.id", args[5], "auto.offset.reset", "earliest",
            "enable.auto.commit", "false", "session.timeout.ms", sessionMs, "heartbeat.interval.ms", sessionMs / 5,
            "max.poll.records", 5000), new ByteArrayDeserializer(), new ByteArrayDeserializer());
        var producer = new KafkaProducer<byte[], byte[]>(Map.of(
            "bootstrap.servers", args[0], "acks", "all", "enable.idempotence", "true", "linger.ms", 5,
            "compression.type", "lz4"), new ByteArraySerializer(), new ByteArraySerializer());
        var vertx = Vertx.vertx();
        var client = WebClient.create(vertx, new WebClientOptions()
            .setMaxPoolSize(inFlight).setKeepAlive(true).setPipelining(false).setMaxWaitQueueSize(-1));
        var options = ParallelConsumerOptions.<byte[], byte[]>builder()
            .ordering(ParallelConsumerOptions.ProcessingOrder.KEY)
            .commitMode(ParallelConsumerOptions.CommitMode.PERIODIC_CONSUMER_ASYNCHRONOUS)
            .commitInterval(Duration.ofSeconds(1))
            .maxConcurrency(inFlight)
            .messageBufferSize(20 * inFlight)
            .consumer(consumer)
            .build();
        var processor = new VertxParallelEoSStreamProcessor<byte[], byte[]>(vertx, client, options);
        processor.subscribe(List.of(args[1]));
        processor.vertxFuture(context -> {
            ConsumerRecord<byte[], byte[]> record = context.getSingleConsumerRecord();
            return call(vertx, client, args[4], record, 1)
                .compose(answer -> send(producer, args[2], record, answer));
        });
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            processor.closeDontDrainFirst();
            producer.close();
            vertx.close();
        }));
    }

    private static Future<HttpResponse<Buffer>> call(
            Vertx vertx, WebClient client, String url, ConsumerRecord<byte[], byte[]> record, int attempt) {
        try {
            JsonNode event = JSON.readTree(record.value());
            byte[] body = JSON.writeValueAsBytes(Map.of(
                "model", "bench", "max_tokens", 512,
                "messages", List.of(Map.of("role", "user", "content", event.get("text").asText()))));
            return client.postAbs(url)
                .putHeader("Content-Type", "application/json")
                .putHeader("X-Client-Request-Id", "e" + event.get("n").asInt())
                .sendBuffer(Buffer.buffer(body))
                .compose(answer -> {
                    if (answer.statusCode() != 503 || attempt >= ATTEMPTS) {
                        return Future.succeededFuture(answer);
                    }
                    Promise<HttpResponse<Buffer>> later = Promise.promise();
                    vertx.setTimer(100L << (attempt - 1), timer ->
                        call(vertx, client, url, record, attempt + 1).onComplete(later));
                    return later.future();
                });
        } catch (java.io.IOException error) {
            return Future.failedFuture(error);
        }
    }

    private static Future<Void> send(KafkaProducer<byte[], byte[]> producer, String topic,
            ConsumerRecord<byte[], byte[]> record, HttpResponse<Buffer> answer) {
        Promise<Void> confirmed = Promise.promise();
        try {
            int number = JSON.readTree(record.value()).get("n").asInt();
            var result = JSON.createObjectNode().put("n", number);
            if (answer.statusCode() == 200) {
                JsonNode content = JSON.readTree(answer.body().getBytes()).at("/choices/0/message/content");
                result.put("output", content.asText()).putNull("error");
            } else {
                result.putNull("output").put("error", answer.statusCode());
            }
            producer.send(new ProducerRecord<>(topic, record.key(), JSON.writeValueAsBytes(result)), (done, error) -> {
                if (error == null) {
                    confirmed.complete();
                } else {
                    confirmed.fail(error);
                }
            });
        } catch (java.io.IOException error) {
            confirmed.fail(error);
        }
        return confirmed.future();
    }
}
