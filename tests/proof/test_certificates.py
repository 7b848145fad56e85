from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from carelab import networks, proof
from carelab.networks.tensorfiles import digest, read_tensors, seal, unseal, write_tensors
from carelab.proof.covering import parts_of
from carelab.properties import OutputRegion, OutputRegions
from tests.proof.small import above_its_least, folded_network

KEY = "carelab_certificate"
# Boxes, not seconds, end a search here, so that a busy machine changes nothing.
LONG = {"seconds": 1e6, "boxes": 5000}
KEYS = ["status", "property", "network", "polytopes", "tensors"]


@pytest.fixture(scope="module")
def model() -> nn.Sequential:
    return folded_network()


def region(model: nn.Module, gap: float, output: int = 0) -> OutputRegion:
    return above_its_least(model, gap, output=output)


@pytest.fixture(scope="module")
def prop(model) -> OutputRegion:
    return region(model, 0.02)


@pytest.fixture(scope="module")
def proved(model, prop) -> proof.Verdict:
    verdict = proof.verify(model, prop, batch_size=16, steps=2, **LONG)
    assert verdict.status == "proved"
    assert verdict.trees[0].leaves > 4
    return verdict


def rewritten(path, change) -> None:
    """Change the tensors of a certificate and seal it again, as a forger would."""
    tensors, metadata = read_tensors(path)
    content = unseal(metadata[KEY], path, version=1, keys=KEYS)
    change(tensors, content)
    write_tensors(path, tensors, {KEY: seal({**content, "tensors": digest(tensors)}, "verdict")})


def test_a_proof_is_checked_from_its_file(model, prop, proved, tmp_path):
    path = tmp_path / "a.safetensors"
    proof.save_certificate(proved, prop, path)
    check = proof.check_certificate(model, prop, path, batch_size=3)
    assert check.status == "proved"
    assert check.parts == proved.trees[0].leaves
    assert check.slack > 0
    first = path.read_bytes()
    proof.save_certificate(proved, prop, path)
    assert path.read_bytes() == first


def test_a_proof_by_phases_of_neurons_is_checked(tmp_path):
    # With 40 inputs only neurons are cut.
    model = networks.mlp(40, (8, 6), 2, generator=torch.Generator().manual_seed(3))
    low, high = -0.2 * torch.ones(40), 0.2 * torch.ones(40)
    bound = proof.output_bounds(proof.affine_chain(model), low[None], high[None])[0][0, :1]
    inputs = torch.rand(5000, 40, generator=torch.Generator().manual_seed(0)) * 0.4 - 0.2
    least = model(inputs).detach()[:, 0].min().double()
    limits = bound + 0.1 * (least - bound)
    prop = OutputRegion(matrix=torch.eye(2).double()[:1], limits=limits, low=low, high=high)
    verdict = proof.verify(model, prop, steps=0, **LONG)
    assert verdict.status == "proved"
    assert bool((verdict.trees[0].split_on >= 40).any())
    path = tmp_path / "a.safetensors"
    proof.save_certificate(verdict, prop, path)
    assert proof.check_certificate(model, prop, path).parts == verdict.trees[0].leaves


def test_a_proof_of_several_polytopes_is_checked(model, tmp_path):
    prop = OutputRegions(regions=(region(model, 0.05), region(model, 0.05, 1)), name="both")
    verdict = proof.verify(model, prop, **LONG)
    proof.save_certificate(verdict, prop, tmp_path / "a.safetensors")
    check = proof.check_certificate(model, prop, tmp_path / "a.safetensors")
    assert check.parts == sum(tree.leaves for tree in verdict.trees)


def test_a_counterexample_is_its_own_certificate(model, tmp_path):
    prop, path = region(model, -0.05), tmp_path / "a.safetensors"
    verdict = proof.verify(model, prop, **LONG)
    assert verdict.status == "refuted"
    proof.save_certificate(verdict, prop, path)
    check = proof.check_certificate(model, prop, path)
    assert (check.status, check.parts) == ("refuted", 0)
    assert check.slack >= 0
    rewritten(path, lambda tensors, _: tensors["counterexample"].add_(5))
    with pytest.raises(ValueError, match="lies in no box of the property, or is safe"):
        proof.check_certificate(model, prop, path)


def drop_leaf(tensors, content):
    tensors["0.split_on"], tensors["0.split_at"] = (
        tensors["0.split_on"][:-1],
        tensors["0.split_at"][:-1],
    )


