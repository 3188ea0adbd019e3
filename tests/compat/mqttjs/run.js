// MQTT.js against a broker, and kafkajs for the records that its messages became.
'use strict';

const assert = require('node:assert');
const mqtt = require('mqtt');
const { ask, until, stored, run } = require('../node/desk.js');

const COUNT = 200;
const AT_ONCE = 20;

/** The records of an MQTT topic: values, in order. */
async function valuesOf(topic) {
  const records = await stored('mqtt');
  return records.filter(({ key }) => key.toString() === topic).map(({ value }) => value.toString());
}

const numbers = (from, to) => Array.from({ length: to - from }, (_, index) => String(from + index));

/** A connection, and what it got. */
async function connect(host, name, protocolVersion, kept = false) {
  const client = await mqtt.connectAsync(`mqtt://${host}`, {
    clientId: name,
    protocolVersion,
    clean: !kept,
    reconnectPeriod: 200,
    resubscribe: false,
    ...(protocolVersion === 5 && kept ? { properties: { sessionExpiryInterval: 300 } } : {}),
  });
  client.on('error', () => {});
  client.got = [];
  client.on('message', (topic, payload, { qos, dup }) => client.got.push({ topic, value: payload.toString(), qos, dup }));
  return client;
}

async function publish(client, topic, values, qos) {
  for (let at = 0; at < values.length; at += AT_ONCE) {
    await Promise.all(values.slice(at, at + AT_ONCE).map((value) => client.publishAsync(topic, value, { qos })));
  }
}

const scenarios = [
  ['there and back', async (host) => {
    for (const version of [4, 5]) {
      for (const qos of [0, 1, 2]) {
        const topic = `mqttjs/${version}/${qos}`;
        const reader = await connect(host, 'mqttjs-r', version);
        const writer = await connect(host, 'mqttjs-w', version);
        await reader.subscribeAsync(`mqttjs/${version}/+`, { qos });
        await publish(writer, topic, numbers(0, COUNT), qos);
        await until(() => reader.got.length >= COUNT, 40, topic);
        const wanted = numbers(0, COUNT).map((value) => ({ topic, value, qos, dup: false }));
        assert.deepStrictEqual(reader.got, wanted);
        await reader.endAsync();
        await writer.endAsync();
        assert.deepStrictEqual(await valuesOf(topic), numbers(0, COUNT));
      }
    }
  }],
  ['kill', async (host) => {
    for (const version of [4, 5]) {
      for (const qos of [1, 2]) {
        const topic = `mqttjs/kill/${version}/${qos}`;
        const reader = await connect(host, `mqttjs-kr-${version}-${qos}`, version, true);
        const writer = await connect(host, `mqttjs-kw-${version}-${qos}`, version, true);
        await reader.subscribeAsync(topic, { qos });
        await publish(writer, topic, numbers(0, 100), qos);
        await until(() => reader.got.length >= 100, 40, `${topic} before the kill`);
        // Both come back by themselves.
        const more = publish(writer, topic, numbers(100, 140), qos);
        await ask('restart', 'kill');
        await more;
        await publish(writer, topic, numbers(140, COUNT), qos);
        const last = String(COUNT - 1);
        await until(() => reader.got.some(({ value }) => value === last), 60, `${topic} after the kill`);
        const values = reader.got.map(({ value }) => value);
        const records = await valuesOf(topic);
        if (qos === 2) {
          assert.deepStrictEqual(values, numbers(0, COUNT));
          assert.deepStrictEqual(records, numbers(0, COUNT));
        } else {
          assert.deepStrictEqual([...new Set(values)].sort(), numbers(0, COUNT).sort());
          assert.deepStrictEqual([...new Set(records)].sort(), numbers(0, COUNT).sort());
        }
        await reader.endAsync();
        await writer.endAsync();
      }
    }
  }],
  ['shared', async (host) => {
    for (const version of [4, 5]) {
      for (const qos of [0, 1, 2]) {
        const topic = `mqttjs/shared/${version}/${qos}`;
        const members = [];
        for (const name of ['a', 'b', 'c']) {
          const member = await connect(host, `mqttjs-s-${name}`, version);
          await member.subscribeAsync(`$share/workers/${topic}`, { qos });
          members.push(member);
        }
        const writer = await connect(host, 'mqttjs-w', version);
        await publish(writer, topic, numbers(0, COUNT), qos);
        const count = () => members.reduce((sum, { got }) => sum + got.length, 0);
        await until(() => count() >= COUNT, 40, topic);
        const values = members.flatMap(({ got }) => got.map(({ value }) => Number(value)));
        assert.deepStrictEqual(values.sort((a, b) => a - b).map(String), numbers(0, COUNT));
        assert(members.every(({ got }) => got.length > 0), members.map(({ got }) => got.length).join(' '));
        for (const member of [...members, writer]) await member.endAsync();
      }
    }
  }],
  ['history', async (host) => {
    const writer = await connect(host, 'mqttjs-w', 5);
    await publish(writer, 'mqttjs/history', numbers(0, COUNT), 1);
    for (const version of [4, 5]) {
      const reader = await connect(host, 'mqttjs-r', version);
      await reader.subscribeAsync('$replay/earliest/mqttjs/history', { qos: 1 });
      await until(() => reader.got.length >= COUNT, 40, 'the history');
      assert.deepStrictEqual(reader.got.map(({ value }) => value), numbers(0, COUNT));
      await reader.endAsync();
    }
    await writer.endAsync();
  }],
];

(async () => {
  const [host] = await ask('mqtt');
  await run(scenarios, host);
})();
