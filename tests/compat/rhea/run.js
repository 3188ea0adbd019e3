// rhea against the AMQP front, and kafkajs for the records that its messages became.
'use strict';

const assert = require('node:assert');
const rhea = require('rhea');
const { kafka, ask, pause, until, stored, run } = require('../node/desk.js');

const COUNT = 200;
const DATA = 0x75;
const SEQUENCE = 0x76;

const numbers = (from, to) => Array.from({ length: to - from }, (_, index) => `m${from + index}`);

/** A connection, which comes back by itself. */
function connect(address) {
  const [host, port] = address.split(':');
  const container = rhea.create_container();
  container.on('error', () => {});
  const connection = container.connect({ host, port, initial_reconnect_delay: 100, max_reconnect_delay: 500 });
  connection.on('disconnected', () => {});
  return connection;
}

async function connected(address, work) {
  const connection = connect(address);
  try {
    await work(connection);
  } finally {
    connection.close();
  }
}

/** Sends messages until each is accepted; what a lost connection leaves open is sent again. */
async function send(connection, target, messages) {
  const sender = connection.open_sender({ target });
  const open = new Map(messages.map((message, index) => [index, message]));
  const sent = new Map();
  let trouble = null;
  const pump = () => {
    for (const [index, message] of open) {
      if (!sender.sendable()) break;
      if (![...sent.values()].includes(index)) sent.set(sender.send(message), index);
    }
  };
  sender.on('sendable', pump);
  sender.on('accepted', ({ delivery }) => {
    open.delete(sent.get(delivery));
    sent.delete(delivery);
  });
  for (const word of ['rejected', 'released', 'modified', 'sender_error']) {
    sender.on(word, () => { trouble = word; });
  }
  const lost = () => sent.clear();
  connection.on('disconnected', lost);
  await until(() => trouble !== null || open.size === 0, 60, `all accepted of ${messages.length}`);
  connection.removeListener('disconnected', lost);
  assert.strictEqual(trouble, null);
  sender.close();
}

/** A receiver, and what it got. */
function receive(connection, source, credit) {
  const receiver = connection.open_receiver({ source, credit_window: credit, autoaccept: false });
  receiver.got = [];
  receiver.on('message', ({ message, delivery }) => {
    receiver.got.push(message);
    delivery.accept();
  });
  receiver.on('receiver_error', () => { receiver.trouble = receiver.error; });
  return receiver;
}

const first = () => ({
  address: null,
  filter: { place: rhea.types.wrap_described('first', 'rabbitmq:stream-offset-spec') },
});

const MESSAGES = [
  { body: 'text äöü' },
  { body: rhea.types.wrap_binary(Buffer.from([0, 1, 255])) },
  { body: rhea.types.wrap_int(-7) },
  { body: rhea.types.wrap_ulong(1 << 20) },
  { body: true },
  { body: rhea.types.wrap_double(6.5) },
  { body: rhea.types.wrap_list(['a', rhea.types.wrap_int(1), null]) },
  { body: rhea.types.wrap_map({ k: 'v' }) },
  { body: null },
  { body: rhea.message.data_section(Buffer.from('data')) },
  { body: rhea.message.data_sections([Buffer.from('one'), Buffer.from('two')]) },
  { body: rhea.message.sequence_section(['x', 'y']) },
  { body: rhea.message.data_section(Buffer.alloc(700_000, 9)) },
];

/** A body without what says how its numbers are encoded. */
function plain(body) {
  if (Buffer.isBuffer(body)) return { binary: body.toString('hex').slice(0, 64), length: body.length };
  if (body && body.typecode === DATA) return { data: [].concat(body.content).map((it) => plain(Buffer.from(it))) };
  if (body && body.typecode === SEQUENCE) return { sequence: body.content };
  return body;
}

const PLAIN = [
  'text äöü',
  { binary: '0001ff', length: 3 },
  -7,
  1 << 20,
  true,
  6.5,
  ['a', 1, null],
  { k: 'v' },
  null,
  { data: [{ binary: Buffer.from('data').toString('hex'), length: 4 }] },
  { data: ['one', 'two'].map((text) => ({ binary: Buffer.from(text).toString('hex'), length: 3 })) },
  { sequence: ['x', 'y'] },
  { data: [{ binary: '09'.repeat(32), length: 700_000 }] },
];

