from __future__ import annotations

import logging
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from carelab.lab import backdoor_cases, cached_network, folders, trained
from carelab.lab.backdoor_cases import backdoor_case
from carelab.lab.trained import network_key
from carelab.networks import conv_network, fingerprint, fit, mlp
from carelab.records import Samples


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Attack:
    """A record as a description holds them."""

    trigger: Tensor
    target: int | None
    rate: float


def attack(**change: object) -> Attack:
    return Attack(**{"trigger": torch.ones(2, 2), "target": 3, "rate": 0.1, **change})


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Builder:
    """Makes a small network, and counts how often."""

    def __init__(self, seed: int = 0) -> None:
        self.seed, self.calls = seed, 0

    def __call__(self) -> nn.Module:
        self.calls += 1
        return mlp(3, (4,), 2, generator=generator(self.seed))


def digits_network(seed: int) -> nn.Module:
    images, labels = load_digits(return_X_y=True)
    inputs = torch.tensor(images[:300] / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
    source = generator(seed)
    start = conv_network((1, 8, 8), ("s4", "p"), (8,), 10, generator=source)
    samples = Samples(inputs=inputs, labels=torch.tensor(labels[:300]))
    return fit(start, samples, epochs=2, one_cycle=True, generator=source)


def files(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_a_network_is_trained_once_and_then_read(tmp_path):
    build = Builder()
    first = cached_network(build, {"seed": 0}, folder=tmp_path / "new" / "networks")
    second = cached_network(build, {"seed": 0}, folder=tmp_path / "new" / "networks")
    assert build.calls == 1
    assert fingerprint(first) == fingerprint(second) == fingerprint(Builder()())
    assert not second.training
    assert files(tmp_path / "new" / "networks") == [f"{network_key({'seed': 0})}.safetensors"]


def test_a_fixed_seed_gives_the_same_network_bit_for_bit(tmp_path):
    one, two, other = (
        cached_network(lambda seed=seed: digits_network(seed), {"seed": seed}, folder=folder)
        for seed, folder in ((0, tmp_path / "a"), (0, tmp_path / "b"), (1, tmp_path / "a"))
    )
    assert fingerprint(one) == fingerprint(two) != fingerprint(other)
    assert (tmp_path / "a" / files(tmp_path / "b")[0]).read_bytes() == (
        tmp_path / "b" / files(tmp_path / "b")[0]
    ).read_bytes()


def test_another_description_is_another_network(tmp_path):
    one, other = Builder(0), Builder(1)
    first = cached_network(one, {"seed": 0}, folder=tmp_path)
    second = cached_network(other, {"seed": 1}, folder=tmp_path)
    assert (one.calls, other.calls) == (1, 1)
    assert fingerprint(first) != fingerprint(second)
    assert len(files(tmp_path)) == 2


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied", "replaced"])
def test_a_damaged_file_is_trained_anew_with_a_warning(tmp_path, caplog, damage):
    build = Builder()
    first = cached_network(build, {"seed": 0}, folder=tmp_path)
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    path.write_bytes(
        {
            "cut": content[:-3],
            "flipped": content[:-3] + bytes([content[-3] ^ 1]) + content[-2:],
            "emptied": b"",
            "replaced": b"something else",
        }[damage]
    )
    with caplog.at_level(logging.WARNING, logger="carelab"):
        again = cached_network(build, {"seed": 0}, folder=tmp_path)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"{path.name} is damaged" in caplog.text
    assert "training the network anew" in caplog.text
    assert build.calls == 2
    assert fingerprint(again) == fingerprint(first)
    assert path.read_bytes() == content


def test_a_training_that_fails_leaves_nothing(tmp_path):
    def fail() -> nn.Module:
        raise RuntimeError("diverged")

    with pytest.raises(RuntimeError, match="diverged"):
        cached_network(fail, {"seed": 0}, folder=tmp_path)
    with pytest.raises(ValueError, match="only sequential"):
        cached_network(lambda: nn.Linear(2, 2), {"seed": 0}, folder=tmp_path)
    assert files(tmp_path) == []


def test_two_at_once_leave_one_whole_file(tmp_path):
    together, found, network = threading.Barrier(2, timeout=60), [], Builder()()

    def build() -> nn.Module:
        together.wait()
        return network

    def work() -> None:
        found.append(fingerprint(cached_network(build, {"seed": 0}, folder=tmp_path)))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [fingerprint(network)] * 2
    assert files(tmp_path) == [f"{network_key({'seed': 0})}.safetensors"]


def test_a_folder_that_cannot_be_written_costs_no_training(tmp_path):
    (tmp_path / "file").write_text("")
    build = Builder()
    with pytest.raises(OSError, match="out_dir: cannot write to"):
        cached_network(build, {"seed": 0}, folder=tmp_path / "file" / "networks")
    assert build.calls == 0


def test_the_default_folder_is_the_scratch_folder_of_the_checkout(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(trained, "check_writable", lambda folder: asked.append(folder) or tmp_path)
    cached_network(Builder(), {"seed": 0})
    assert asked == [".runs/networks"]


def test_equal_descriptions_have_one_key_whatever_the_order():
    one = {"seed": 0, "plan": ("c4", "p"), "attack": attack(), "activation": nn.ReLU}
    two = {"activation": nn.ReLU, "attack": attack(), "plan": ["c4", "p"], "seed": 0}
    assert network_key(one) == network_key(two)
    assert len(network_key(one)) == 64


def test_whatever_is_described_decides_the_key():
    descriptions = [
        {},
        {"seed": 0},
        {"seed": "0"},
        {"seed": None},
        {"seed": 1e-3},
        # Not rounded: this differs from the one before in its last digit.
        {"seed": 0.0010000000000000002},
        {"seed": [0]},
        {"seed": {"a": 0}},
        {"seed": nn.ReLU},
        {"seed": nn.GELU},
        {"attack": attack()},
        {"attack": attack(target=None)},
        {"attack": attack(trigger=torch.zeros(2, 2))},
        {"attack": attack(trigger=torch.ones(4))},
        {"attack": attack(trigger=torch.ones(2, 2, dtype=torch.float64))},
        {"attack": {"trigger": torch.ones(2, 2), "target": 3, "rate": 0.1}},
    ]
    assert len({network_key(one) for one in descriptions}) == len(descriptions)


def test_torch_its_threads_and_the_processor_decide_the_key(monkeypatch):
    keys = [network_key({})]
    for place, name, value in (
        (torch, "__version__", "0.0"),
        (torch, "get_num_threads", lambda: 99),
        (torch.backends.cpu, "get_cpu_capability", lambda: "ABACUS"),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(place, name, value)
            keys.append(network_key({}))
    assert len(set(keys)) == 4
    assert network_key({}) == keys[0]


def test_the_sources_that_train_decide_the_key_and_no_others(tmp_path, monkeypatch):
    names = (
        "records.py",
        "networks/training.py",
        "data/images.py",
        "data/adf.py",
        "repair/care.py",
    )
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("one = 1\n")
    monkeypatch.setattr(folders, "_PACKAGE", tmp_path)
    key = network_key({})
    for name in names[3:]:
        (tmp_path / name).write_text("one = 2\n")
        assert network_key({}) == key
    for name in names[:3]:
        (tmp_path / name).write_text("one = 2\n")
        assert network_key({}) != key
        key = network_key({})
    (tmp_path / "data" / "images.py").rename(tmp_path / "data" / "triggers.py")
    assert network_key({}) != key


def test_all_that_runs_in_training_is_among_the_sources(monkeypatch):
    package, used = Path(trained.__file__).parents[1], set()

    def record(frame, event, argument):
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(package):
            used.add(path.relative_to(package).as_posix())

    monkeypatch.setattr(backdoor_cases, "cached_network", lambda build, describes: build())
    sys.setprofile(record)
    try:
        for attack, network in (("warp", "paper"), ("blend", "residual"), ("badnets", "paper")):
            backdoor_case("digits", attack, network=network, activation="sigmoid", epochs=1)
    finally:
        sys.setprofile(None)
    # Where data come from and which recipe trains is in the description, as checksums and values.
    assert used - {"data/registry.py", "lab/backdoor_cases.py"} <= set(trained._SOURCES)
    assert {"networks/training.py", "data/poisoning.py"} <= used
    assert all((package / name).is_file() for name in trained._SOURCES)


@pytest.mark.parametrize(
    ("describes", "message"),
    [
        ({"rate": float("nan")}, "describes: rate is nan; allowed: finite numbers"),
        ({"rate": [0.1, float("inf")]}, r"describes: rate\[1\] is inf"),
        ({"seed": {1: 2}}, "describes: seed is a dict; allowed: texts, numbers"),
        ({"attack": attack(target={1})}, "describes: attack.target is a set"),
        ({"activation": lambda x: x}, "describes: activation is a function"),
    ],
)
def test_what_cannot_be_described_is_refused_before_training(tmp_path, describes, message):
    build = Builder()
    with pytest.raises(ValueError, match=message):
        cached_network(build, describes, folder=tmp_path)
    assert build.calls == 0
