"""Makes UF2 files with uf2utils 0.9.8, changes them, and says which of them are an image for the slot below.

usage: uf2.py FOLDER COUNT

What the tool judges, and what it does not. uf2utils makes and reads the files here, and says which bytes of a good one
belong where. As a judge it is lax: it raises for a file that is empty or not of whole blocks of 512 bytes, and for
nothing else (for a wrong magic number it makes an exception and forgets to raise it; it looks at no number, size or
family). So each variant is judged by the tool first, "tool: ..."; what the tool lets through is judged by the rules
below, "rule: ...". They are written from the text of the format, https://github.com/microsoft/uf2/blob/master/README.md,
on whole files and without the model's code; where the text leaves a choice to who takes the file, the rule is Trireme's
and says so:

 1. magic      All three magic numbers of all blocks are those of the text.
 2. container  No block has the flag 0x1000. (Choice: such blocks are files for a file system.)
 3. family     A variant whose name ends in "@rp2040" is for a sensor that takes the family 0xe48bff56: blocks of other
               families are as if they were not there, with their numbers (text). A block without a family is refused
               then (text: recommended), and so is a file with no block of the family (choice).
               Without that ending, all blocks name the same family, or none does. (Choice.)
 4. flags      Flags beyond the text's five are refused, and so is 0x4000, MD5. (Choice.)
 5. numbers    All say the same number of blocks N, and the numbers are 0 to N - 1, each once (text, but that it may not
               come twice within a file is a choice). So N is how many blocks there are.
 6. size       A payload has 1 to 476 bytes (text; that it is not empty is a choice). Multiples of 4 are only a "should".
 7. tags       With the flag 0x8000, tags follow at multiples of 4, each of 4 bytes or more, within the 476 bytes, up to
               the last one, FF FF FF FF or 00 00 00 00 (text). Texts of versions and descriptions are UTF-8 (text), and
               if they come again, they are the same (choice).
 8. address    What is not flagged 0x1 lies in the slot, no byte of it twice, and there is some of it. (Choice.)

A good one's `why` is `sha256 <digest>` of the slot after it was written to a slot full of 0x55: erased from its
beginning to the last unit that is filled, with the payloads where the tool's reader says that they belong.
"""

import hashlib
import json
import random
import struct
import sys
from pathlib import Path

from uf2utils.constants import Flags
from uf2utils.file import UF2File

# The device of the test.
SLOT, SLOT_SIZE, ERASE_UNIT = 0x10000000, 256 * 1024, 4096
BEFORE, ERASED = 0x55, 0xFF

BLOCK, DATA = 512, 476
RP2040, NRF52840, RP2350 = 0xE48BFF56, 0xADA52840, 0xE48BFF59
VERSION, DESCRIPTION, PAGE_SIZE, SHA2 = 0x9FC7BC, 0x650D9D, 0x0BE9F7, 0xB46DB0
FIELDS = {
    "magic0": 0, "magic1": 4, "flags": 8, "address": 12, "size": 16, "number": 20, "total": 24, "family": 28,
    "magic2": 508,
}


# --- The verdict -----------------------------------------------------------------------------------------------------


class Bad(Exception):
    """What is wrong with an image."""


def rule(holds, words):
    if not holds:
        raise Bad(f"rule: {words}")


def judge(path, wanted):
    """The tool's reader for the image, or `Bad`."""
    try:
        read = UF2File(str(path))
    except Exception as error:
        raise Bad(f"tool: {type(error).__name__}: {error}") from None
    by_rules(path.read_bytes(), wanted)
    return read


