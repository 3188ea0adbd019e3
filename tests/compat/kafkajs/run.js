// kafkajs against a broker. It has gzip of its own; the other codecs are plug-ins, as its users write them.
'use strict';

const assert = require('node:assert');
const fs = require('node:fs');
const { Kafka, CompressionCodecs, CompressionTypes, logLevel } = require('kafkajs');
const SnappyCodec = require('kafkajs-snappy');
const lz4 = require('lz4-napi');
const zstd = require('@bokuweb/zstd-wasm');
const { ask, until } = require('../node/desk.js');

CompressionCodecs[CompressionTypes.Snappy] = SnappyCodec;
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: (encoder) => lz4.compressFrame(encoder.buffer),
  decompress: (buffer) => lz4.decompressFrame(buffer),
});
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async (encoder) => Buffer.from(zstd.compress(encoder.buffer)),
  decompress: async (buffer) => Buffer.from(zstd.decompress(buffer)),
});

const kafka = new Kafka({
  clientId: 'compat',
  brokers: [process.argv[2]],
  logLevel: logLevel.WARN,
  // The client's own log goes to stderr; stdout is the line to the matrix runner.
  logCreator: () => ({ label, log }) => console.error(label, log.message, log.error || ''),
  retry: { initialRetryTime: 100, retries: 20, maxRetryTime: 1000 },
});
const admin = kafka.admin();

const securely = (settings) => new Kafka({
  clientId: 'compat',
  logLevel: logLevel.NOTHING,
  retry: { retries: 2 },
  ...settings,
});

/** Sends, reads back in a group, and asks whom the broker takes the connections for. */
async function roundTrip(topic, user, settings) {
  const client = securely(settings);
  const itsAdmin = client.admin();
  await itsAdmin.connect();
  await itsAdmin.createTopics({ topics: [{ topic, numPartitions: 1 }] });
  const sent = messages(50);
  const producer = client.producer();
  await producer.connect();
  await producer.send({ topic, messages: sent, acks: -1 });
  const consumer = client.consumer({ groupId: topic });
  const got = [];
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  await consumer.run({ eachMessage: async ({ message }) => void got.push(message) });
  await until(() => got.length >= sent.length, 40, '50 records');
  same(got, sent);
  await ask('caller', user);
  await consumer.disconnect();
  await producer.disconnect();
  await itsAdmin.disconnect();
}

async function refused(settings) {
  const itsAdmin = securely({ ...settings, retry: { retries: 0 } }).admin();
  // It logs in with the first request that it sends.
  await assert.rejects(itsAdmin.connect().then(() => itsAdmin.listTopics()));
  await itsAdmin.disconnect();
}

function messages(count) {
  return Array.from({ length: count }, (_, i) => ({
    key: i % 7 === 3 ? null : `device-${i % 5} `.repeat(10),
    value: i % 11 === 5 && i % 7 !== 3 ? null : `reading ${i} `.repeat(9 + (i % 13)),
    headers: i % 3 === 0 ? { unit: 'K', n: String(i) } : {},
    timestamp: String(1_700_000_000_000 + i * 1000),
    partition: 0,
  }));
}

const text = (bytes) => (bytes === null ? null : bytes.toString());
const plain = ({ key, value, headers, timestamp }) => ({
  key: text(key),
  value: text(value),
  headers: Object.fromEntries(Object.entries(headers || {}).map(([k, v]) => [k, text(v)])),
  timestamp,
});
const same = (got, wanted) => assert.deepStrictEqual(got.map(plain), wanted.map(plain));

const createTopic = (topic, numPartitions = 1, configEntries = []) =>
  admin.createTopics({ topics: [{ topic, numPartitions, configEntries }] });

async function send(topic, batch, options = {}, compression = CompressionTypes.None) {
  const producer = kafka.producer(options);
  await producer.connect();
  await producer.send({ topic, messages: batch, compression, acks: -1 });
  await producer.disconnect();
}

