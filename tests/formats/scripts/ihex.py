"""Intel HEX files, made and judged by PyPI's intelhex.

Where intelhex is laxer than a device may be, a rule of our own says so ("rule: ..."):
- a file without an end record was cut short, and nothing but blank lines follows the end record;
- data lies in the slot, and does not go around the end of a segment;
- a file has data.
"""

import hashlib
import io
import json
import pathlib
import random
import sys

from intelhex import IntelHex

BASE, SLOT, ERASE = 0x08000000, 128 * 1024, 4096
FOLDER, COUNT = pathlib.Path(sys.argv[1]), int(sys.argv[2])
RANDOM = random.Random(20261124)


def record(kind, address, data):
    body = bytes([len(data) & 255, address >> 8 & 255, address & 255, kind]) + bytes(data)
    return b":" + (body + bytes([-sum(body) & 255])).hex().upper().encode()


def image():
    """The lines of a good file."""
    made = IntelHex()
    for _ in range(RANDOM.randint(1, 5)):
        size = RANDOM.choice([1, 3, 16, 100, 2000])
        made.puts(BASE + RANDOM.randrange(SLOT - size), RANDOM.randbytes(size))
    if RANDOM.random() < 0.3:
        made.start_addr = {"EIP": BASE + 4} if RANDOM.random() < 0.5 else {"CS": 1, "IP": 2}
    text = io.StringIO()
    made.write_hex_file(text, byte_count=RANDOM.choice([1, 16, 32, 255]))
    return text.getvalue().encode().split()


def shuffled(lines):
    """Data records in another order: each group stays behind its extended address."""
    groups = []
    for line in lines[:-1]:
        if line[7:9] != b"00":
            groups.append([line])
        else:
            groups.append((groups.pop() if groups else []) + [line])
    for group in groups:
        rest = group[1:]
        RANDOM.shuffle(rest)
        group[1:] = rest
    RANDOM.shuffle(groups)
    return [line for group in groups for line in group] + lines[-1:]


def pick(lines, kind=b"00"):
    return RANDOM.choice([at for at, line in enumerate(lines) if line[7:9] == kind])


def fields(line):
    body = bytes.fromhex(line[1:].decode())
    return body[3], body[1] << 8 | body[2], body[4:-1]


def replaced(lines, at, line):
    return lines[:at] + [line] + lines[at + 1:]


def flipped(lines):
    raw = bytearray(b"\n".join(lines) + b"\n")
    raw[RANDOM.randrange(len(raw))] ^= 1 << RANDOM.randrange(8)
    return bytes(raw)


def digit(lines):
    at = pick(lines)
    line = bytearray(lines[at])
    line[RANDOM.randrange(1, len(line))] = RANDOM.choice(b"0123456789ABCDEFabcdefGg :xX-")
    return replaced(lines, at, bytes(line))


def moved(lines):
    at = pick(lines)
    kind, _, data = fields(lines[at])
    return replaced(lines, at, record(kind, RANDOM.randrange(65536), data))


def rebased(lines):
    at = pick(lines, b"04")
    high = RANDOM.choice([0, 0x07FF, 0x0800, 0x0801, 0x0802, 0xFFFF])
    return replaced(lines, at, record(4, 0, high.to_bytes(2, "big")))


def retyped(lines):
    at = RANDOM.randrange(len(lines))
    _, address, data = fields(lines[at])
    return replaced(lines, at, record(RANDOM.choice([0, 1, 2, 3, 4, 5, 6, 7, 128, 255]), address, data))


def odd(lines):
    kind = RANDOM.randrange(1, 6)
    extra = record(kind, RANDOM.choice([0, 0, 1]), RANDOM.randbytes(RANDOM.choice([0, 1, 2, 2, 3, 4, 4, 5])))
    at = RANDOM.randrange(len(lines))
    return lines[:at] + [extra] + lines[at:]


def announced(lines):
    at = pick(lines)
    body = bytearray.fromhex(lines[at][1:].decode())
    body[0] = RANDOM.randrange(256)
    body[-1] = -sum(body[:-1]) & 255
    return replaced(lines, at, b":" + body.hex().encode())


