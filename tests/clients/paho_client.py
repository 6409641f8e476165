"""What an ordinary client of paho-mqtt does, against a broker whose rules deny denied/#. Ends with 0 when all of it works.

paho_client.py mqtt|mqtts|ws|wss PORT [CA]
"""

import queue
import ssl
import sys
import time

import paho.mqtt.client as mqtt

CARRIER, PORT = sys.argv[1], int(sys.argv[2])
CA = sys.argv[3] if len(sys.argv) > 3 else None
WAIT = 20


class Client:
    def __init__(self, name, clean=True, keepalive=60, will=None, user=None):
        self.messages, self.subscribed, self.connected = queue.Queue(), queue.Queue(), queue.Queue()
        transport = "websockets" if CARRIER in ("ws", "wss") else "tcp"
        client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, name, clean_session=clean, protocol=mqtt.MQTTv311, transport=transport
        )
        if transport == "websockets":
            client.ws_set_options(path="/mqtt")
        if CARRIER in ("mqtts", "wss"):
            # The certificate names the broker's identity, not its host.
            client.tls_set(ca_certs=CA, cert_reqs=ssl.CERT_REQUIRED)
            client.tls_insecure_set(True)
        if will:
            client.will_set(*will)
        if user:
            client.username_pw_set(*user)
        client.on_connect = lambda _c, _u, flags, reason, _p: self.connected.put((flags, reason))
        client.on_message = lambda _c, _u, message: self.messages.put(message)
        client.on_subscribe = lambda _c, _u, _id, reasons, _p: self.subscribed.put([r.value for r in reasons])
        self.client = client
        client.connect("127.0.0.1", PORT, keepalive)
        client.loop_start()
        flags, self.reason = self.connected.get(timeout=WAIT)
        self.present = flags.session_present

    def subscribe(self, topic, qos=1):
        self.client.subscribe(topic, qos)
        return self.subscribed.get(timeout=WAIT)[0]

    def publish(self, topic, payload, qos=1, retain=False):
        self.client.publish(topic, payload, qos, retain).wait_for_publish(WAIT)

    def message(self):
        return self.messages.get(timeout=WAIT)

    def leave(self):
        self.client.disconnect()
        self.client.loop_stop()

    def vanish(self):
        """As a client whose line is cut: no DISCONNECT."""
        self.client.loop_stop()
        self.client.socket().close()


def main():
    one, two = Client("one"), Client("two")
    for qos in (0, 1, 2):
        assert two.subscribe(f"q/{qos}", qos) == qos
        one.publish(f"q/{qos}", f"at {qos}", qos)
        message = two.message()
        assert (message.payload, message.retain) == (f"at {qos}".encode(), False), message
    large = bytes(range(256)) * 800
    one.publish("q/1", large)
    assert two.message().payload == large

    one.publish("kept", "state", retain=True)
    three = Client("three")
    three.subscribe("kept")
    message = three.message()
    assert message.retain and message.payload == b"state"

    assert two.subscribe("denied/x") == 0x80, "a denied subscription is seen"
    one.publish("denied/x", "dropped")

    two.subscribe("wills")
    Client("four", will=("wills", "gone", 1)).vanish()
    assert two.message().payload == b"gone"

    patient = Client("patient", keepalive=1)
    patient.subscribe("late")
    time.sleep(3)
    one.publish("late", "still here")
    assert patient.message().payload == b"still here"

    lasting = Client("lasting", clean=False)
    assert not lasting.present
    lasting.subscribe("missed")
    lasting.leave()
    one.publish("missed", "while away")
    lasting = Client("lasting", clean=False)
    assert lasting.present and lasting.message().payload == b"while away"

    wrong = Client("wrong", user=("alice", "wrong"))
    assert wrong.reason == "Bad user name or password", wrong.reason
    right = Client("right", user=("alice", "right"))
    assert not right.reason.is_failure
    for client in (one, two, three, patient, lasting, right, wrong):
        client.leave()


main()