def by_rules(image, wanted):
    blocks = [image[at : at + BLOCK] for at in range(0, len(image), BLOCK)]
    heads = [struct.unpack("<8I", block[:32]) for block in blocks]
    rule(all(block[:8] == b"UF2\nWQ\x5d\x9e" and block[508:] == b"\x30\x6f\xb1\x0a" for block in blocks), "magic")
    rule(not any(head[2] & 0x1000 for head in heads), "container")
    families = {head[7] if head[2] & 0x2000 else None for head in heads}
    if wanted is None:
        rule(len(families) == 1, f"family: {len(families)} of them")
        mine = list(zip(heads, blocks))
    else:
        rule(None not in families, "family: a block names none")
        rule(wanted in families, "family: no block of it")
        mine = [(head, block) for head, block in zip(heads, blocks) if head[7] == wanted]
    rule(not any(head[2] & ~0xB001 for head, _ in mine), "flags")
    rule({head[6] for head, _ in mine} == {len(mine)}, "numbers: not that many blocks")
    rule(sorted(head[5] for head, _ in mine) == list(range(len(mine))), "numbers: not each once")
    rule(all(1 <= head[4] <= DATA for head, _ in mine), "size")
    said = {}
    for head, block in mine:
        if head[2] & 0x8000:
            by_tags(block[32:508], head[4], said)
    filled = bytearray(SLOT_SIZE)
    for head, _ in mine:
        if head[2] & 1:
            continue
        start, end = head[3] - SLOT, head[3] - SLOT + head[4]
        rule(0 <= start and end <= SLOT_SIZE, f"address: {head[3]:#x} is outside")
        rule(not any(filled[start:end]), f"address: {head[3]:#x} comes twice")
        filled[start:end] = b"\1" * head[4]
    rule(any(filled), "address: nothing is filled")


def by_tags(data, size, said):
    at = (size + 3) // 4 * 4
    while True:
        rule(at + 4 <= DATA, "tags: no last one")
        word = struct.unpack_from("<I", data, at)[0]
        if word in (0, 0xFFFFFFFF):
            return
        length, kind = word & 0xFF, word >> 8
        rule(length >= 4 and at + length <= DATA, "tags: length")
        if kind in (VERSION, DESCRIPTION):
            value = data[at + 4 : at + length]
            try:
                value.decode()
            except UnicodeDecodeError:
                rule(False, "tags: not UTF-8")
            rule(said.setdefault(kind, value) == value, "tags: says two things")
        at += (length + 3) // 4 * 4


