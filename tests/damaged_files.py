"""Damaged and hostile weight files, drawn from a seed, the same ones each time."""

import io
import json
import random
import struct
import zipfile
from collections.abc import Iterator

import torch
from safetensors.torch import save

FORMATS = ("safetensors", "zip", "legacy")
DTYPES = (torch.int64, torch.int8, torch.uint8, torch.bool, torch.complex64, torch.uint16)
ODD_KEYS = (
    *(1, None, ("body", 0), b"body.0.weight", 2.5),
    *("", ".", "a\nb", "\0", "body", "body.0", "body.-1.weight", "body.99999999999.weight"),
    *("\u202e\U0001f600", "k" * 70_000, "module.body.0.weight", "_orig_mod.body.0.weight"),
)


def written(content, form):
    """A dictionary as the bytes of a file; safetensors takes the tensors of the last dictionary."""
    if form == "safetensors":
        tensors = content.get("params", content)
        plain = {k: v.contiguous() for k, v in tensors.items() if isinstance(k, str)}
        return save(plain)
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=form == "zip")
    return file.getvalue()


def flipped(data, draw, bits):
    """Bytes of which some bits are another."""
    changed = bytearray(data)
    for _ in range(bits):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def with_header(data, change):
    """A safetensors file with another header; `change` gets the table and may give a text."""
    length = int.from_bytes(data[:8], "little")
    table = json.loads(data[8 : 8 + length])
    text = change(table)
    header = (json.dumps(table) if text is None else text).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


def with_members(data, change, compression=zipfile.ZIP_STORED):
    """A ZIP archive with other members; `change` gets and gives a list of (name, bytes)."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in change(members):
            archive.writestr(name, content)
    return file.getvalue()


def _text(text):
    data = text.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _short(text):
    return b"\x8c" + bytes([len(text)]) + text.encode()


def programs(canary):
    """Pickles that would make the file `canary`, or much memory, if they were executed."""
    line = _text(f"touch {canary}")
    python = _text(f"open({str(canary)!r}, 'w')")
    rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n"
    yield "byte", b"\x80"
    yield "reduce", b"\x80\x02cos\nsystem\n(" + line + b"tR."
    yield "inst", b"\x80\x02(" + line + b"ios\nsystem\n."
    yield "obj", b"\x80\x02(cos\nsystem\n" + line + b"o."
    yield "newobj", b"\x80\x02cos\nsystem\n(" + line + b"t\x81."
    yield "eval", b"\x80\x02cbuiltins\neval\n(" + python + b"tR."
    yield "old name", b"\x80\x02c__builtin__\neval\n(" + python + b"tR."
    yield "stack", b"\x80\x04" + _short("os") + _short("system") + b"\x93(" + line + b"tR."
    dotted = _short("torch") + _short("serialization.os.system")
    yield "dotted", b"\x80\x04" + dotted + b"\x93(" + line + b"tR."
    yield "numpy", b"\x80\x02cnumpy.testing\nrunstring\n(" + python + b"}tR."
    yield "getattr", b"\x80\x02cbuiltins\ngetattr\n(" + rebuild + _text("__globals__") + b"tR."
    yield "build", b"\x80\x02" + rebuild + b"}" + _text("__code__") + python + b"sb."
    yield "slots", b"\x80\x02" + rebuild + b"N}" + _text("_call") + python + b"s\x86b."
    yield "extension", b"\x80\x02\x82\x01."
    yield "persistent", b"\x80\x02Pabc\n."
    yield "no memory", b"\x80\x02" + rebuild + b"(NK\x00))\x89NtR."
    yield "memo", b"\x80\x02}r\xff\xff\xff\x7f."
    yield "long bytes", b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"abc."
    yield "long text", b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"abc."
    yield "deep", b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b"."
    yield "itself", b"\x80\x02}q\x00" + _text("params") + b"h\x00s."
    yield "stack underflow", b"\x80\x02s."
    yield "wrong text", b"\x80\x02X\x02\0\0\0\xff\xfe."


def faults(state, canary, seed=0) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of damaged files.

    Args:
        state: of a small network; its first key is changed in many of them.
        canary: file that no reader may make.
    """
    draw = random.Random(seed)
    whole = {form: written({"params": state}, form) for form in FORMATS}
    first = next(iter(state))
    for form, data in whole.items():
        for number in range(7):
            yield f"{form} cut {number}", data[: draw.randrange(1, len(data))]
        yield f"{form} one byte less", data[:-1]
        yield f"{form} one byte more", data + b"\0"
        for number in range(8):
            yield f"{form} flip {number}", flipped(data, draw, 1 << draw.randrange(7))
        for number in range(6):  # where names, shapes and places stand
            length = len(data) // (20 if form == "zip" else 8)
            yield f"{form} flip at start {number}", flipped(data[:length], draw, 2) + data[length:]
            yield f"{form} flip at end {number}", data[:-length] + flipped(data[-length:], draw, 2)
        for dtype in DTYPES:
            changed = {**state, first: state[first].to(dtype)}
            yield f"{form} {dtype}", written({"params": changed}, form)
        for odd in (torch.tensor(1.0), torch.zeros(0), state[first][None], state[first][:1]):
            changed = {**state, first: odd}
            yield f"{form} shape {tuple(odd.shape)}", written({"params": changed}, form)
        value = torch.full_like(state[first], torch.nan)
        yield f"{form} nan", written({"params": {**state, first: value}}, form)
    for form in ("zip", "legacy"):
        for number, key in enumerate(ODD_KEYS):
            content = {"params": {**state, key: state[first]}}
            yield f"{form} key {number}", written(content, form)
        yield f"{form} list", written([state], form)
    yield from _lying_headers(whole["safetensors"], first)
    yield from _broken_archives(whole["zip"])
    for name, program in programs(canary):
        yield f"pickle {name}", program

        def replaced(members, program=program):
            return [(n, program if n.endswith("data.pkl") else c) for n, c in members]

        yield f"zip pickle {name}", with_members(whole["zip"], replaced)
        yield f"legacy pickle {name}", _legacy_start(whole["legacy"]) + program