def doubled(lines):
    at = RANDOM.randrange(len(lines))
    return lines[:at] + [lines[at]] + lines[at:]


def segmented(lines):
    """In a segment of 64 KiB, which is not where the slot is; or at the end of one."""
    extra = [record(2, 0, b"\xff\xff"), record(0, RANDOM.choice([0, 0xFFF0, 0xFFFE]), b"\1\2\3\4")]
    return extra + lines


def short(lines):
    """Less than a record has, of bytes that add up to 0."""
    at = RANDOM.randrange(len(lines))
    return lines[:at] + [b":" + b"00" * RANDOM.randrange(6)] + lines[at:]


def blanks(lines):
    return RANDOM.choice([b"\n", b"\r\n", b"\r", b"\n\n"]).join(lines) + RANDOM.choice([b"", b"\n", b"\r\n\r\n"])


def spaces(lines):
    at = RANDOM.randrange(len(lines))
    return replaced(lines, at, RANDOM.choice([b" " + lines[at], lines[at] + b" ", b"\t", b"\xef\xbb\xbf" + lines[at]]))


def truncated(lines):
    raw = b"\n".join(lines) + b"\n"
    return raw[:RANDOM.randrange(len(raw))]


def trailing(lines):
    return lines + [RANDOM.choice([record(0, 0, b"1"), lines[-1], b"\x1a", b"more"])]


CHANGES = {
    "good": lambda lines: lines,
    "blanks": blanks,
    "lower": lambda lines: [line.lower() for line in lines],
    "shuffled": shuffled,
    "dropped": lambda lines: (lambda at: lines[:at] + lines[at + 1:])(RANDOM.randrange(len(lines))),
    "doubled": doubled,
    "flipped": flipped,
    "digit": digit,
    "moved": moved,
    "rebased": rebased,
    "retyped": retyped,
    "odd": odd,
    "announced": announced,
    "short": short,
    "segmented": segmented,
    "spaces": spaces,
    "truncated": truncated,
    "cut": lambda lines: lines[:RANDOM.randrange(len(lines))],
    "trailing": trailing,
    "empty": lambda lines: lines[-1:],
    "long": lambda lines: [b":" + b"0" * RANDOM.choice([520, 522, 2000])] + lines,
}


def rules(path):
    """What a device asks besides; `None` when all is well."""
    lines = path.read_bytes().replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    lines = [line for line in lines if line]
    if record(1, 0, b"") not in [line.upper() for line in lines] and not any(
        fields(line)[0] == 1 for line in lines
    ):
        return "no end record"
    segment = None
    for at, line in enumerate(lines):
        kind, address, data = fields(line)
        if kind == 1:
            if at + 1 != len(lines):
                return "something after the end record"
            break
        if kind in (2, 4):
            segment = kind == 2
        if kind == 0 and segment and address + len(data) > 65536:
            return "around the end of a segment"
    return None


def judge(path):
    try:
        read = IntelHex(str(path))
    except Exception as error:  # Whatever it raises is its refusal.
        return False, f"{type(error).__name__}: {error}"
    wrong = rules(path)
    if wrong:
        return False, f"rule: {wrong}"
    places = read.addresses()
    if not places:
        return False, "rule: no data"
    if places[0] < BASE or places[-1] >= BASE + SLOT:
        return False, "rule: outside the slot"
    slot = bytearray(b"\x55" * SLOT)
    end = -(-(places[-1] - BASE + 1) // ERASE) * ERASE
    slot[:end] = b"\xff" * end
    for place in places:
        slot[place - BASE] = read[place]
    return True, hashlib.sha256(slot).hexdigest()


for number in range(COUNT):
    name, change = list(CHANGES.items())[number % len(CHANGES)]
    name = f"{number:03}-{name}.hex"
    changed = change(image())
    (FOLDER / name).write_bytes(changed if isinstance(changed, bytes) else b"\n".join(changed) + b"\n")
    good, why = judge(FOLDER / name)
    print(json.dumps({"name": name, "good": good, "why": why}))
