"""PyTorch checkpoints: their tensors are read, and nothing that they bring along runs or takes memory."""

import io
import os
import pickle
import tracemalloc
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import TINY
from torch import nn
from weight_files import GROUP, refusal, same_weights, state_dict

from fmboost_core.errors import CheckpointError
from fmboost_core.files.checkpoint import describe, load_model
from fmboost_core.files.weight_file import open_weights
from fmboost_core.networks.unet import LatentUNet


def torch_zip(path: Path, pickled: bytes, compression: int = zipfile.ZIP_STORED, **parts: bytes) -> None:
    """A checkpoint of this pickle and these parts; a part's __ is a slash."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in {"data.pkl": pickled, **parts}.items():
            archive.writestr(f"a/{name.replace('__', '/')}", content)


# --- code


class Evil:
    """Calls whatever it is made with when it is unpickled."""

    def __init__(self, function: Callable[..., object], *args: object) -> None:
        self.call = (function, args)

    def __reduce__(self) -> Any:
        return self.call


class EvilState(Evil):
    """Has its state, which runs something, set on an object of a foreign class."""

    def __reduce__(self) -> Any:
        return (Evil, (print,), {"x": Evil(*self.call[:1], *self.call[1])})


def attacks(marker: Path) -> dict[str, object]:
    """Objects that would make the marker if anything of theirs ran."""
    command = f"touch '{marker}'"
    return {
        "call": Evil(os.system, command),
        "a function of torch": Evil(torch.save, [], str(marker)),
        "state": EvilState(os.system, command),
        "key": {Evil(os.system, command): Evil(os.system, command)},
    }


@pytest.mark.parametrize("kind", ["call", "a function of torch", "state", "key"])
def test_a_malicious_pickle_is_harmless(kind: str, tmp_path: Path) -> None:
    marker, path = tmp_path / "touched", tmp_path / "a.ckpt"
    evil, tensors = attacks(marker)[kind], state_dict(GROUP)
    torch.save({"hyper_parameters": evil, "state_dict": tensors}, path)
    assert same_weights(load_model(path), tensors)
    torch.save({"hyper_parameters": evil, "state_dict": evil}, path)
    assert "no weights" in refusal(lambda: load_model(path), path)
    torch.save(evil, path)
    refusal(lambda: describe(path), path)
    path.write_bytes(pickle.dumps(evil))
    assert "bare pickle" in refusal(lambda: load_model(path), path)
    torch.save(evil, path, _use_new_zipfile_serialization=False)
    assert "before 1.6" in refusal(lambda: load_model(path), path)
    assert not marker.exists()


@pytest.mark.parametrize("kind", ["call", "a function of torch"])
def test_the_malicious_pickles_would_have_run(kind: str, tmp_path: Path) -> None:
    marker = tmp_path / "touched"
    pickle.loads(pickle.dumps(attacks(marker)[kind]))
    assert marker.exists()


SYSTEM = b"cposix\nsystem\n"
HOSTILE_OPCODES = {
    "REDUCE": SYSTEM + b"(S'touch touched'\ntR.",
    "INST": b"(S'touch touched'\niposix\nsystem\n.",
    "OBJ": b"(" + SYSTEM + b"S'touch touched'\no.",
    "BUILD of a function": SYSTEM + b"}S'__reduce__'\n" + SYSTEM + b"sb.",
    "BUILD of a known class": b"ctorch._utils\n_rebuild_tensor_v2\n}S'read'\n" + SYSTEM + b"sb.",
    "BUILD of a table": b"ccollections\nOrderedDict\n)R}S'items'\n" + SYSTEM + b"sb.",
    "NEWOBJ": b"}S'a'\nctorch._utils\n_rebuild_tensor_v2\n)\x81s.",
    "no data": b"ctorch._utils\n_rebuild_parameter\n(tR.",
    "a type that is called": b"ctorch\nFloatStorage\n)R.",
    "depth": b"(" * 100_000 + b"t" * 100_000 + b".",
    "BINPERSID": b"S'x'\nQ.",
    "protocol": b"\x80\x09.",
    "nothing": b"",
    "garbage": b"garbage",
}


@pytest.mark.parametrize("opcodes", HOSTILE_OPCODES.values(), ids=HOSTILE_OPCODES)
def test_hostile_opcodes(opcodes: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.pt"
    torch_zip(path, b"\x80\x02" + opcodes)
    refusal(lambda: load_model(path), path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(3), {"a": 1}, LatentUNet(TINY)], ids=type)
def test_what_holds_no_weights_says_what_it_holds(content: object, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save(content, path)
    message = refusal(lambda: load_model(path), path)
    assert ("LatentUNet" if isinstance(content, nn.Module) else "no weights, only a ") in message


# --- memory

COPIES = (
    b"ccollections\nOrderedDict\nq\x01}q\x02("
    + b"".join(b"M" + i.to_bytes(2, "little") + b"N" for i in range(1000))
    + b"u0]("
    + b"h\x01h\x02\x85R" * 4000
    + b"e."
)
GREEDY = {
    "memo": b"]r" + (2**24).to_bytes(4, "little") + b".",
    "bytearray": b"\x96" + (2**28).to_bytes(8, "little") + b".",
    "copies of a table": COPIES,
}


@pytest.mark.parametrize("opcodes", GREEDY.values(), ids=GREEDY)
def test_a_pickle_cannot_ask_for_memory(opcodes: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch_zip(path, b"\x80\x05" + opcodes)
    tracemalloc.start()
    refusal(lambda: load_model(path), path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**25


def test_a_compressed_zip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch_zip(path, pickle.dumps({"a": "b" * 10_000}), zipfile.ZIP_DEFLATED)
    assert "it is compressed" in refusal(lambda: load_model(path), path)


def test_weights_that_share_their_numbers_are_refused(tmp_path: Path) -> None:
    """A small file could name a network of any size."""
    path, config = tmp_path / "a.pt", replace(GROUP, multipliers=(1, 1, 1), res_blocks=3)
    shapes = {name: tensor.shape for name, tensor in state_dict(config).items()}
    numbers = torch.zeros(max(map(torch.Size.numel, shapes.values())))
    torch.save({name: numbers[: shape.numel()].view(shape) for name, shape in shapes.items()}, path)
    assert "smaller than the weights" in refusal(lambda: load_model(path), path)


# --- what a pickle claims of a tensor


class Storage:
    def __init__(self, key: Any = "0", length: int = 6, kind: type = torch.FloatStorage) -> None:
        self.pid = ("storage", kind, key, "privateuseone:0", length)


class Claim:
    def __init__(self, storage: Storage, offset: Any, size: Any, stride: Any) -> None:
        self.layout = (storage, offset, size, stride, False, OrderedDict())

    def __reduce__(self) -> Any:
        return torch._utils._rebuild_tensor_v2, self.layout


class ClaimPickler(pickle.Pickler):
    def persistent_id(self, obj: object) -> Any:
        return obj.pid if isinstance(obj, Storage) else None


def claimed(path: Path, claim: Claim) -> torch.Tensor:
    """The tensor that a checkpoint with the numbers 0 to 5 and this claim gives."""
    buffer = io.BytesIO()
    ClaimPickler(buffer, 2).dump({"x": claim})
    torch_zip(path, buffer.getvalue(), data__0=torch.arange(6.0).numpy().tobytes())
    with open_weights(path) as file:
        return file.entries["x"].read()


def test_strides_and_offsets_are_followed(tmp_path: Path) -> None:
    """Also of a storage that was saved on a device that this machine does not have."""
    x = torch.arange(6.0)
    assert torch.equal(claimed(tmp_path / "a.pt", Claim(Storage(), 0, (2, 3), (3, 1))), x.view(2, 3))
    assert torch.equal(claimed(tmp_path / "a.pt", Claim(Storage(), 1, (2, 2), (1, 3))), x[[1, 4, 2, 5]].view(2, 2))


FALSE_CLAIMS = {
    "a length beyond the part": Claim(Storage(length=10**6), 0, (10**6,), (1,)),
    "numbers again and again": Claim(Storage(length=10**12), 0, (10**12,), (0,)),
    "an offset beyond the part": Claim(Storage(), 6, (1,), (1,)),
    "a stride beyond the part": Claim(Storage(), 0, (2,), (6,)),
    "an endless offset": Claim(Storage(), 2**70, (1,), (1,)),
    "an endless shape": Claim(Storage(), 0, (2**70,), (1,)),
    "a part that is missing": Claim(Storage("1"), 0, (1,), (1,)),
    "another type of numbers": Claim(Storage(kind=torch.LongStorage), 0, (1,), (1,)),
}


@pytest.mark.parametrize("claim", FALSE_CLAIMS.values(), ids=FALSE_CLAIMS)
def test_false_claims_are_refused(claim: Claim, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    refusal(lambda: claimed(path, claim), path)


def long_name() -> Any:
    """A tuple that is short in a pickle and long in words."""
    name: Any = "0"
    for _ in range(12):
        name = (name, name)
    return name


IMPOSSIBLE_LAYOUTS = {
    "a negative shape": Claim(Storage(), 0, (-1, -1), (1, 1)),
    "a negative stride": Claim(Storage(), 5, (6,), (-1,)),
    "a negative offset": Claim(Storage(), -1, (1,), (1,)),
    "a shape of text": Claim(Storage(), 0, ("a",), (1,)),
    "no shape": Claim(Storage(), 0, None, (1,)),
    "a name that is no text": Claim(Storage(long_name()), 0, (1,), (1,)),
}


@pytest.mark.parametrize("claim", IMPOSSIBLE_LAYOUTS.values(), ids=IMPOSSIBLE_LAYOUTS)
def test_impossible_layouts_are_refused_at_once(claim: Claim, tmp_path: Path) -> None:
    """Whoever uses an entry's shape can rely on it."""
    path = tmp_path / "a.pt"
    refusal(lambda: claimed(path, claim), path)
    with pytest.raises(CheckpointError), open_weights(path):
        pass