def content(read, wanted):
    """The slot after the file was written, as the tool reads the file."""
    slot, end = bytearray([BEFORE]) * SLOT_SIZE, 0
    parts = [
        (block.header.address - SLOT, block.payload)
        for block in read
        if not block.header.flags & Flags.NotMainFlash
        and (wanted is None or block.header.board_family == wanted)
    ]
    end = max(start + len(payload) for start, payload in parts)
    end = -(-end // ERASE_UNIT) * ERASE_UNIT
    slot[:end] = bytes([ERASED]) * end
    for start, payload in parts:
        slot[start : start + len(payload)] = payload
    return bytes(slot)


# --- The files -------------------------------------------------------------------------------------------------------


def make(rng, folder, family=RP2040):
    """A file of the tool's making: blocks of 512 bytes. Its firmware has an area or more in the slot."""
    uf2 = UF2File(board_family=family or 0)
    uf2.header.flags = 0 if family is None else Flags.FamilyIDPresent
    payload = rng.choice([256, 256, 256, DATA, 100, rng.randrange(32, DATA + 1)])
    areas, firmware = rng.choice([1, 1, 2, 3]), {}
    room = SLOT_SIZE // areas
    for area in range(areas):
        length = rng.randrange(1, 12 * payload)
        start = SLOT + area * room + rng.choice([0, rng.randrange(room - length), room - length])
        firmware[start] = rng.randbytes(length)
        uf2.append_payload(firmware[start], start, payload)
    path = folder / "made"
    uf2.to_file(str(path))
    image = path.read_bytes()
    back = UF2File(str(path))
    for start, written in firmware.items():
        assert back.extract_payload(start, start + len(written)) == written, "the tool reads what it wrote"
    path.unlink()
    return [bytearray(image[at : at + BLOCK]) for at in range(0, len(image), BLOCK)]


def get(block, field):
    return struct.unpack_from("<I", block, FIELDS[field])[0]


def put(block, field, value):
    struct.pack_into("<I", block, FIELDS[field], value & 0xFFFFFFFF)


def renumbered(blocks):
    for number, block in enumerate(blocks):
        put(block, "number", number)
        put(block, "total", len(blocks))
    return blocks


def with_comments(rng, blocks):
    """Blocks that are not for the main flash among the others, at any address."""
    for _ in range(rng.randrange(1, 4)):
        comment = bytearray(rng.choice(blocks))
        put(comment, "flags", get(comment, "flags") | Flags.NotMainFlash)
        put(comment, "address", rng.choice([0, 0xFFFFFFFF, get(comment, "address")]))
        blocks.insert(rng.randrange(len(blocks) + 1), comment)
    return renumbered(blocks)


def tag(kind, value, length=None):
    length = 4 + len(value) if length is None else length
    return (struct.pack("<I", kind << 8 | length) + value).ljust((4 + len(value) + 3) // 4 * 4, b"\0")


def tags(rng, blocks, some, last=b"\xff\xff\xff\xff"):
    """Tags behind the payloads of some blocks that have room for them."""
    block = rng.choice(blocks)
    at = 32 + (get(block, "size") + 3) // 4 * 4
    text = b"".join(some) + last
    if at + len(text) > 508:
        size = DATA - len(text) - rng.choice([0, 0, 4, 40])
        put(block, "size", size)
        at = 32 + (size + 3) // 4 * 4
    block[32 + get(block, "size") : 508] = bytes(476 - get(block, "size"))
    block[at : at + len(text)] = text[: 508 - at]
    put(block, "flags", get(block, "flags") | Flags.ExtensionTagsPresent)
    return blocks


def good_tags(rng, blocks):
    version = rng.choice([b"1.2.3", b"0.1.2-rc1", b"7", "é".encode()])
    choices = [tag(VERSION, version), tag(DESCRIPTION, b"ACME Toaster mk3"), tag(PAGE_SIZE, struct.pack("<I", 256)),
               tag(SHA2, rng.randbytes(32)), tag(rng.getrandbits(24) & 0x7FFFFF, rng.randbytes(rng.randrange(20)))]
    for _ in range(rng.randrange(1, 4)):
        last = rng.choice([b"\xff\xff\xff\xff", bytes(4)])
        tags(rng, blocks, rng.sample(choices, rng.randrange(1, len(choices) + 1)), last)
    return blocks


def bad_tags(rng, blocks):
    return tags(rng, blocks, *rng.choice([
        ([tag(VERSION, b"1.2", rng.choice([0, 1, 3]))],),
        ([tag(DESCRIPTION, b"ACME", 200)] + [tag(PAGE_SIZE, bytes(4))] * 30,),
        ([tag(SHA2, bytes(32), 255)], b"\1\2\3\4"),
        ([tag(VERSION, b"\xc3\x28")],),
        ([tag(VERSION, b"1.0"), tag(VERSION, b"1.1")],),
        ([tag(DESCRIPTION, b"a lamp"), tag(PAGE_SIZE, bytes(4)), tag(DESCRIPTION, b"a heater")],),
        ([tag(PAGE_SIZE, bytes(4))], bytes([rng.randrange(1, 4), 1, 2, 3])),
    ]))


def flip(field):
    def change(rng, blocks):
        block = rng.choice(blocks)
        put(block, field, get(block, field) ^ 1 << rng.randrange(32))
        return blocks
    return change


def extreme(field, values):
    def change(rng, blocks):
        put(rng.choice(blocks), field, rng.choice(values))
        return blocks
    return change


def flagged(flag):
    def change(rng, blocks):
        for block in rng.choice([blocks, [rng.choice(blocks)]]):
            put(block, "flags", get(block, "flags") ^ flag)
        return blocks
    return change


def outside(rng, blocks):
    block = rng.choice(blocks)
    size, end = get(block, "size"), SLOT + SLOT_SIZE
    put(block, "address", rng.choice([SLOT - 1, SLOT - size, end - size + 1, end, end - 1, 0, -1, -size, -size + 1]))
    return blocks


def overlapping(rng, blocks):
    one, other = rng.choice(blocks), rng.choice(blocks)
    by = rng.choice([0, 1, -1, get(other, "size") - 1, 1 - get(one, "size"), get(other, "size")])
    put(one, "address", get(other, "address") + by)
    return blocks


def duplicated(rng, blocks):
    blocks.insert(rng.randrange(len(blocks) + 1), bytearray(rng.choice(blocks)))
    return rng.choice([blocks, renumbered(blocks)])


def instead_of_another(rng, blocks):
    blocks[rng.randrange(len(blocks))] = bytearray(rng.choice(blocks))
    return blocks


def missing(rng, blocks):
    del blocks[rng.randrange(len(blocks))]
    return blocks if rng.random() < 0.6 else renumbered(blocks)


def swapped_numbers(rng, blocks):
    one, other = rng.choice(blocks), rng.choice(blocks)
    number = get(one, "number")
    put(one, "number", get(other, "number"))
    put(other, "number", number)
    return blocks


def shuffled(rng, blocks):
    rng.shuffle(blocks)
    return blocks


def payload_changed(rng, blocks):
    for _ in range(rng.randrange(1, 20)):
        rng.choice(blocks)[rng.randrange(32, 508)] ^= 1 << rng.randrange(8)
    return blocks


def truncated(rng, blocks):
    image = b"".join(blocks)
    return image[: rng.choice([0, 1, 511, len(image) - BLOCK, len(image) - 1, rng.randrange(len(image))])]


def appended(rng, blocks):
    return b"".join(blocks) + rng.choice([b"\0", bytes(BLOCK), b"\xff" * BLOCK, rng.randbytes(rng.randrange(1, 1025))])


def another_family(rng, blocks):
    put(rng.choice(blocks), "family", rng.choice([NRF52840, 0, 0xFFFFFFFF]))
    return blocks


def as_made(_, blocks):
    return blocks


CHANGES = {
    "as-made": (as_made, 8), "comments": (with_comments, 4), "tags": (good_tags, 8), "shuffled": (shuffled, 4),
    "swapped-numbers": (swapped_numbers, 2), "payload-changed": (payload_changed, 3), "bad-tags": (bad_tags, 4),
    "truncated": (truncated, 2), "appended": (appended, 2), "duplicated": (duplicated, 2), "missing": (missing, 2),
    "instead-of-another": (instead_of_another, 2), "overlapping": (overlapping, 3), "outside": (outside, 3),
    "another-family": (another_family, 2), "container": (flagged(0x1000), 1), "md5": (flagged(0x4000), 1),
    "unflagged-family": (flagged(0x2000), 2), "not-main-flash": (flagged(0x1), 2),
    "size-extreme": (extreme("size", [0, 0, 1, DATA - 1, DATA, DATA + 1, DATA + 4, 512, 0xFFFFFFFF]), 4),
    "number-extreme": (extreme("number", [0, 1, 2, 0x80000000, 0xFFFFFFFF]), 1),
    "total-extreme": (extreme("total", [0, 1, 2, 0x80000000, 0xFFFFFFFF]), 1),
    **{f"flip-{field}": (flip(field), 1) for field in FIELDS},
}


def several_families(rng, folder):
    """The tool's files for several families, one behind the other or mixed."""
    files = [make(rng, folder, family) for family in rng.sample([RP2040, NRF52840, RP2350], rng.choice([2, 2, 3]))]
    blocks = [block for file in files for block in file]
    return shuffled(rng, blocks) if rng.random() < 0.3 else blocks


def variant(rng, folder):
    change = rng.choices(list(CHANGES), [weight for _, weight in CHANGES.values()])[0]
    for_family = rng.random() < 0.5
    if rng.random() < (0.4 if for_family else 0.05):
        kind, blocks = "families", several_families(rng, folder)
    elif rng.random() < (0.05 if for_family else 0.3):
        kind, blocks = "no-family", make(rng, folder, None)
    else:
        kind, blocks = "family", make(rng, folder)
    changed = CHANGES[change][0](rng, blocks)
    image = changed if isinstance(changed, bytes) else b"".join(changed)
    return f"{kind}.{change}{'@rp2040' if for_family else ''}", image


def main(folder, count):
    rng = random.Random(2)
    for number in range(count):
        what, image = variant(rng, folder)
        name = f"{number:04}.{what}"
        path = folder / name
        path.write_bytes(image)
        wanted = RP2040 if name.endswith("@rp2040") else None
        try:
            digest = hashlib.sha256(content(judge(path, wanted), wanted)).hexdigest()
            said = {"name": name, "good": True, "why": f"sha256 {digest}"}
        except Bad as bad:
            said = {"name": name, "good": False, "why": str(bad)}
        print(json.dumps(said))


main(Path(sys.argv[1]), int(sys.argv[2]))
