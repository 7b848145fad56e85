from __future__ import annotations

from pathlib import Path

import pytest
import torch

from carelab import data
from carelab.data import PatchTrigger, SinusoidTrigger
from carelab.lab import backdoor_cases, folders
from carelab.lab.backdoor_cases import ATTACKS, BackdoorCase, backdoor_case
from carelab.lab.trained import network_key
from carelab.networks import fingerprint, hidden_layers, paper_network
from tests.tables import seeded


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where trained networks are kept, away from the checkout."""
    monkeypatch.setattr(folders, "resolve", lambda name: tmp_path / name)
    return tmp_path / ".runs" / "networks"


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cases without training: what is asked is what they hold, not what they learned."""
    network = paper_network("digits", generator=seeded())
    monkeypatch.setattr(backdoor_cases, "cached_network", lambda build, describes: network)


def test_a_case_is_trained_once_and_then_read(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = backdoor_case("digits", epochs=1)
    assert len(list(kept.iterdir())) == 1

    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("trained again")

    with monkeypatch.context() as patch:
        patch.setattr(backdoor_cases, "fit", refuse)
        again = backdoor_case("digits", epochs=1)
        with pytest.raises(AssertionError, match="trained again"):
            backdoor_case("digits", epochs=1, seed=1)
    assert fingerprint(first.model) == fingerprint(again.model)
    assert torch.equal(first.dataset.test.inputs, again.dataset.test.inputs)
    assert not first.model.training


def test_what_is_described_decides_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    keys: list[str] = []
    network = paper_network("digits", generator=seeded())

    def note(build: object, describes: dict[str, object]) -> torch.nn.Module:
        keys.append(network_key(describes))
        return network

    monkeypatch.setattr(backdoor_cases, "cached_network", note)
    for options in (
        {},
        {"attack": "blend"},
        {"attack": "warp"},
        {"attack": "all-to-all"},
        {"activation": "gelu"},
        {"seed": 1},
        {"epochs": 2},
    ):
        backdoor_case("digits", **options)
    assert len(set(keys)) == len(keys)
    backdoor_case("digits")
    assert keys[-1] == keys[0]


@pytest.mark.usefixtures("untrained")
def test_attacks_by_name() -> None:
    cases = {name: backdoor_case("digits", name) for name in ATTACKS}
    attacks = {name: case.attack for name, case in cases.items()}
    assert [attacks[name].target for name in ATTACKS] == [3, 3, 3, 3, None, 3]
    assert [attacks[name].clean_label for name in ATTACKS] == [
        name == "sinusoid" for name in ATTACKS
    ]
    assert attacks["none"].rate == 0
    patch = attacks["badnets"].trigger
    assert isinstance(patch, PatchTrigger)
    # Two by two white pixels in the lower right corner.
    assert (patch.row, patch.column, patch.pattern.tolist()) == (6, 6, [[[1.0, 1], [1, 1]]])
    assert isinstance(attacks["sinusoid"].trigger, SinusoidTrigger)
    images = cases["badnets"].dataset.test.inputs[:5]
    for name, attack in attacks.items():
        assert not torch.equal(attack.trigger(images), images), name


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("attack", ["blend", "warp"])
def test_drawn_triggers_are_the_same_for_every_network(attack: str) -> None:
    images = data.digits(generator=seeded()).test.inputs[:5]
    one, two = (backdoor_case("digits", attack, seed=seed).attack.trigger for seed in (0, 1))
    assert torch.equal(one(images), two(images))


@pytest.mark.usefixtures("untrained")
def test_the_seed_decides_the_split() -> None:
    one, two = (backdoor_case("digits", seed=seed) for seed in (0, 1))
    assert isinstance(one, BackdoorCase)
    assert not torch.equal(one.dataset.train.inputs, two.dataset.train.inputs)


@pytest.mark.parametrize(
    ("activation", "kind"),
    [("relu", torch.nn.ReLU), ("sigmoid", torch.nn.Sigmoid), ("gelu", torch.nn.GELU)],
)
def test_every_hidden_activation_is_the_one_asked_for(
    activation: str, kind: type[torch.nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backdoor_cases, "fit", lambda start, *rest, **options: start)
    monkeypatch.setattr(backdoor_cases, "cached_network", lambda build, describes: build())
    model = backdoor_case("digits", activation=activation).model
    assert len(hidden_layers(model)) == 3
    assert all(type(model.get_submodule(name)) is kind for name in hidden_layers(model))


def test_misuse() -> None:
    with pytest.raises(ValueError, match="dataset: got 'imagenet'; allowed: digits, mnist"):
        backdoor_case("imagenet")
    with pytest.raises(ValueError, match="attack: got 'patch'; allowed: badnets, blend"):
        backdoor_case("digits", "patch")
    with pytest.raises(ValueError, match="activation: got 'cosine'; allowed: relu, sigmoid, gelu"):
        backdoor_case("digits", activation="cosine")
