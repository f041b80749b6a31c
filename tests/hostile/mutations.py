"""What can be wrong with a file: seeded changes of its bytes, its numbers, its strings, its lines."""

import json
import random
import re
from collections.abc import Callable

NUMBERS = (
    "NaN", "Infinity", "-Infinity", "nan", "-inf", "0", "-1", "-0.0", "1e308", "1e400", "-1e400", "1e-400", "9" * 400,
    "9223372036854775808", "true", "null", '"x"', "[]", "{}", "0x7f", "1_000",
)  # fmt: skip
STRINGS = (
    "", " ", "x" * 1_000_000, "\x00", "../../../etc/passwd", "/dev/zero", "/dev/null", "/proc/self/mem", "~", "\ud800",
    "\U0001f4a5", "{{7*7}}", "$(touch hostile)", "'; drop table trials; --", "</script><script>alert(1)</script>",
    "\r\n", "a\nb", "-", "--help", "nan", "con", "%n%s", "[bold]", ".", "..",
)  # fmt: skip
_NUMBER = re.compile(rb"(?<![\w.])-?\d+(\.\d+)?([eE][-+]?\d+)?")
_STRING = re.compile(rb'"(?:[^"\\\n]|\\.)*"')

Mutation = Callable[[bytes, random.Random], bytes]


def _empty(_: bytes, __: random.Random) -> bytes:
    return b""


def _truncated(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _flipped(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice([1, 3, 30])):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _inserted(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data) + 1)
    return data[:place] + rng.randbytes(rng.choice([1, 16, 4096])) + data[place:]


def _huge_in_header(data: bytes, rng: random.Random) -> bytes:
    """Sizes and counts stand in the first bytes."""
    place, width = rng.randrange(min(len(data), 64) + 1), rng.choice([2, 4, 8])
    value = rng.choice([b"\xff", b"\x7f", b"\x00"]) * width
    return data[:place] + value + data[place + width :]


def _zeroed(data: bytes, rng: random.Random) -> bytes:
    first = rng.randrange(len(data) + 1)
    count = rng.randrange(len(data) - first + 1)
    return data[:first] + bytes(count) + data[first + count :]


def _random(_: bytes, rng: random.Random) -> bytes:
    return rng.randbytes(rng.choice([1, 100, 10_000]))


def _repeated(data: bytes, rng: random.Random) -> bytes:
    return data * rng.choice([2, 3])


BYTES: tuple[Mutation, ...] = (
    _empty, _truncated, _truncated, _flipped, _flipped, _inserted, _huge_in_header, _huge_in_header, _zeroed, _random,
    _repeated,
)  # fmt: skip


def _replaced(data: bytes, pattern: re.Pattern[bytes], value: bytes, rng: random.Random) -> bytes:
    found = list(pattern.finditer(data))
    if not found:
        return data + value
    place = rng.choice(found)
    return data[: place.start()] + value + data[place.end() :]


def _number(data: bytes, rng: random.Random) -> bytes:
    return _replaced(data, _NUMBER, rng.choice(NUMBERS).encode(), rng)


def _string(data: bytes, rng: random.Random) -> bytes:
    return _replaced(data, _STRING, json.dumps(rng.choice(STRINGS)).encode(), rng)


def _raw_string(data: bytes, rng: random.Random) -> bytes:
    """Without escapes, which makes some no text at all."""
    return _replaced(data, _STRING, rng.choice(STRINGS).encode("utf-8", "surrogatepass"), rng)


def _nested(data: bytes, rng: random.Random) -> bytes:
    return _replaced(data, rng.choice([_NUMBER, _STRING]), b"[" * rng.choice([3, 2_000, 200_000]), rng)


def _other_encoding(data: bytes, rng: random.Random) -> bytes:
    text = data.decode("utf-8", "replace")
    return text.encode(rng.choice(["utf-16", "utf-8-sig", "utf-32", "cp500"]), "replace")


def _lines(data: bytes, rng: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    how = rng.choice(["shuffled", "one twice", "one less"])
    if how == "shuffled":
        rng.shuffle(lines)
    elif how == "one twice":
        lines += lines[:1]
    elif lines:
        del lines[rng.randrange(len(lines))]
    return b"".join(lines)


TEXT: tuple[Mutation, ...] = (
    _empty, _truncated, _flipped, _inserted, _random, _number, _number, _number, _string, _string, _string, _raw_string,
    _nested, _other_encoding, _lines,
)  # fmt: skip


def mutated(data: bytes, seed: str, *, is_text: bool) -> tuple[bytes, str]:
    """A changed copy, and the names of the changes."""
    rng = random.Random(seed)
    chosen = [rng.choice(TEXT if is_text else BYTES) for _ in range(rng.choice([1, 1, 1, 2]))]
    for change in chosen:
        data = change(data, rng)
    return data, " and ".join(change.__name__.strip("_") for change in chosen)
