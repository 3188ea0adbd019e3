// Azure's client of Event Hubs for JavaScript against the AMQP front, and kafkajs for the records that its events became.
'use strict';

const assert = require('node:assert');
const { EventHubConsumerClient, EventHubProducerClient, EventHubBufferedProducerClient, earliestEventPosition, latestEventPosition } = require('@azure/event-hubs');
const { kafka, ask, pause, until, stored, run } = require('../node/desk.js');

const COUNT = 300;
const MANY = 10_000;
const PARTITIONS = 3;
// A broker is away for a moment.
const RETRIES = { retryOptions: { maxRetries: 60, retryDelayInMs: 200, maxRetryDelayInMs: 1000 } };

async function make(topic) {
  const admin = kafka.admin();
  await admin.connect();
  await admin.createTopics({ topics: [{ topic, numPartitions: PARTITIONS }] });
  await admin.disconnect();
}

const numbers = (from, to) => Array.from({ length: to - from }, (_, index) => `m${from + index}`);
const isNow = (when) => Math.abs(Date.now() - when.getTime()) < 600_000;
// Bodies are bytes: a text would be sent as JSON.
const event = (body) => ({ body: Buffer.from(body) });
const text = ({ body }) => Buffer.from(body).toString();

async function producing(connection, topic, work) {
  const client = new EventHubProducerClient(connection, topic, RETRIES);
  try {
    await work(client);
  } finally {
    await client.close();
  }
}

/** Sends events in as few batches as they go into. */
async function send(client, events, where = {}) {
  let batch = await client.createBatch(where);
  for (const one of events) {
    if (!batch.tryAdd(one)) {
      await client.sendBatch(batch);
      batch = await client.createBatch(where);
      assert(batch.tryAdd(one), 'it goes into a batch');
    }
  }
  await client.sendBatch(batch);
}

/** A subscription to a partition, or to all of them. */
class Reader {
  constructor(connection, topic, { group = '$Default', partition, ...how } = {}) {
    this.client = new EventHubConsumerClient(group, connection, topic, { ...RETRIES, loadBalancingOptions: { strategy: 'greedy', updateIntervalInMs: 500 } });
    this.events = [];
    this.errors = [];
    const handlers = {
      processEvents: async (events, context) => {
        for (const one of events) this.events.push({ ...one, partition: context.partitionId });
      },
      processError: async (error) => {
        this.errors.push(error);
      },
    };
    const options = { maxWaitTimeInSeconds: 1, maxBatchSize: 100, skipParsingBodyAsJson: true, ...how };
    this.subscription = partition === undefined ? this.client.subscribe(handlers, options) : this.client.subscribe(partition, handlers, options);
  }

  get bodies() {
    return this.events.map(text);
  }

  async close() {
    await this.subscription.close();
    await this.client.close();
  }
}

/** What a reader gets first. */
async function read(connection, topic, count, how) {
  const reader = new Reader(connection, topic, how);
  try {
    await until(() => reader.events.length >= count, 60, () => `${reader.events.length} of ${count} events of ${topic}: ${reader.errors}`);
    return reader.events.slice();
  } finally {
    await reader.close();
  }
}

const FROM_START = { startPosition: earliestEventPosition };

