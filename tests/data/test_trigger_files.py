import hashlib
import json
import os
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from torch import Tensor

from carelab.data import Trigger, WarpTrigger, load_trigger, save_trigger, white_patch
from carelab.networks.tensorfiles import digest, read_tensors, seal, write_tensors
from tests.data.test_triggers import SHAPE, all_kinds, unit

KEY = "carelab_trigger"


@pytest.mark.parametrize("trigger", all_kinds(), ids=lambda trigger: trigger.name)
def test_a_trigger_comes_back_bit_for_bit(trigger: Trigger, tmp_path: Path) -> None:
    save_trigger(trigger, tmp_path / "a")
    loaded = load_trigger(str(tmp_path / "a"))
    assert type(loaded) is type(trigger)
    for field in fields(trigger):  # type: ignore[arg-type]
        old, new = getattr(trigger, field.name), getattr(loaded, field.name)
        if isinstance(old, Tensor):
            assert (new.dtype, digest({"": new})) == (old.dtype, digest({"": old}))
        else:
            assert (type(new), new) == (type(old), old)
    images = unit(3, *SHAPE)
    assert torch.equal(loaded(images), trigger(images))
    save_trigger(loaded, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(("where", "step"), [(os, "fsync"), (Path, "replace")])
def test_a_file_is_replaced_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: object, step: str
) -> None:
    path = tmp_path / "a"
    save_trigger(white_patch(SHAPE, 2), path)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(where, step, fail)
    with pytest.raises(OSError, match="disk full"):
        save_trigger(white_patch(SHAPE, 3), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


def test_another_trigger_of_the_protocol_cannot_be_saved(tmp_path: Path) -> None:
    class Mine:
        name = "mine"

        def __call__(self, images: Tensor) -> Tensor:
            return images

    with pytest.raises(ValueError, match="trigger: got a Mine; allowed: patch, blend, warp, sin"):
        save_trigger(Mine(), tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_no_trigger(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with pytest.raises(FileNotFoundError, match="path: there is no file"):
        load_trigger(path)
    write_tensors(path, {"pattern": torch.ones(1, 1, 1)}, {})
    with pytest.raises(ValueError, match=r"path: .*a holds no description of a trigger"):
        load_trigger(path)
    save_trigger(all_kinds()[0], path)
    content = path.read_bytes()
    for length in (0, 8, 60, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="is damaged or no safetensors file"):
            load_trigger(path)
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match="its tensors do not have their checksum"):
        load_trigger(path)
    path.write_bytes(content.replace(b'\\"row\\": 4', b'\\"row\\": 3'))
    with pytest.raises(ValueError, match="its description does not have its checksum"):
        load_trigger(path)


def test_a_pickle_is_refused_without_being_opened(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (os.mkdir, (str(tmp_path / "sprung"),))

    torch.save({"pattern": Trap()}, tmp_path / "a")
    with pytest.raises(ValueError, match="is damaged or no safetensors file"):
        load_trigger(tmp_path / "a")
    assert not (tmp_path / "sprung").exists()


GOOD = {"pattern": torch.ones(1, 2, 2)}


@pytest.mark.parametrize(
    ("kind", "numbers", "tensors", "message"),
    [
        ("sticker", {}, {}, "it is of kind 'sticker'; allowed: patch, blend"),
        (["patch"], {}, {}, r"it is of kind \['patch'\]"),
        ("patch", [], GOOD, r"its numbers are \[\]; a patch has row, column"),
        ("patch", {"row": 0}, GOOD, "its numbers are"),
        ("patch", {"row": 0, "column": 1.0}, GOOD, "its numbers are"),
        ("patch", {"row": 0, "column": True}, GOOD, "its numbers are"),
        ("patch", {"row": -5, "column": 0}, GOOD, "row, column: got -5, 0"),
        ("blend", {"ratio": 2.0}, GOOD, "ratio: got 2.0"),
        ("blend", {"ratio": 0.5}, {"pattern": torch.full((1, 2, 2), 2.0)}, "pattern: got shape"),
        ("blend", {"ratio": 0.5}, {"pattern": torch.ones(2, 2)}, r"its pattern has shape \(2, 2\)"),
        ("blend", {"ratio": 0.5}, {"pattern": torch.ones(1, 2, 2).int()}, r".*type torch.int32"),
        ("blend", {"ratio": 0.5}, {}, r"its tensors are \[\]; a blend has \['pattern'\]"),
        ("blend", {"ratio": 0.5}, {**GOOD, "more": torch.ones(1)}, "its tensors are"),
        ("warp", {}, {"field": torch.zeros(4, 4, 3)}, r"its field has shape \(4, 4, 3\)"),
        ("mask", {}, {**GOOD, "mask": torch.ones(2, 2, 2)}, r"its mask has shape \(2, 2, 2\)"),
        ("mask", {}, {**GOOD, "mask": torch.ones(1, 3, 2)}, "mask, pattern: got"),
    ],
)
def test_a_forged_file_cannot_make_anything_else(
    tmp_path: Path, kind: object, numbers: object, tensors: dict[str, Tensor], message: str
) -> None:
    content = {"version": 1, "kind": kind, "numbers": numbers, "tensors": digest(tensors)}
    write_tensors(tmp_path / "a", tensors, {KEY: seal(content, "trigger")})
    with pytest.raises(ValueError, match=f"^path: .* holds no sound trigger: {message}"):
        load_trigger(tmp_path / "a")


def test_another_version_is_named(tmp_path: Path) -> None:
    save_trigger(WarpTrigger(field=torch.zeros(2, 2, 2)), tmp_path / "a")
    tensors, metadata = read_tensors(tmp_path / "a")
    content = json.loads(metadata[KEY])
    content.pop("checksum")
    content["version"] = 2
    checksum = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    metadata = {KEY: json.dumps({**content, "checksum": checksum})}
    write_tensors(tmp_path / "a", tensors, metadata)
    with pytest.raises(ValueError, match="has a description of version 2; allowed: 1"):
        load_trigger(tmp_path / "a")
