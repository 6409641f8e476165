#!/usr/bin/env python3
"""Recomputes every test vector of Trireme from its inputs, without any of Trireme's code.

    python3 check.py [trireme-1.json]

Needs the package `cryptography` (46.0.3). Ends with `N passed, M failed`; the exit status is 1 when M > 0.
"""

import hashlib
import hmac
import json
import pathlib
import re
import struct
import sys

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

SCOPE = "2.25.1416784242"
passed, failed = 0, 0


def check(name, condition):
    global passed, failed
    if condition:
        passed += 1
    else:
        failed += 1
        print(f"FAILED {name}")


def un(text):
    return bytes.fromhex(text)


# ---- the protocol's building blocks -------------------------------------------------------------------------------


def t(label, *fields):
    """T(label, f…) = u8 len(label) ‖ label ‖ (u64be len(f) ‖ f)*"""
    out = bytes([len(label)]) + label.encode()
    for field in fields:
        if isinstance(field, int):
            field = struct.pack(">Q", field)
        elif isinstance(field, str):
            field = field.encode()
        out += struct.pack(">Q", len(field)) + field
    return out


def version(text):
    """One to four numbers of 32 bits, no leading zeros: sixteen bytes."""
    parts = text.split(".")
    if not 1 <= len(parts) <= 4 or not all(re.fullmatch(r"0|[1-9][0-9]*", part) for part in parts):
        raise ValueError(text)
    numbers = [int(part) for part in parts] + [0] * (4 - len(parts))
    if any(number >= 1 << 32 for number in numbers):
        raise ValueError(text)
    return struct.pack(">IIII", *numbers)


def sha256(data):
    return hashlib.sha256(data).digest()


def mac(key, data):
    return hmac.new(key, data, hashlib.sha256).digest()


def hkdf(ikm, salt, info, length):
    return HKDF(algorithm=hashes.SHA256(), length=length, salt=salt, info=info).derive(ikm)


def xor(a, b):
    return bytes(x ^ y for x, y in zip(a, b, strict=True))


def verifies(key, data, signature):
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    try:
        key.verify(utils.encode_dss_signature(r, s), data, ec.ECDSA(hashes.SHA256()))
        return len(signature) == 64
    except InvalidSignature:
        return False


def point(key):
    return key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)


def cbor(value):
    """Deterministic CBOR of numbers, booleans, bytes, text, lists and maps."""

    def head(major, number):
        if number < 24:
            return bytes([major << 5 | number])
        for extra, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
            if number < 1 << (8 * size):
                return bytes([major << 5 | extra]) + number.to_bytes(size, "big")
        raise ValueError(number)

    if isinstance(value, bool):
        return b"\xf5" if value else b"\xf4"
    if isinstance(value, int):
        return head(0, value)
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    if isinstance(value, str):
        return head(3, len(value.encode())) + value.encode()
    if isinstance(value, list):
        return head(4, len(value)) + b"".join(cbor(item) for item in value)
    if isinstance(value, dict):
        return head(5, len(value)) + b"".join(cbor(key) + cbor(value[key]) for key in sorted(value))
    raise TypeError(type(value))


# ---- the sections of the file -------------------------------------------------------------------------------------