class Member {
  constructor(groupId, topic) {
    this.got = [];
    this.owned = [];
    this.topic = topic;
    this.consumer = kafka.consumer({
      groupId, sessionTimeout: 15000, heartbeatInterval: 500, rebalanceTimeout: 10000, maxWaitTimeInMs: 300,
    });
    this.consumer.on(this.consumer.events.GROUP_JOIN, ({ payload }) => {
      this.owned = payload.memberAssignment[topic] || [];
    });
  }
  async start() {
    await this.consumer.connect();
    await this.consumer.subscribe({ topics: [this.topic], fromBeginning: true });
    await this.consumer.run({ eachMessage: async ({ message }) => { this.got.push(message); } });
    return this;
  }
  async seek(offset) {
    this.consumer.seek({ topic: this.topic, partition: 0, offset });
  }
  async end() {
    await this.consumer.disconnect();
  }
}

async function read(topic, count, offset = null) {
  const member = new Member(`read-${topic}-${offset}`, topic);
  await member.start();
  if (offset !== null) await member.seek(offset);
  await until(() => member.got.length >= count, 40, `${count} records of ${topic}`);
  await member.end();
  return member.got;
}

const codec = (name, type) => [`codec ${name}`, async () => {
  const topic = `codec-${name}`;
  await createTopic(topic);
  const sent = messages(300);
  await send(topic, sent, {}, type);
  await ask('codec', topic, 0, name);
  same(await read(topic, sent.length), sent);
}];

