// What an ordinary client of mqtt.js does, against a broker whose rules deny denied/#. Ends with 0 when all of it works.
//
// mqttjs_client.mjs FOLDER-OF-node_modules mqtt|mqtts|ws|wss PORT [CA]

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'

const [folder, carrier, port, ca] = process.argv.slice(2)
const mqtt = createRequire(`${folder}/`)('mqtt')
const url = `${carrier}://127.0.0.1:${port}${carrier.startsWith('ws') ? '/mqtt' : ''}`
// The certificate names the broker's identity, not its host.
const tls = ca ? { ca: readFileSync(ca), checkServerIdentity: () => undefined } : {}
setTimeout(() => { console.error('it takes too long'); process.exit(1) }, 60_000).unref()

async function client (clientId, more = {}) {
  const client = mqtt.connect(url, { clientId, protocolVersion: 4, reconnectPeriod: 0, ...tls, wsOptions: tls, ...more })
  const [waiting, come] = [[], []]
  client.on('message', (topic, payload, packet) => {
    const message = { topic, payload, retain: packet.retain }
    if (waiting.length) waiting.shift()(message); else come.push(message)
  })
  client.on('error', () => {})
  const connack = await new Promise((resolve, reject) => {
    client.on('connect', resolve)
    client.on('error', reject)
    client.on('close', () => reject(new Error('closed before it was let in')))
  })
  return {
    client,
    present: connack.sessionPresent,
    message: () => come.length ? come.shift() : new Promise(resolve => waiting.push(resolve))
  }
}

const one = await client('one')
const two = await client('two')
for (const qos of [0, 1, 2]) {
  const [granted] = await two.client.subscribeAsync(`q/${qos}`, { qos })
  assert.equal(granted.qos, qos)
  await one.client.publishAsync(`q/${qos}`, `at ${qos}`, { qos })
  assert.equal((await two.message()).payload.toString(), `at ${qos}`)
}
const large = Buffer.alloc(200_000, 'x')
await one.client.publishAsync('q/2', large, { qos: 2 })
assert.ok((await two.message()).payload.equals(large))

await one.client.publishAsync('kept', 'state', { qos: 1, retain: true })
await two.client.subscribeAsync('kept', { qos: 1 })
const kept = await two.message()
assert.deepEqual([kept.retain, kept.payload.toString()], [true, 'state'])

const denied = await new Promise(resolve => {
  two.client.subscribe('denied/x', { qos: 1 }, (error, granted, packet) => resolve({ error, granted, packet }))
})
assert.ok(denied.error || (denied.packet?.granted ?? denied.granted.map(g => g.qos)).includes(128), 'a denied subscription is seen')

await two.client.subscribeAsync('wills', { qos: 1 })
const doomed = await client('doomed', { will: { topic: 'wills', payload: 'gone', qos: 1 } })
doomed.client.stream.destroy()
assert.equal((await two.message()).payload.toString(), 'gone')

const patient = await client('patient', { keepalive: 1 })
await patient.client.subscribeAsync('late', { qos: 1 })
await new Promise(resolve => setTimeout(resolve, 3000))
await one.client.publishAsync('late', 'still here', { qos: 1 })
assert.equal((await patient.message()).payload.toString(), 'still here')

let lasting = await client('lasting', { clean: false })
assert.equal(lasting.present, false)
await lasting.client.subscribeAsync('missed', { qos: 1 })
await lasting.client.endAsync()
await one.client.publishAsync('missed', 'while away', { qos: 1 })
lasting = await client('lasting', { clean: false })
assert.equal(lasting.present, true)
assert.equal((await lasting.message()).payload.toString(), 'while away')

await assert.rejects(client('wrong', { username: 'alice', password: 'wrong' }), error => error.code === 4)
const right = await client('right', { username: 'alice', password: 'right' })
for (const { client } of [one, two, patient, lasting, right]) await client.endAsync()