class Check:
    def __init__(self, vectors):
        self.v = vectors
        self.i = i = vectors["inputs"]
        self.fw = un(i["firmware"])
        self.digest = sha256(self.fw)
        self.d2 = struct.pack(">Q", len(self.fw)) + self.digest
        self.sc, self.pk, self.mrk = un(i["SC"]), un(i["PK"]), un(i["MRK"])
        self.version = version(i["version"])
        self.keys = {
            name: serialization.load_pem_private_key(pem.encode(), None) for name, pem in i["keys"].items()
        }

    def made(self, name, vector, label, fields, value_name, value=None):
        """The encoding, and the value that is made of it."""
        encoding = t(label, *fields)
        check(f"{name}: label", vector["label"] == label)
        check(f"{name}: encoding", un(vector["encoding"]) == encoding)
        if value is not None:
            check(f"{name}: {value_name}", un(vector[value_name]) == value(encoding))
        return encoding

    def signed(self, name, vector, label, fields, signer):
        encoding = self.made(name, vector, label, fields, "signature")
        key, signature = self.keys[signer], un(vector["signature"])
        check(f"{name}: signature", verifies(key.public_key(), encoding, signature))
        check(f"{name}: nothing else is signed", not verifies(key.public_key(), encoding + b"\0", signature))
        try:
            algorithm = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
            r, s = utils.decode_dss_signature(key.sign(encoding, algorithm))
        except Exception as error:  # An OpenSSL before 3.2 cannot: RFC 6979 is then not compared.
            print(f"note: {name}: not compared with RFC 6979: {error}")
            return
        check(f"{name}: RFC 6979", signature == r.to_bytes(32, "big") + s.to_bytes(32, "big"))

    def inputs(self):
        i = self.i
        check("inputs: size", i["size"] == len(self.fw))
        check("inputs: digest", un(i["digest"]) == self.digest)
        check("inputs: D2", un(i["d2"]) == self.d2 and len(self.d2) == 40)
        for name in ("SC", "PK", "MRK"):
            check(f"inputs: {name}", un(i[name]) == sha256(f"trireme/vectors/{name}".encode()))
        for name, key in self.keys.items():
            number = int.from_bytes(sha256(f"trireme/vectors/{name}".encode()), "big")
            check(f"inputs: key of {name}", key.private_numbers().private_value == number)

    def certificates(self):
        root = x509.load_der_x509_certificate(un(self.v["certificates"]["root"]))
        anchor = self.keys["authority"].public_key()
        check("root: key", point(root.public_key()) == point(anchor))
        root.verify_directly_issued_by(root)
        check("root: self-signed", True)
        check("root: name", root.subject.rfc4514_string() == f"CN={self.i['authority']}")
        constraints = root.extensions.get_extension_for_class(x509.BasicConstraints)
        check("root: authority", constraints.critical and constraints.value.ca)
        usage = root.extensions.get_extension_for_class(x509.KeyUsage).value
        check("root: signs certificates", usage.key_cert_sign and usage.digital_signature)
        for role in ("manufacturer", "broker", "gateway"):
            vector = self.v["certificates"][role]
            node = x509.load_der_x509_certificate(un(vector["certificate"]))
            try:
                node.verify_directly_issued_by(root)
                check(f"{role}: issued by the root", True)
            except (InvalidSignature, ValueError, TypeError):
                check(f"{role}: issued by the root", False)
            own = point(self.keys[role].public_key())
            check(f"{role}: key", point(node.public_key()) == own == un(vector["point"]))
            uri = f"trireme://{role}/{self.i[role]}"
            names = list(node.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
            check(f"{role}: name", names == [x509.UniformResourceIdentifier(uri)] and vector["uri"] == uri)
            constraints = node.extensions.get_extension_for_class(x509.BasicConstraints)
            check(f"{role}: no authority", constraints.critical and not constraints.value.ca)
            usage = node.extensions.get_extension_for_class(x509.KeyUsage).value
            check(f"{role}: usage", usage.digital_signature and not usage.key_cert_sign)
            for at, ms in ((node.not_valid_before_utc, "not_before_ms"), (node.not_valid_after_utc, "not_after_ms")):
                check(f"{role}: {ms}", int(at.timestamp()) * 1000 == self.i[ms])
            check(f"{role}: Certified", vector["not_after_ms"] == self.i["not_after_ms"])
            self.scope(role, node, vector)
            request = x509.load_der_x509_csr(un(vector["request"]))
            check(f"{role}: request", request.is_signature_valid and point(request.public_key()) == own)

    def scope(self, role, node, vector):
        """SEQUENCE { topic UTF8String, models SEQUENCE OF UTF8String }, for manufacturers alone."""
        found = [e for e in node.extensions if e.oid.dotted_string == SCOPE]
        if role != "manufacturer":
            check(f"{role}: no topic", not found and vector["topic"] is None and vector["models"] == [])
            return

        def tlv(tag, content):
            return bytes([tag, len(content)]) + content

        topic, models = self.i["topic"], [self.i["model"]]
        listed = tlv(0x30, b"".join(tlv(0x0C, model.encode()) for model in models))
        expected = tlv(0x30, tlv(0x0C, topic.encode()) + listed)
        check("manufacturer: topic and models", found[0].value.value == expected and not found[0].critical)
        check("manufacturer: Certified", vector["topic"] == topic and vector["models"] == models)

    def agreement(self, a):
        """5.6.3.1 and 5.6.4.1; gives TH, Kc, Ki, Kr."""
        tier = a["tier"]
        first, second = {1: ("manufacturer", "broker"), 2: ("broker", "gateway")}[tier]
        labels = {1: ("trireme/1/m1", "trireme/1/m2"), 2: ("trireme/1/m3", "trireme/1/m4")}[tier]
        id_i, id_r = self.i[first], self.i[second]
        name = f"tier {tier}"
        check(f"{name}: parties", (a["initiator"], a["responder"]) == (id_i, id_r))
        own = {}
        for side in ("initiator", "responder"):
            seed = un(a[f"{side}_ephemeral"])
            own[side] = ec.derive_private_key(int.from_bytes(seed, "big"), ec.SECP256R1())
            check(f"{name}: {side}'s seed", seed == sha256(f"trireme/vectors/ephemeral/{tier}/{side}".encode()))
            check(f"{name}: {side}'s Q", un(a[f"{side}_point"]) == point(own[side].public_key()))
        q_i, q_r = point(own["initiator"].public_key()), point(own["responder"].public_key())
        self.signed(f"{name}: {labels[0]}", a["first"], labels[0], (id_i, q_i), first)
        self.signed(f"{name}: {labels[1]}", a["second"], labels[1], (id_r, q_r, q_i), second)

        certificate = {role: un(self.v["certificates"][role]["certificate"]) for role in (first, second)}
        push = cbor({0: [1], 1: tier, 2: id_i, 3: q_i, 4: un(a["first"]["signature"]), 5: certificate[first]})
        held = {0: self.i["model"], 1: version("1.2"), 2: b"\x12" * 32}
        response = {0: 1, 1: id_r, 2: q_r, 3: un(a["second"]["signature"]), 4: certificate[second], 5: [held]}
        check(f"{name}: PUSH", un(a["push"]) == push)
        check(f"{name}: RESPONSE without C", un(a["response_without_c"]) == cbor(response))
        response[6] = un(a["confirm"]["hmac"])
        check(f"{name}: RESPONSE", un(a["response"]) == cbor(response))

        fields = (a["binding"], tier, un(a["push"]), un(a["response_without_c"]))
        th = sha256(self.made(f"{name}: TH", a["transcript"], "trireme/1/th", fields, "sha256", sha256))
        shared = own["initiator"].exchange(ec.ECDH(), own["responder"].public_key())
        check(f"{name}: ECDH", shared == own["responder"].exchange(ec.ECDH(), own["initiator"].public_key()))
        keys = hkdf(shared, th, t("trireme/1/session", tier, id_i, id_r, q_i, q_r), 96)
        fields = (tier, id_i, id_r, q_i, q_r)
        self.made(f"{name}: keys", a["session"], "trireme/1/session", fields, "okm", lambda _: keys)
        kc, ki, kr = keys[:32], keys[32:64], keys[64:]

        def tag(vector, label, key, *fields):
            self.made(f"{name}: {label}", a[vector], label, fields, "hmac", lambda encoding: mac(key, encoding))

        tag("confirm", "trireme/1/confirm", kc, th)
        tag("ack", "trireme/1/ack", kr, th, self.d2, "stored")
        tag("sealed_by_initiator", "trireme/1/message/i", ki, th, 0, b"content")
        tag("sealed_by_responder", "trireme/1/message/r", kr, th, 1, b"content")
        return th, ki

    def release(self, r, agreed):
        """5.6.3.2, 5.6.4.2, 5.6.5.1: Token, head, S1, S2, F."""
        i, suite = self.i, r["suite"]
        d = {1: self.fw, 2: self.d2}[suite]
        name, prefix = f"suite {suite}", f"trireme/1/s{suite}"
        encoding = t(f"{prefix}/token", i["manufacturer"], d, self.version)
        token = xor(self.sc, mac(self.pk, encoding))
        fields = (i["manufacturer"], d, self.version)
        self.made(f"{name}: Token", r["token"], f"{prefix}/token", fields, "token", lambda _: token)
        check(f"{name}: SC'", xor(un(r["token"]["token"]), mac(self.pk, encoding)) == self.sc)
        manifest = un(self.v["manifest"]["hash"]["sha256"]) if suite == 2 else b""
        for tier, owner in ((1, i["manufacturer"]), (2, i["gateway"])):
            th, ki = agreed[tier]
            fields = (
                th, suite, i["topic"], owner, i["model"], self.version, len(self.fw), token, manifest,
            )  # fmt: skip
            self.made(
                f"{name}: head {tier}", r[f"head_{tier}"], "trireme/1/head", fields, "hmac",
                lambda encoding, ki=ki: mac(ki, encoding),
            )  # fmt: skip
            fields = (i["topic"], owner, d, i["model"], self.version, token)
            self.made(
                f"{name}: S{tier}", r[f"s{tier}"], f"{prefix}/s{tier}", fields, "hmac",
                lambda encoding, ki=ki: mac(ki, encoding),
            )  # fmt: skip
        fields = (i["gateway"], token, d, self.version)
        self.made(f"{name}: F", r["f"], f"{prefix}/f", fields, "sha256", sha256)
        return token

    def manifest(self, token):
        i, m = self.i, self.v["manifest"]
        content = cbor({
            0: 2, 1: m["sequence"], 2: i["manufacturer"], 3: i["topic"], 4: i["model"], 5: self.version,
            6: len(self.fw), 7: self.digest, 8: [{0: i["generation"], 1: token}], 9: m["issued_ms"],
            10: m["expires_ms"], 11: False, 12: [],
        })  # fmt: skip
        check("manifest: CBOR", un(m["cbor"]) == content)
        self.signed("manifest: M5", m["m5"], "trireme/1/m5", (content,), "manufacturer")
        certificate = un(self.v["certificates"]["manufacturer"]["certificate"])
        fields = (content, un(m["m5"]["signature"]), certificate)
        self.made("manifest: hash", m["hash"], "trireme/1/manifest", fields, "sha256", sha256)

    def rollout(self):
        i, r = self.i, self.v["rollout"]
        waves = [{0: w["millionths"], **({1: w["select"]} if w["select"] else {})} for w in r["open"]]
        order = cbor({0: r["wave"], 1: r["of"], 2: r["halted"], 3: r["select"], 4: waves})
        check("order: CBOR", un(r["cbor"]) == order)
        check("order: extension", un(r["extension"]) == cbor({0: "order", 1: False, 2: order}))
        for place in r["places"]:
            check(f"place of {place['sensor']}", place["place"] == self.place(place["sensor"]))
        fields = (i["manufacturer"], i["model"], self.version, self.digest, r["operator"])
        self.signed("approval", r["approval"], "trireme/1/approval", fields, "manufacturer")

    def through(self):
        t = self.v["through"]
        images = [
            {0: version(i["version"]), 1: i["size"], 2: un(i["digest"]), 3: [{0: i["generation"], 1: un(i["token"])}]}
            for i in t["images"]
        ]
        check("intermediate versions: CBOR", un(t["cbor"]) == cbor(images))
        extension = {0: "through", 1: False, 2: cbor(images)}
        check("intermediate versions: extension", un(t["extension"]) == cbor(extension))

    def place(self, sensor):
        """FNV-1a over digest and name, mixed as SplitMix64 does it; of the upper half so many millionths."""
        mask, number = (1 << 64) - 1, 0xCBF29CE484222325
        for byte in self.digest + sensor.encode():
            number = ((number ^ byte) * 0x100000001B3) & mask
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            number = ((number ^ number >> shift) * factor) & mask
        return ((number ^ number >> 31) >> 32) * 1_000_000 >> 32

    def sensor(self):
        i, s = self.i, self.v["sensor"]
        dk = hkdf(self.mrk, None, t("trireme/1/device", i["model"], i["sensor"]), 32)
        fields = (i["model"], i["sensor"])
        self.made("device key", s["device_key"], "trireme/1/device", fields, "okm", lambda _: dk)
        fields = (
            i["sensor"], i["gateway"], i["model"], self.d2, self.version, s["outcome"], s["counter"],
        )  # fmt: skip
        self.made("receipt", s["receipt"], "trireme/1/receipt", fields, "hmac", lambda encoding: mac(dk, encoding))
        receipt = {
            0: i["sensor"], 1: i["gateway"], 2: i["model"], 3: self.version, 4: len(self.fw), 5: self.digest,
            6: s["outcome"], 7: s["counter"], 8: un(s["receipt"]["hmac"]),
        }  # fmt: skip
        batch = cbor({0: i["gateway"], 1: i["manufacturer"], 2: s["batch_sequence"], 3: [receipt]})
        check("batch: CBOR", un(s["batch_cbor"]) == batch)
        self.signed("batch", s["batch"], "trireme/1/batch", (batch,), "gateway")
        check("stored secrets of the model", un(s["model_stored"]) == self.stored_model())
        check("stored secrets of the sensor", un(s["sensor_stored"]) == self.stored_sensor(dk))
        return dk

    def stored_model(self):
        generation = struct.pack(">I", self.i["generation"])
        return b"TRMS\x01" + named(self.i["model"]) + generation + self.sc + self.pk + self.mrk

    def stored_sensor(self, dk):
        names = b"".join(named(self.i[name]) for name in ("sensor", "manufacturer", "model"))
        generation = struct.pack(">I", self.i["generation"])
        return b"TRSS\x01" + names + generation + self.sc + self.pk + b"\x01" + dk

    def bundle(self, dk):
        b = self.v["bundle"]
        number = 0
        for character in b["code"].replace("-", ""):
            number = number << 5 | "0123456789ABCDEFGHJKMNPQRSTVWXYZ".index(character)
        entropy, bits = (number >> 12).to_bytes(16, "big"), number & 0xFFF
        check("bundle: code", entropy == un(b["entropy"]))
        digest = sha256(t("trireme/1/bundle/code", entropy))
        check("bundle: check bits of the code", bits == int.from_bytes(digest[:2], "big") >> 4)
        whole = un(b["bundle"])
        check("bundle: format", whole[:5] == b"TRMB\x01")
        derived = hkdf(entropy, whole[5:37], t("trireme/1/bundle"), 44)
        plain = ChaCha20Poly1305(derived[:32]).decrypt(derived[32:], whole[37:], whole[:37])
        check("bundle: content", plain == self.stored_sensor(dk) + version(b["initial_version"]))

    def brokers(self):
        b = self.v["brokers"]
        entries = [part for broker in b["list"] for part in (broker["id"], broker["url"])]
        fields = (
            self.i["manufacturer"], self.i["topic"], len(b["list"]), *entries, b["sequence"], b["issued_ms"],
            b["expires_ms"],
        )  # fmt: skip
        self.signed("brokers", b, "trireme/1/brokers", fields, "manufacturer")

    def time(self):
        answer = self.v["time"]
        check("time: now", answer["unix_ms"] == self.i["now_ms"])
        self.signed("time", answer, "trireme/1/time", (un(answer["nonce"]), answer["unix_ms"]), "authority")

    def trust(self):
        """An intermediate, its list, a renewal under it, links between two roots, a token's digest."""
        v = self.v["trust"]
        names = ("intermediate", "broker-2", "authority-2")
        numbers = {name: sha256(f"trireme/vectors/{name}".encode()) for name in names}
        seeded = {
            name: ec.derive_private_key(int.from_bytes(number, "big"), ec.SECP256R1())
            for name, number in numbers.items()
        }
        root = x509.load_der_x509_certificate(un(self.v["certificates"]["root"]))
        issuer = x509.load_der_x509_certificate(un(v["intermediate"]))
        issuer.verify_directly_issued_by(root)
        check("intermediate: key", point(issuer.public_key()) == point(seeded["intermediate"].public_key()))
        constraints = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
        check("intermediate: certifies nodes alone", constraints.ca and constraints.path_length == 0)
        usage = issuer.extensions.get_extension_for_class(x509.KeyUsage).value
        check("intermediate: usage", usage.key_cert_sign and usage.crl_sign)

        renewal = v["renewal"]
        fields = (un(renewal["request"]), un(renewal["present"]))
        self.signed("renewal", renewal, "trireme/1/renew", fields, "broker")
        request = x509.load_der_x509_csr(un(renewal["request"]))
        new = point(seeded["broker-2"].public_key())
        check("renewal: request", request.is_signature_valid and point(request.public_key()) == new)
        for name, own in (("present", point(self.keys["broker"].public_key())), ("renewed", new)):
            chain = un(renewal[name])
            check(f"{name}: chain", chain.endswith(un(v["intermediate"])))
            node = x509.load_der_x509_certificate(chain[: -len(un(v["intermediate"]))])
            node.verify_directly_issued_by(issuer)
            check(f"{name}: key", point(node.public_key()) == own)

        listed = v["list"]
        crl = x509.load_der_x509_crl(un(listed["crl"]))
        check("list: signature", crl.is_signature_valid(issuer.public_key()) and crl.issuer == issuer.subject)
        number = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        check("list: number", number == listed["number"])
        check("list: this", int(crl.last_update_utc.timestamp()) * 1000 == listed["this_update_ms"])
        check("list: next", int(crl.next_update_utc.timestamp()) * 1000 == listed["next_update_ms"])
        entry = crl.get_revoked_certificate_by_serial_number(int(listed["serial"], 16))
        reason = entry.extensions.get_extension_for_class(x509.CRLReason).value.reason
        check("list: entry", len(crl) == 1 and reason == x509.ReasonFlags.key_compromise)
        check("list: id", un(listed["id"]) == sha256(point(issuer.public_key())))
        check("list: item", un(listed["item"]) == un(listed["crl"]) + un(v["intermediate"]))

        second = x509.load_der_x509_certificate(un(v["second_root"]))
        second.verify_directly_issued_by(second)
        for name, subject, by in (("new_with_old", second, root), ("old_with_new", root, second)):
            link = x509.load_der_x509_certificate(un(v[name]))
            link.verify_directly_issued_by(by)
            same = link.subject == subject.subject and point(link.public_key()) == point(subject.public_key())
            check(f"{name}: the other root's name and key", same)
            constraints = link.extensions.get_extension_for_class(x509.BasicConstraints).value
            check(f"{name}: leads to intermediates", constraints.ca and constraints.path_length == 1)
        check("link: id", un(v["link_id"]) == sha256(un(v["new_with_old"])))

        token = v["token"]
        self.made("token", token, "trireme/1/enrol", (token["secret"],), "digest", sha256)

    def versions(self):
        v = self.v["versions"]
        encoded = [version(entry["text"]) for entry in v["ascending"]]
        check("versions: ascending", encoded == sorted(encoded) and len(set(encoded)) == len(encoded))
        for entry, own in zip(v["ascending"], encoded, strict=True):
            check(f"version {entry['text']}", un(entry["bytes"]) == own)
        for a, b in v["same"]:
            check(f"version {a} = {b}", version(a) == version(b))
        for text in v["refused"]:
            try:
                version(text)
                check(f"version {text!r} is refused", False)
            except ValueError:
                check(f"version {text!r} is refused", True)

    def all(self):
        section("inputs", self.inputs)
        section("certificates", self.certificates)
        agreed = {a["tier"]: section("agreement", self.agreement, a) for a in self.v["agreements"]}
        check("agreements: both tiers", sorted(agreed) == [1, 2])
        tokens = {r["suite"]: section("release", self.release, r, agreed) for r in self.v["releases"]}
        check("releases: both suites", sorted(tokens) == [1, 2])
        section("manifest", self.manifest, tokens.get(2))
        section("rollout", self.rollout)
        section("through", self.through)
        dk = section("sensor", self.sensor)
        section("bundle", self.bundle, dk)
        section("brokers", self.brokers)
        section("trust", self.trust)
        section("time", self.time)
        section("versions", self.versions)


def section(name, function, *arguments):
    """What a section gives; one that cannot be read at all is one failure, and the others go on."""
    try:
        return function(*arguments)
    except Exception as error:
        check(f"{name}: {type(error).__name__}: {error}", False)
        return None


def named(text):
    return bytes([len(text)]) + text.encode()


def main():
    default = pathlib.Path(__file__).with_name("trireme-1.json")
    path = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else default
    Check(json.loads(path.read_text(encoding="utf-8"))).all()
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