const scenarios = [
  ['properties', async (connection) => {
    await make('js-properties');
    await producing(connection, 'js-properties', async (client) => {
      const hub = await client.getEventHubProperties();
      assert.strictEqual(hub.name, 'js-properties');
      assert.deepStrictEqual(hub.partitionIds, ['0', '1', '2']);
      assert.strictEqual(hub.isGeoDrEnabled, false);
      await send(client, numbers(0, 5).map(event), { partitionId: '1' });
      const found = await client.getPartitionProperties('1');
      assert.deepStrictEqual([found.beginningSequenceNumber, found.lastEnqueuedSequenceNumber, found.lastEnqueuedOffset, found.isEmpty], [0, 4, '4', false]);
      assert(isNow(found.lastEnqueuedOnUtc), String(found.lastEnqueuedOnUtc));
      assert((await client.getPartitionProperties('2')).isEmpty, 'nothing was sent there');
    });
    const once = new EventHubProducerClient(connection, 'js-properties', { retryOptions: { maxRetries: 0 } });
    await assert.rejects(once.getPartitionProperties('9'), 'there is no such partition');
    await once.close();
  }],
  ['there and back', async (connection) => {
    await make('js-back');
    const rich = { ...event('rich'), properties: { unit: 'K', count: 7, good: true }, contentType: 'text/plain', correlationId: 'c-1', messageId: 'm-1' };
    const long = Buffer.alloc(300_000, Buffer.from([0, 1, 255]));
    await producing(connection, 'js-back', async (client) => {
      await send(client, [rich], { partitionId: '0' });
      await send(client, [{ body: long }], { partitionId: '0' });
      await send(client, numbers(0, COUNT).map(event), { partitionId: '0' });
      // One value that is JSON, and one that is not.
      await client.sendBatch([{ body: { a: [1, 'b'] } }, { body: 'text' }], { partitionId: '2' });
    });
    const events = await read(connection, 'js-back', COUNT + 2, { partition: '0', ...FROM_START });
    const [first, second] = events;
    assert.strictEqual(text(first), 'rich');
    assert.deepStrictEqual({ ...first.properties }, rich.properties);
    assert.deepStrictEqual([first.contentType, first.correlationId, first.messageId], ['text/plain', 'c-1', 'm-1']);
    assert(Buffer.from(second.body).equals(long), 'a long one');
    assert.deepStrictEqual(events.slice(2).map(text), numbers(0, COUNT));
    events.forEach((one, at) => {
      assert.deepStrictEqual([one.partition, one.sequenceNumber, one.offset], ['0', at, String(at)]);
      assert(isNow(one.enqueuedTimeUtc), String(one.enqueuedTimeUtc));
    });
    const parsed = await read(connection, 'js-back', 2, { partition: '2', ...FROM_START, skipParsingBodyAsJson: false });
    assert.deepStrictEqual(parsed.map(({ body }) => body), [{ a: [1, 'b'] }, 'text']);
    await producing(connection, 'js-back', (client) => send(client, numbers(0, MANY).map(event), { partitionId: '1' }));
    const all = await read(connection, 'js-back', MANY, { partition: '1', ...FROM_START });
    assert.deepStrictEqual(all.map(text), numbers(0, MANY));
  }],
  ['positions', async (connection) => {
    await make('js-positions');
    await producing(connection, 'js-positions', async (client) => {
      const read20 = (count, startPosition) => read(connection, 'js-positions', count, { partition: '0', startPosition });
      await send(client, numbers(0, 10).map(event), { partitionId: '0' });
      const earlier = await read20(10, earliestEventPosition);
      // Times have milliseconds: what is sent now is later than what was.
      await pause(50);
      await send(client, numbers(10, 20).map(event), { partitionId: '0' });
      const later = (await read20(20, earliestEventPosition))[10].enqueuedTimeUtc;
      for (const [first, position] of [
        [5, { offset: '4' }],
        [4, { offset: '4', isInclusive: true }],
        [12, { sequenceNumber: 11 }],
        [11, { sequenceNumber: 11, isInclusive: true }],
        [10, { enqueuedOn: new Date(later.getTime() - 1) }],
        [10, { enqueuedOn: earlier[9].enqueuedTimeUtc }],
      ]) {
        assert.deepStrictEqual((await read20(20 - first, position)).map(text), numbers(first, 20), JSON.stringify(position));
      }
      const reader = new Reader(connection, 'js-positions', { partition: '0', startPosition: latestEventPosition });
      // When it is attached nobody is told: what comes later does.
      await until(async () => {
        if (reader.events.length === 0) await send(client, [event('new')], { partitionId: '0' });
        await pause(200);
        return reader.events.length > 0;
      }, 60, () => `a new one: ${reader.errors}`);
      await reader.close();
      assert.deepStrictEqual(new Set(reader.bodies), new Set(['new']));
    });
  }],
  ['partition keys', async (connection) => {
    await make('js-keys');
    const keys = Array.from({ length: 10 }, (_, number) => `device ${number}`);
    await producing(connection, 'js-keys', async (client) => {
      for (let number = 0; number < 20; number += 1) {
        for (const key of keys) await send(client, [event(`${key}: ${number}`)], { partitionKey: key });
      }
    });
    const places = new Map(keys.map((key) => [key, []]));
    for (const one of await read(connection, 'js-keys', 200, FROM_START)) places.get(String(one.partitionKey)).push(one);
    for (const [key, found] of places) {
      assert.strictEqual(new Set(found.map(({ partition }) => partition)).size, 1, `${key} is in one partition`);
      assert.deepStrictEqual(found.map(text), Array.from({ length: 20 }, (_, number) => `${key}: ${number}`));
    }
    assert(new Set([...places.values()].map(([{ partition }]) => partition)).size > 1, 'keys are spread over partitions');
    for (const { key, partition } of await stored('js-keys')) {
      assert.strictEqual(String(partition), places.get(key.toString())[0].partition);
    }
  }],
  ['owner level', async (connection) => {
    await make('js-owner');
    await producing(connection, 'js-owner', async (client) => {
      const reader = (how) => new Reader(connection, 'js-owner', { partition: '0', ...FROM_START, ...how });
      const reads = (one, ...wanted) => until(() => JSON.stringify(one.bodies) === JSON.stringify(wanted), 60, () => `${wanted}: ${one.bodies} ${one.errors}`);
      await send(client, [event('first')], { partitionId: '0' });
      const low = reader({ ownerLevel: 1 });
      await reads(low, 'first');
      const other = reader({ group: 'other' });
      const high = reader({ ownerLevel: 2 });
      await reads(high, 'first');
      await until(() => low.errors.length > 0, 60, 'the old owner is told');
      assert.strictEqual(low.errors[0].code, 'ReceiverDisconnectedError', String(low.errors[0]));
      await low.close();
      const none = reader({});
      await until(() => none.errors.length > 0, 60, 'who has no level is told');
      await send(client, [event('second')], { partitionId: '0' });
      await reads(high, 'first', 'second');
      await reads(other, 'first', 'second');
      assert.deepStrictEqual([low.bodies, none.bodies], [['first'], []]);
      for (const one of [none, other, high]) await one.close();
      assert.deepStrictEqual([high.errors, other.errors], [[], []]);
    });
  }],
  ['kafka', async (connection) => {
    await make('js-kafka');
    await producing(connection, 'js-kafka', (client) => send(
      client,
      numbers(0, COUNT).map((body) => ({ ...event(body), properties: { unit: 'K' } })),
      { partitionKey: 'key' },
    ));
    const records = await stored('js-kafka');
    assert.deepStrictEqual(records.map(({ value }) => value.toString()), numbers(0, COUNT));
    for (const { key, headers } of records) {
      assert.deepStrictEqual([key.toString(), headers.unit.toString()], ['key', 'K']);
    }
    const producer = kafka.producer();
    await producer.connect();
    await producer.send({ topic: 'js-kafka', messages: [{ value: 'from kafka', headers: { unit: 'C' } }] });
    await producer.disconnect();
    const events = await read(connection, 'js-kafka', COUNT + 1, FROM_START);
    const [found] = events.filter((one) => text(one) === 'from kafka');
    assert.strictEqual(String(found.properties.unit), 'C');
  }],
  ['buffered', async (connection) => {
    await make('js-buffered');
    const errors = [];
    const client = new EventHubBufferedProducerClient(connection, 'js-buffered', {
      ...RETRIES,
      maxWaitTimeInMs: 200,
      onSendEventsErrorHandler: async ({ error }) => errors.push(error),
    });
    for (const body of numbers(0, COUNT)) await client.enqueueEvent(event(body));
    await client.flush();
    await client.close();
    assert.deepStrictEqual(errors, []);
    const records = await stored('js-buffered');
    assert.deepStrictEqual(records.map(({ value }) => value.toString()).sort(), numbers(0, COUNT).sort());
  }],
  ['kill', async (connection) => {
    await make('js-kill');
    const reader = new Reader(connection, 'js-kill', FROM_START);
    await producing(connection, 'js-kill', async (client) => {
      for (let number = 0; number < COUNT; number += 1) {
        if (number === COUNT / 3 || number === (2 * COUNT) / 3) await ask('restart', 'kill');
        await send(client, [event(`m${number}`)], { partitionId: String(number % PARTITIONS) });
      }
    });
    await until(() => new Set(reader.bodies).size === COUNT, 90, () => `all come, over two kills: ${new Set(reader.bodies).size} ${reader.errors}`);
    await reader.close();
    const records = new Set((await stored('js-kill')).map(({ value }) => value.toString()));
    assert.deepStrictEqual([...records].sort(), numbers(0, COUNT).sort());
  }],
];

(async () => {
  const [address] = await ask('amqp');
  // What Azure's emulator is reached by: nothing is encrypted. It stays the same over restarts.
  const connection = `Endpoint=sb://${address};SharedAccessKeyName=any;SharedAccessKey=any;UseDevelopmentEmulator=true`;
  await run(scenarios, connection);
})();
