// The peer: npm `sqs-consumer` with a handler that does nothing, in its own process.
//   BRIDGE_NODE_MODULES=…/node_modules node sqs_consumer.mjs QUEUE_URL CONSUMERS
import { createRequire } from "node:module";
import path from "node:path";

const require = createRequire(path.join(process.env.BRIDGE_NODE_MODULES, "resolve-from-here.js"));
const { SQSClient } = require("@aws-sdk/client-sqs");
const { Consumer } = require("sqs-consumer");

const [queueUrl, consumers] = process.argv.slice(2);
const sqs = new SQSClient({});

for (let n = 0; n < Number(consumers); n++) {
  const consumer = Consumer.create({
    sqs,
    queueUrl,
    batchSize: 10,
    handleMessageBatch: async (messages) => messages,
  });
  for (const event of ["error", "processing_error"]) {
    consumer.on(event, (error) => {
      console.error(event, error);
      process.exit(1);
    });
  }
  consumer.start();
}