const scenarios = [
  ['create', async () => {
    assert(await createTopic('created', 4, [{ name: 'retention.ms', value: '7200000' }]));
    const { topics: [topic] } = await admin.fetchTopicMetadata({ topics: ['created'] });
    assert.strictEqual(topic.partitions.length, 4);
    const { resources } = await admin.describeConfigs({ resources: [{ type: 2, name: 'created', configNames: ['retention.ms'] }] });
    assert.strictEqual(resources[0].configEntries[0].configValue, '7200000');
    assert.strictEqual(await createTopic('created'), false);
  }],
  codec('none', CompressionTypes.None),
  codec('gzip', CompressionTypes.GZIP),
  codec('snappy', CompressionTypes.Snappy),
  codec('lz4', CompressionTypes.LZ4),
  codec('zstd', CompressionTypes.ZSTD),
  ['seek by time', async () => {
    await createTopic('seek');
    const sent = messages(100);
    await send('seek', sent);
    const at = async (timestamp) => (await admin.fetchTopicOffsetsByTimestamp('seek', timestamp))[0].offset;
    assert.strictEqual(await at(Number(sent[0].timestamp) - 1), '0');
    assert.strictEqual(await at(Number(sent[99].timestamp)), '99');
    const found = await at(Number(sent[41].timestamp) + 1);
    assert.strictEqual(found, '42');
    // Past the end kafkajs puts the end offset itself.
    assert.strictEqual(await at(Number(sent[99].timestamp) + 1), '100');
    const got = await read('seek', 58, found);
    same(got.slice(-58), sent.slice(42));
  }],
  ['idempotent', async () => {
    await createTopic('idempotent');
    const sent = messages(500);
    await send('idempotent', sent, { idempotent: true });
    await ask('idempotent', 'idempotent', 0);
    same(await read('idempotent', sent.length), sent);
  }],
  // Refused at once and for good; Apache Kafka begins them.
  ['transactions', async () => {
    const started = Date.now();
    const producer = kafka.producer({ transactionalId: 'none-here', maxInFlightRequests: 1, idempotent: true });
    try {
      await producer.connect();
      await (await producer.transaction()).abort();
    } catch (error) {
      // kafkajs logs the broker's answer and throws an error of its own.
      assert.strictEqual(error.name, 'KafkaJSGroupCoordinatorNotFound', String(error));
      assert(Date.now() - started < 15000, 'it took too long');
    } finally {
      await producer.disconnect();
    }
  }],
  ['group', async () => {
    await createTopic('group', 4);
    const first = new Member('pair', 'group');
    const second = new Member('pair', 'group');
    await Promise.all([first.start(), second.start()]);
    await until(() => first.owned.length === 2 && second.owned.length === 2, 40, 'two members with two partitions each');
    assert.deepStrictEqual([...first.owned, ...second.owned].sort(), [0, 1, 2, 3]);
    const sent = messages(40).map((message, i) => ({ ...message, value: String(i), partition: i % 4 }));
    await send('group', sent);
    await until(() => first.got.length + second.got.length >= 40, 40, '40 records in the group');
    const values = [...first.got, ...second.got].map((message) => text(message.value));
    assert.deepStrictEqual(values.sort(), sent.map((message) => message.value).sort());
    await second.end();
    await until(() => first.owned.length === 4, 40, 'the one that is left takes over');
    await first.end();
    const [{ partitions }] = await admin.fetchOffsets({ groupId: 'pair', topics: ['group'] });
    assert.deepStrictEqual(partitions.map(({ offset }) => offset), ['10', '10', '10', '10']);
  }],
  ['restart', async () => {
    await createTopic('restart');
    const sent = messages(150);
    const producer = kafka.producer();
    await producer.connect();
    const push = (from, to) => producer.send({ topic: 'restart', messages: sent.slice(from, to), acks: -1 });
    const reader = await new Member('lasting', 'restart').start();
    await push(0, 50);
    await until(() => reader.got.length >= 50, 40, 'the first 50 records');
    await ask('restart', 'term');
    await push(50, 100);
    await until(() => reader.got.length >= 100, 40, 'records after a restart');
    await ask('restart', 'kill');
    await push(100, 150);
    await until(() => reader.got.length >= 150, 60, 'records after a kill');
    await reader.end();
    await producer.disconnect();
    const [{ partitions }] = await admin.fetchOffsets({ groupId: 'lasting', topics: ['restart'] });
    assert.strictEqual(partitions[0].offset, '150');
    // A record can come twice around a restart; none may be missing or out of order.
    const seen = new Map(reader.got.map((message) => [message.offset, message]));
    same([...seen.values()].sort((a, b) => Number(a.offset) - Number(b.offset)), sent);
    same(await read('restart', 150), sent);
  }],
  ['SASL_SSL', async () => {
    const [address, , directory] = await ask('secured');
    const ssl = { ca: [fs.readFileSync(`${directory}/ca.pem`)] };
    for (const mechanism of ['plain', 'scram-sha-256', 'scram-sha-512']) {
      // Each its own: kafkajs keeps in the one that it is given how to log in by it.
      const by = (password) => ({ brokers: [address], ssl, sasl: { mechanism, username: 'alice', password } });
      await roundTrip(`secured-${mechanism}`, 'User:alice', by('correct horse battery'));
      await refused(by('wrong'));
    }
  }],
  ['mTLS', async () => {
    const [, address, directory] = await ask('secured');
    const file = (name) => fs.readFileSync(`${directory}/${name}`);
    const ssl = { ca: [file('ca.pem')], cert: file('client.crt'), key: file('client.key') };
    await roundTrip('secured-by-certificate', 'User:CN=press4', { brokers: [address], ssl });
    await refused({ brokers: [address], ssl: { ...ssl, ca: [file('client.crt')] } });
  }],
];

(async () => {
  let failed = 0;
  await zstd.init();
  await admin.connect();
  for (const [name, scenario] of scenarios) {
    try {
      await scenario();
      console.log(`@pass ${name}`);
    } catch (error) {
      failed += 1;
      console.error(error);
      console.log(`@fail ${name}: ${String(error.message).split(/\s+/).join(' ').slice(0, 500)}`);
    }
  }
  await admin.disconnect();
  process.exit(failed === 0 ? 0 : 1);
})();
