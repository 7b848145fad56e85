import hashlib
import json
import os
import struct
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from carelab.causal import expectation_mean, guilty_neurons, neuron_effects
from carelab.networks import fingerprint
from carelab.networks import save as save_network
from carelab.networks.tensorfiles import digest, read_tensors, seal, write_tensors
from carelab.properties import observed_violations
from carelab.records import Edit, Neuron, Performance, Repair
from carelab.repair import apply_repair, care, load_repair, save_repair, undo_repair
from tests.tables import fairness, network, rows, seeded

KEY = "carelab_repair"


def case():
    model, fair, train = network(seed=3), fairness(count=5), rows(200)
    wrong = observed_violations(model, train, fair)
    guilty = guilty_neurons(expectation_mean(neuron_effects(model, wrong, fair)), count=4)
    fixed = care(model, train, wrong, fair, guilty, iterations=10, generator=seeded(5))
    return model, fixed


def small(**change):
    """A repair by hand, one edit of two columns."""
    parts = {
        "method": "by hand",
        "property_name": "individual fairness (größe)",
        "neurons": (Neuron("relu1", 3), Neuron("relu1", 1)),
        "factors": torch.tensor([0.5, -0.0], dtype=torch.float64),
        "before": Performance(accuracy=0.1 + 0.2, violation_rate=1.0),
        "after": Performance(accuracy=1 / 3, violation_rate=0.0),
        "history": torch.tensor([0.3, 0.25]),
        "seconds": 1.5,
        "seed": 2**64 - 1,
        "network": "a" * 64,
        "repaired": "b" * 64,
        "edits": (edit(),),
        "status": "improved",
    }
    return Repair(**{**parts, **change})


def edit(**change):
    parts = {
        "parameter": "linear2.weight",
        "axis": 1,
        "indices": (3, 1),
        "before": torch.tensor([[torch.nan, -0.0], [torch.inf, 1e-45]]),
        "after": torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
    }
    return Edit(**{**parts, **change})


def content(repair):
    """Everything in a repair, tensors as their digest: equal exactly where all bits are."""
    plain = {
        field.name: getattr(repair, field.name)
        for field in fields(repair)
        if field.name not in ("factors", "history", "edits")
    }
    tensors = [digest({"factors": repair.factors, "history": repair.history})]
    for one in repair.edits:
        tensors.append(digest({"before": one.before, "after": one.after}))
    return plain, [(one.parameter, one.axis, one.indices) for one in repair.edits], tensors


def parts(path):
    """Header and numbers of a safetensors file."""
    everything = path.read_bytes()
    (size,) = struct.unpack("<Q", everything[:8])
    return json.loads(everything[8 : 8 + size]), everything[8 + size :]


def forge(path, change):
    """Change description and tensors, and give them the checksums that go with the change."""
    tensors, metadata = read_tensors(path)
    description = json.loads(metadata[KEY])
    del description["checksum"]
    change(description, tensors)
    if "tensors" in description:
        description["tensors"] = digest(tensors)
    text = json.dumps(description, sort_keys=True)
    description["checksum"] = hashlib.sha256(text.encode()).hexdigest()
    write_tensors(path, tensors, {KEY: json.dumps(description)})


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "repair.safetensors"
    save_repair(small(), path)
    return path


def test_a_repair_comes_back_bit_for_bit_and_applies_and_undoes(tmp_path) -> None:
    model, fixed = case()
    assert fixed.status == "improved"
    save_repair(fixed, tmp_path / "a")
    loaded = load_repair(str(tmp_path / "a"))
    assert content(loaded) == content(fixed)
    repaired = apply_repair(model, loaded)
    assert fingerprint(repaired) == fixed.repaired != fingerprint(model)
    assert fingerprint(undo_repair(repaired, loaded)) == fingerprint(model)
    with pytest.raises(ValueError, match="the network this repair was made for"):
        apply_repair(network(seed=4), loaded)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_number_types_and_odd_values_are_kept(dtype, tmp_path) -> None:
    odd = edit()
    odd = replace(odd, before=odd.before.to(dtype), after=odd.after.to(dtype))
    repair = small(factors=torch.tensor([0.5, -0.0]).to(dtype), edits=(odd, odd))
    save_repair(repair, tmp_path / "a")
    loaded = load_repair(tmp_path / "a")
    assert content(loaded) == content(repair)
    assert loaded.edits[1].before.dtype == dtype
    assert torch.signbit(loaded.edits[0].before[0, 1])
    assert loaded.seed == 2**64 - 1
    assert loaded.before == Performance(accuracy=0.1 + 0.2, violation_rate=1.0)


