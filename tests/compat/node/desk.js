// What the matrix's programs for Node share: the runner's answers, Kafka's records beside a client's messages, and the scenarios' turns.
'use strict';

const assert = require('node:assert');
const readline = require('node:readline');
const { Kafka, logLevel } = require('kafkajs');

const kafka = new Kafka({
  clientId: 'compat',
  brokers: [process.argv[2]],
  logLevel: logLevel.NOTHING,
  retry: { initialRetryTime: 100, retries: 20, maxRetryTime: 1000 },
});

const replies = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();

/** Asks the runner for something; gives the words of its answer. */
async function ask(...words) {
  console.log('@' + words.join(' '));
  const { value } = await replies.next();
  assert(value === 'ok' || value.startsWith('ok '), `${words.join(' ')}: ${value}`);
  return value.slice(3).split(' ');
}

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** Waits for a condition. What is waited for may be a function, which is asked when the time is over. */
async function until(condition, seconds, what) {
  const deadline = Date.now() + seconds * 1000;
  while (!(await condition())) {
    assert(Date.now() < deadline, `not within ${seconds} s: ${typeof what === 'function' ? what() : what}`);
    await pause(20);
  }
}

/** What a topic has, each record with its partition. */
async function stored(topic) {
  const admin = kafka.admin();
  await admin.connect();
  const ends = new Map();
  for (const { partition, low, high } of await admin.fetchTopicOffsets(topic)) {
    if (high !== low) ends.set(partition, BigInt(high));
  }
  await admin.disconnect();
  const consumer = kafka.consumer({ groupId: `reader-${topic}-${Date.now()}`, maxWaitTimeInMs: 100 });
  const records = [];
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  await consumer.run({
    eachMessage: async ({ partition, message }) => {
      records.push({ partition, ...message });
      if (BigInt(message.offset) + 1n >= ends.get(partition)) ends.delete(partition);
    },
  });
  await until(() => ends.size === 0, 40, `records of ${topic}`);
  await consumer.disconnect();
  return records;
}

/** Runs the scenarios one after the other, each with the same argument, tells the runner how each went, and ends the process. */
async function run(scenarios, argument) {
  let failed = 0;
  for (const [name, scenario] of scenarios) {
    const started = Date.now();
    try {
      await scenario(argument);
      console.log(`@pass ${name}`);
    } catch (error) {
      failed += 1;
      console.error(error);
      console.log(`@fail ${name}: ${String(error.message).split(/\s+/).join(' ').slice(0, 500)}`);
    }
    console.log(`${name}: ${(Date.now() - started) / 1000} s`);
  }
  process.exit(failed === 0 ? 0 : 1);
}

module.exports = { kafka, ask, pause, until, stored, run };