def add_leaf(tensors, content):
    tensors["0.split_on"] = torch.cat([tensors["0.split_on"], tensors["0.split_on"][-1:]])
    tensors["0.split_at"] = torch.cat([tensors["0.split_at"], tensors["0.split_at"][-1:]])


def cut_outside(tensors, content):
    tensors["0.split_at"][0] = 7.0


def cut_on_nothing(tensors, content):
    tensors["0.split_on"][0] = 2 + 20


def one_leaf(tensors, content):
    tensors["0.split_on"], tensors["0.split_at"] = (
        torch.tensor([-1], dtype=torch.int32),
        torch.zeros(1, dtype=torch.float64),
    )
    for name in ("0.weights", "0.slopes"):
        tensors[name] = tensors[name][:1]


def weigh_nothing(tensors, content):
    tensors["0.weights"].zero_()


def weigh_negatively(tensors, content):
    tensors["0.weights"].neg_()


def drop_values(tensors, content):
    tensors["0.slopes"] = tensors["0.slopes"][:-1]


def drop_box(tensors, content):
    del tensors["0.low"]


def widen_box(tensors, content):
    tensors["0.high"].mul_(0.5)


def other_network(tensors, content):
    content["network"] = "0" * 64


def claim_refuted(tensors, content):
    content["status"] = "refuted"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop_leaf, "not complete: 1 parts of the box are missing"),
        (add_leaf, "complete after"),
        (cut_outside, "cut at 7.0, outside its part"),
        (cut_on_nothing, "which is not there"),
        (one_leaf, "part 0 of polytope 0 is not proved"),
        (weigh_nothing, "with zeros only"),
        (weigh_negatively, "negative numbers"),
        (drop_values, "its dual values are not those of"),
        (drop_box, "0.low is missing"),
        (widen_box, "with other numbers"),
        (other_network, "is about the network 000000000000"),
        (claim_refuted, "counterexample is missing"),
    ],
)
def test_a_forged_certificate_is_refused(model, prop, proved, tmp_path, change, message):
    path = tmp_path / "a.safetensors"
    proof.save_certificate(proved, prop, path)
    rewritten(path, change)
    with pytest.raises(ValueError, match=message):
        proof.check_certificate(model, prop, path)


def test_any_slopes_are_sound_so_a_change_is_found_only_where_it_matters(
    model, prop, proved, tmp_path
):
    path = tmp_path / "a.safetensors"
    proof.save_certificate(proved, prop, path)

    def reverse(tensors, content):
        tensors["0.slopes"] = 255 - tensors["0.slopes"]

    rewritten(path, reverse)
    with pytest.raises(ValueError, match="is not proved, its bound is"):
        proof.check_certificate(model, prop, path)


def test_damage_is_found(model, prop, proved, tmp_path):
    path = tmp_path / "a.safetensors"
    proof.save_certificate(proved, prop, path)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        proof.check_certificate(model, prop, path)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        proof.check_certificate(model, prop, tmp_path / "b.safetensors")


def test_a_certificate_of_another_network_or_property_is_refused(model, prop, proved, tmp_path):
    path = tmp_path / "a.safetensors"
    proof.save_certificate(proved, prop, path)
    other = networks.mlp(2, (10, 10), 2, generator=torch.Generator().manual_seed(5))
    with pytest.raises(ValueError, match="is about the network"):
        proof.check_certificate(other, prop, path)
    with pytest.raises(ValueError, match="with other numbers"):
        proof.check_certificate(model, region(model, 0.01), path)


def test_other_files_and_verdicts_are_refused(model, prop, proved, tmp_path):
    path = tmp_path / "a.safetensors"
    networks.save(model, path)
    with pytest.raises(ValueError, match="is no certificate"):
        proof.load_certificate(path)
    with pytest.raises(ValueError, match="got status 'unknown'"):
        proof.save_certificate(replace(proved, status="unknown"), prop, path)
    with pytest.raises(ValueError, match="the property that was verified"):
        proof.save_certificate(proved, OutputRegions(regions=(prop, prop), name="above"), path)


def test_the_parts_of_a_proof_hold_every_point_of_the_box(proved):
    parts = parts_of(
        proved.trees[0], -torch.ones(2).double().numpy(), torch.ones(2).double().numpy(), 20
    )
    points = torch.rand(500, 1, 2, generator=torch.Generator().manual_seed(0)).numpy() * 2 - 1
    inside = ((parts.low <= points) & (points <= parts.high)).all(axis=2)
    assert bool(inside.any(axis=1).all())
    area = (parts.high - parts.low).prod(axis=1).sum()
    assert area == pytest.approx(4)