def test_a_repair_without_edits_and_strided_slices_come_back(tmp_path) -> None:
    nothing = small(
        neurons=(), factors=torch.zeros(0), history=torch.zeros(0), edits=(), status="unchanged"
    )
    shared = torch.arange(8.0).reshape(4, 2).T[:, ::2]
    for repair in (nothing, small(edits=(edit(before=shared, after=shared),))):
        save_repair(repair, tmp_path / "a")
        assert content(load_repair(tmp_path / "a")) == content(repair)


def test_equal_repairs_give_equal_files(path) -> None:
    again = path.with_name("again")
    save_repair(load_repair(path), again)
    assert again.read_bytes() == path.read_bytes()


def test_every_changed_bit_of_the_numbers_is_found(path) -> None:
    everything = path.read_bytes()
    _, data = parts(path)
    for position in range(len(everything) - len(data), len(everything)):
        for bit in range(8):
            changed = bytearray(everything)
            changed[position] ^= 1 << bit
            path.write_bytes(changed)
            with pytest.raises(ValueError, match="its tensors do not have their checksum"):
                load_repair(path)


@settings(max_examples=300)
@given(share=st.floats(0, 1, exclude_max=True), mask=st.integers(1, 255))
def test_no_changed_byte_gives_another_repair(tmp_path_factory, share, mask) -> None:
    path = tmp_path_factory.getbasetemp() / "flipped"
    save_repair(small(), path)
    changed = bytearray(path.read_bytes())
    changed[int(share * len(changed))] ^= mask
    path.write_bytes(changed)
    # A few changes say the same in other characters, such as e for E in a number.
    try:
        loaded = load_repair(path)
    except ValueError as error:
        assert str(error).startswith(f"path: {path}")  # noqa: PT017
    else:
        assert content(loaded) == content(small())


@pytest.mark.parametrize("length", [0, 4, 8, 50, -1])
def test_a_truncated_file_is_refused(path, length) -> None:
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match="is damaged or no safetensors file"):
        load_repair(path)


def test_other_kinds_of_files_are_refused(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="path: there is no file"):
        load_repair(tmp_path / "none")
    save_network(network(), tmp_path / "network")
    save_file({"factors": torch.ones(2)}, tmp_path / "plain")
    for name in ("network", "plain"):
        with pytest.raises(ValueError, match=r"no description of a repair; .* save_repair"):
            load_repair(tmp_path / name)
    (tmp_path / "text").write_text("a repair")
    with pytest.raises(ValueError, match="is damaged or no safetensors file"):
        load_repair(tmp_path / "text")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "has no readable description"),
        ("[]" + " " * 1_000_001, "longer than 1000000 characters"),
        ("[]", "description of version None; allowed: 1"),
        (seal({"version": 2}, "x"), "description of version 2; allowed: 1"),
        (seal({"version": 1}, "x"), "its description does not have its checksum"),
    ],
)
def test_an_unreadable_description_is_refused(path, text, message) -> None:
    tensors, _ = read_tensors(path)
    write_tensors(path, tensors, {KEY: text})
    with pytest.raises(ValueError, match=message):
        load_repair(path)