def test_attributes_cannot_hide_a_table(tmp_path: Path) -> None:
    tensors = state_dict(GROUP)
    table = OrderedDict(tensors)
    table.get = None  # type: ignore[method-assign,assignment]
    torch.save(table, tmp_path / "a.pt")
    assert same_weights(load_model(tmp_path / "a.pt"), tensors)


# --- damage


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_cut_files(share: float, tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    torch.save(state_dict(GROUP), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refusal(lambda: load_model(path), path)


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    torch.save(state_dict(GROUP), path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert "damaged" in refusal(lambda: load_model(path), path)


@pytest.mark.parametrize(
    ("record", "at", "byte"), [(b"PK\x01\x02", 6, 156), (b"PK\x03\x04", 30, 0xD9)], ids=["version", "name"]
)
def test_a_zip_with_broken_headers(record: bytes, at: int, byte: int, tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    torch.save(state_dict(GROUP), path)
    content = bytearray(path.read_bytes())
    content[content.index(record) + at] = byte
    path.write_bytes(content)
    refusal(lambda: load_model(path), path)


def test_other_zips_and_byte_orders_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "<xml/>")
    assert "data.pkl" in refusal(lambda: load_model(path), path)
    torch_zip(path, pickle.dumps({}), byteorder=b"big")
    assert "big-endian" in refusal(lambda: load_model(path), path)