const scenarios = [
  ['bodies', async (address) => {
    for (const [name, source] of [['rhea-queue', {}], ['rhea-log', first()]]) {
      await connected(address, async (connection) => {
        await send(connection, name, MESSAGES);
        const receiver = receive(connection, { ...source, address: name }, 1000);
        await until(() => receiver.got.length >= PLAIN.length, 40, name);
        const bodies = receiver.got.map(({ body }) => plain(body));
        assert.deepStrictEqual(JSON.parse(JSON.stringify(bodies)), JSON.parse(JSON.stringify(PLAIN)));
      });
    }
  }],
  ['credit', async (address) => {
    await connected(address, async (connection) => {
      await send(connection, 'rhea-credit', numbers(0, COUNT).map((body) => ({ body })));
      // No more than is asked for, and a drain of an empty queue is answered.
      const one = receive(connection, 'rhea-credit', 0);
      for (let count = 1; count <= 3; count++) {
        one.add_credit(1);
        await until(() => one.got.length === count, 40, 'one more');
        await pause(100);
        assert.strictEqual(one.got.length, count);
      }
      one.close();
      const many = receive(connection, 'rhea-credit', 1000);
      await until(() => many.got.length === COUNT - 3, 40, 'all the others');
      many.close();
      const values = [...one.got, ...many.got].map(({ body }) => body);
      assert.deepStrictEqual(values, numbers(0, COUNT));
      const drained = receive(connection, 'rhea-credit', 0);
      let isDrained = false;
      drained.on('receiver_drained', () => { isDrained = true; });
      drained.drain_credit();
      drained.add_credit(10);
      await until(() => isDrained, 40, 'the drain');
      assert.strictEqual(drained.got.length, 0);
    });
  }],
  ['outcomes', async (address) => {
    await connected(address, async (connection) => {
      await send(connection, 'rhea-outcomes', numbers(0, 3).map((body) => ({ body })));
      const seen = [];
      // One at a time: what is said of several at once rhea sends as what was said of the first.
      const receiver = connection.open_receiver({ source: 'rhea-outcomes', credit_window: 1, autoaccept: false });
      receiver.on('message', ({ message, delivery }) => {
        const before = message.delivery_count || 0;
        seen.push(`${message.body} ${before}`);
        if (message.body === 'm0' && before === 0) delivery.modified({ delivery_failed: true });
        else if (message.body === 'm1' && seen.filter((it) => it.startsWith('m1')).length === 1) delivery.release();
        else if (message.body === 'm2') delivery.reject();
        else delivery.accept();
      });
      await until(() => seen.length === 5, 40, 'each again that is to come again');
      await pause(300);
      assert.deepStrictEqual(seen.sort(), ['m0 0', 'm0 1', 'm1 0', 'm1 0', 'm2 0']);
    });
  }],
  ['kafka', async (address) => {
    await connected(address, async (connection) => {
      const message = (value) => ({
        body: value,
        subject: 'reading',
        application_properties: { unit: 'K' },
        message_annotations: { 'x-opt-partition-key': 'key' },
      });
      await send(connection, 'rhea-kafka', numbers(0, COUNT).map(message));
      const records = await stored('rhea-kafka');
      assert.deepStrictEqual(records.map(({ value }) => value.toString()), numbers(0, COUNT));
      assert(records.every(({ key, headers }) => key.toString() === 'key' && headers.unit.toString() === 'K'));
      // And back: a Kafka producer's record.
      const producer = kafka.producer();
      await producer.connect();
      await producer.send({ topic: 'rhea-kafka', messages: [{ value: 'from kafka', headers: { unit: 'C' } }] });
      await producer.disconnect();
      const receiver = receive(connection, 'rhea-kafka', 1000);
      await until(() => receiver.got.length > COUNT, 40, 'the record of a Kafka producer');
      const { body, application_properties: properties } = receiver.got[COUNT];
      assert.strictEqual(Buffer.from(body.content).toString(), 'from kafka');
      assert.strictEqual(properties.unit, 'C');
      assert.strictEqual(receiver.got[0].subject, 'reading');
    });
  }],
  ['kill', async (address) => {
    const [reading, writing] = [connect(address), connect(address)];
    await send(writing, 'rhea-kill', numbers(0, 100).map((body) => ({ body })));
    const receiver = receive(reading, 'rhea-kill', 10);
    await until(() => receiver.got.length >= 100, 40, 'all before the kill');
    // Both come back by themselves.
    const more = send(writing, 'rhea-kill', numbers(100, 140).map((body) => ({ body })));
    await ask('restart', 'kill');
    await more;
    await send(writing, 'rhea-kill', numbers(140, COUNT).map((body) => ({ body })));
    const last = `m${COUNT - 1}`;
    await until(() => receiver.got.some(({ body }) => body === last), 60, 'the last after the kill');
    await pause(300);
    const values = new Set(receiver.got.map(({ body }) => body));
    assert.deepStrictEqual([...values].sort(), numbers(0, COUNT).sort());
    const records = new Set((await stored('rhea-kill')).map(({ value }) => value.toString()));
    assert.deepStrictEqual([...records].sort(), numbers(0, COUNT).sort());
    reading.close();
    writing.close();
  }],
];

(async () => {
  const [address] = await ask('amqp');
  await run(scenarios, address);
})();