def test_a_changed_description_is_found(path) -> None:
    tensors, metadata = read_tensors(path)
    assert '"by hand"' in metadata[KEY]
    write_tensors(path, tensors, {KEY: metadata[KEY].replace('"by hand"', '"care"')})
    with pytest.raises(ValueError, match="its description does not have its checksum"):
        load_repair(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d, t: d.update(seed=True), "its seed is True; allowed: int"),
        (lambda d, t: d.update(seconds="1"), "its seconds is '1'; allowed: float"),
        (lambda d, t: d.update(seconds=-1.0), "its seconds are -1.0"),
        (lambda d, t: d.update(method=None), "its method is None; allowed: str"),
        (lambda d, t: d.update(network="A" * 64), "allowed: a fingerprint, 64 hex digits"),
        (lambda d, t: d.update(status=""), "its status is ''; allowed: improved, unchanged"),
        (lambda d, t: d.update(before=[0.5]), "its before has 1 entries; allowed: 2"),
        (lambda d, t: d.update(after=[0.5, 1.5]), "a rate of 1.5; allowed: 0 to 1"),
        (lambda d, t: d.update(after=[float("nan"), 0.5]), "a rate of nan"),
        (lambda d, t: d.update(neurons=[["relu1", 3]]), "2 factors for 1 neurons"),
        (lambda d, t: d.update(neurons=[["a", 3], ["a", 3]]), "neurons repeat"),
        (lambda d, t: d.update(neurons=[["a", -1], ["a", 3]]), "negative indices"),
        (lambda d, t: d.update(neurons={"a": 1}), "its neurons is {'a': 1}; allowed: list"),
        (lambda d, t: d["edits"][0].pop(), "its edit0 has 2 entries; allowed: 3"),
        (lambda d, t: d["edits"][0].__setitem__(1, 2), "counts along axis 2; allowed: 0 to 1"),
        (lambda d, t: d["edits"][0].__setitem__(2, [1]), "2 slices for 1 indices"),
        (lambda d, t: d["edits"][0].__setitem__(2, [1, 1]), "repeated or negative indices"),
        (lambda d, t: d["edits"][0].__setitem__(2, [1, "3"]), "edit0.indices is '3'"),
        (lambda d, t: d["edits"].clear(), "not those it describes: edit0.after, edit0.before"),
        (lambda d, t: t.pop("history"), "not those it describes: history"),
        (lambda d, t: t.update(more=torch.ones(1)), "not those it describes: more"),
        (lambda d, t: t.update(factors=torch.ones(1, 2)), "its factors has 2 axes; allowed: 1"),
        (lambda d, t: t.update(factors=torch.ones(2).int()), "its factors is torch.int32"),
        (lambda d, t: t.update({"edit0.after": torch.ones(2, 3)}), r"by torch.float32 .*\(2, 3\)"),
        (lambda d, t: t.update({"edit0.after": torch.ones(2, 2).half()}), "by torch.float16"),
    ],
)
def test_a_forged_file_that_contradicts_itself_is_refused(path, change, message) -> None:
    forge(path, change)
    with pytest.raises(ValueError, match=f"^path: .* holds no sound repair: .*{message}"):
        load_repair(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"factors": torch.ones(3)}, "repair: contradicts itself, it has 3 factors for 2 neurons"),
        ({"seconds": float("inf")}, "its seconds are inf"),
        ({"after": Performance(accuracy=1.2, violation_rate=0.0)}, "a rate of 1.2"),
        ({"repaired": "0" * 63}, "its repaired is .*64 hex digits"),
        ({"status": "done"}, "its status is 'done'; allowed: improved, unchanged"),
        ({"edits": (edit(axis=-1),)}, "counts along axis -1"),
        ({"edits": (edit(indices=(1,)),)}, "2 slices for 1 indices"),
    ],
)
def test_what_contradicts_itself_is_not_written(tmp_path, change, message) -> None:
    with pytest.raises(ValueError, match=message):
        save_repair(small(**change), tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("where", "step"), [(os, "fsync"), (Path, "replace")])
def test_a_file_is_replaced_whole_or_not_at_all(path, monkeypatch, where, step) -> None:
    before = path.read_bytes()

    def fail(*arguments):
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(where, step, fail)
        with pytest.raises(OSError, match="disk full"):
            save_repair(small(seed=1), path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    with pytest.raises(FileNotFoundError):
        save_repair(small(), path.parent / "missing" / "a")