def _legacy_start(data):
    """The three pickles before that of the content."""
    return data[: data.index(b"type_sizes") + data[data.index(b"type_sizes") :].index(b".") + 1]


def _lying_headers(data, first):
    def row(**changes):
        return lambda table: table[first].update(changes)

    begin, end = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])[first]["data_offsets"]
    changes = {
        "dtype": row(dtype="F99"),
        "no dtype": row(dtype=None),
        "other dtype": row(dtype="F64"),
        "shape": row(shape=[2**40]),
        "negative shape": row(shape=[-1, -4]),
        "shape of texts": row(shape=["a"]),
        "shape of bools": row(shape=[True]),
        "offsets": row(data_offsets=[begin + 4, end + 4]),
        "huge offsets": row(data_offsets=[0, 2**63]),
        "three offsets": row(data_offsets=[0, 1, 2]),
        "row": lambda table: table.update({first: 5}),
        "metadata": lambda table: table.update({"__metadata__": [1]}),
        "numbers in metadata": lambda table: table.update({"__metadata__": {"a": 1}}),
        "list": lambda table: "[1, 2]",
        "no json": lambda table: "{]",
        "nothing": lambda table: "{}",
        "deep": lambda table: '{"a":' * 20_000,
        "surrogate": lambda table: '{"\udc80": 1}',
    }
    for name, change in changes.items():
        yield f"header {name}", with_header(data, change)
    yield "header too long", struct.pack("<Q", 2**40) + data[8:]
    yield "header of nothing", struct.pack("<Q", 0) + data[8:]


def _broken_archives(data):
    def shorter(members):
        return [(name, content[: len(content) // 2]) for name, content in members]

    def short(members):
        return [(n, c[:-4] if "/data/" in n else c) for n, c in members]

    def longer(members):
        return [(n, c + b"\0\0\0\0" if "/data/" in n else c) for n, c in members]

    changes = {
        "short members": short,
        "long members": longer,
        "half members": shorter,
        "no members": lambda members: [],
        "no pickle": lambda members: [each for each in members if "pkl" not in each[0]],
        "no numbers": lambda members: [each for each in members if "/data/" not in each[0]],
        "two pickles": lambda members: [*members, ("other/data.pkl", b"\x80\x02}.")],
        "big-endian": lambda members: [(n, b"big" if "order" in n else c) for n, c in members],
        "other folder": lambda members: [(f"x/{name}", content) for name, content in members],
        "up": lambda members: [(f"../{name}", content) for name, content in members],
    }
    for name, change in changes.items():
        yield f"archive {name}", with_members(data, change)
    yield "archive deflated", with_members(data, lambda each: each, zipfile.ZIP_DEFLATED)
    yield "archive behind text", b"PK\x03\x04" + data
