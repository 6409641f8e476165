"""What an ordinary client of aiomqtt does, against a broker whose rules deny denied/#. Ends with 0 when all of it works.

aio_client.py mqtt|mqtts|ws|wss PORT [CA]
"""

import asyncio
import ssl
import sys

import aiomqtt

CARRIER, PORT = sys.argv[1], int(sys.argv[2])
CA = sys.argv[3] if len(sys.argv) > 3 else None


def client(name, **more):
    if CARRIER in ("ws", "wss"):
        more |= {"transport": "websockets", "websocket_path": "/mqtt"}
    if CARRIER in ("mqtts", "wss"):
        more |= {"tls_params": aiomqtt.TLSParameters(ca_certs=CA, cert_reqs=ssl.CERT_REQUIRED), "tls_insecure": True}
    return aiomqtt.Client("127.0.0.1", PORT, identifier=name, protocol=aiomqtt.ProtocolVersion.V311, **more)


async def first(client):
    async for message in client.messages:
        return message


async def main():
    async with client("one") as one, client("two") as two:
        for qos in (0, 1, 2):
            granted = await two.subscribe(f"q/{qos}", qos=qos)
            assert [g if isinstance(g, int) else g.value for g in granted] == [qos]
            await one.publish(f"q/{qos}", f"at {qos}", qos=qos)
            assert (await first(two)).payload == f"at {qos}".encode()
        await one.publish("kept", "state", qos=1, retain=True)
        await two.subscribe("kept", qos=1)
        message = await first(two)
        assert message.retain and message.payload == b"state"
        large = b"x" * 200_000
        await one.publish("q/2", large, qos=2)
        assert (await first(two)).payload == large
        granted = await two.subscribe("denied/x", qos=1)
        assert [g if isinstance(g, int) else g.value for g in granted] == [0x80], granted
        await two.subscribe("wills", qos=1)
        will = aiomqtt.Will("wills", "gone", qos=1)
        try:
            async with client("three", will=will, timeout=2) as three:
                three._client.socket().close()
                await asyncio.sleep(0.1)
        except aiomqtt.MqttError:
            pass
        assert (await first(two)).payload == b"gone"
    async with client("lasting", clean_session=False) as lasting:
        await lasting.subscribe("missed", qos=1)
    async with client("one") as one:
        await one.publish("missed", "while away", qos=1)
    async with client("lasting", clean_session=False) as lasting:
        assert (await first(lasting)).payload == b"while away"


asyncio.run(asyncio.wait_for(main(), 60))
