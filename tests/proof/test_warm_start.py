from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import nn

from carelab import networks, proof
from carelab.proof.waiting import earlier_parts
from carelab.properties import OutputRegion, OutputRegions
from tests.proof.small import above_its_least, folded_network

# Boxes, not seconds, end a search here, so that a busy machine changes nothing.
LONG = {"seconds": 1e6, "boxes": 5000, "batch_size": 4, "steps": 0}


@pytest.fixture(scope="module")
def model() -> nn.Sequential:
    return folded_network()


def region(model: nn.Module, gap: float, output: int = 1) -> OutputRegion:
    return above_its_least(model, gap, output=output)


@pytest.fixture(scope="module")
def prop(model) -> OutputRegion:
    return region(model, 0.005)


@pytest.fixture(scope="module")
def proved(model, prop) -> proof.Verdict:
    verdict = proof.verify(model, prop, **LONG)
    assert verdict.status == "proved"
    assert verdict.trees[0].leaves > 8
    return verdict


def changed(model: nn.Module, size: float) -> nn.Sequential:
    other = deepcopy(model)
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=noise))
    return other


def test_a_proof_started_from_itself_bounds_its_parts_and_no_more(model, prop, proved, tmp_path):
    again = proof.verify(model, prop, start=proved, **LONG)
    assert again.status == "proved"
    assert again.boxes == proved.trees[0].leaves < proved.boxes
    assert torch.equal(again.trees[0].split_on, proved.trees[0].split_on)
    path = tmp_path / "a.safetensors"
    proof.save_certificate(again, prop, path)
    assert proof.check_certificate(model, prop, path).parts == again.boxes
    from_file = proof.verify(model, prop, start=proof.load_certificate(path), **LONG)
    from_tree = proof.verify(model, prop, start=proved.trees[0], **LONG)
    assert from_file.boxes == from_tree.boxes == again.boxes


def test_a_changed_network_is_proved_from_the_parts_of_the_last_proof(model, proved, tmp_path):
    other = changed(model, 0.01)
    own = region(other, 0.005)
    verdict = proof.verify(other, own, start=proved, **LONG)
    assert verdict.status == "proved"
    assert verdict.trees[0].leaves >= proved.trees[0].leaves
    assert verdict.network == networks.fingerprint(other)
    path = tmp_path / "a.safetensors"
    proof.save_certificate(verdict, own, path)
    assert proof.check_certificate(other, own, path).status == "proved"


def test_an_unfinished_search_goes_on_to_the_same_proof(model, prop, proved):
    first = proof.verify(model, prop, **{**LONG, "boxes": 10})
    assert first.status == "unknown"
    second = proof.verify(model, prop, start=first, **LONG)
    assert second.status == "proved"
    assert torch.equal(second.trees[0].split_on, proved.trees[0].split_on)
    assert torch.equal(second.trees[0].split_at, proved.trees[0].split_at)


def test_what_is_left_is_the_part_of_the_box_that_is_not_proved(model, prop):
    verdict = proof.verify(model, prop, **{**LONG, "boxes": 10})
    (left,) = verdict.left
    assert len(left) == verdict.boxes_left > 0
    area = (left.high - left.low).prod(dim=1).sum() / 4
    assert float(area) == pytest.approx(1 - verdict.share_proved)
    assert bool((left.bound.diff() >= 0).all())
    assert left.phases is None


def test_a_refuted_search_keeps_its_cuts(model, proved):
    wrong = region(model, -0.05)
    verdict = proof.verify(model, wrong, start=proved, **LONG)
    assert verdict.status == "refuted"
    assert proof.verify(model, wrong, start=verdict, **LONG).status == "refuted"
    assert verdict.trees[0].leaves >= proved.trees[0].leaves


def test_several_polytopes_start_from_a_tree_each(model):
    prop = OutputRegions(regions=(region(model, 0.05), region(model, 0.05, 0)), name="both")
    first = proof.verify(model, prop, **LONG)
    again = proof.verify(model, prop, start=first, **LONG)
    assert again.boxes == sum(tree.leaves for tree in first.trees)
    # A tree is missing for the second one: it begins with the whole box.
    partly = replace(first, trees=first.trees[:1])
    assert proof.verify(model, prop, start=partly, **LONG).boxes > again.boxes


def test_cuts_at_neurons_are_taken_up():
    model = networks.mlp(40, (8, 6), 2, generator=torch.Generator().manual_seed(3))
    low, high = -0.2 * torch.ones(40), 0.2 * torch.ones(40)
    bound = proof.output_bounds(proof.affine_chain(model), low[None], high[None])[0][0, :1]
    inputs = torch.rand(5000, 40, generator=torch.Generator().manual_seed(0)) * 0.4 - 0.2
    least = model(inputs).detach()[:, 0].min().double()
    limits = bound + 0.1 * (least - bound)
    prop = OutputRegion(matrix=torch.eye(2).double()[:1], limits=limits, low=low, high=high)
    first = proof.verify(model, prop, **LONG)
    assert first.boxes > 1
    again = proof.verify(model, prop, start=first, neurons=False, **LONG)
    assert (again.status, again.boxes) == ("proved", first.trees[0].leaves)


def test_a_start_is_not_believed(model, proved):
    wrong = region(model, -1e-4)
    tree, values = proved.trees[0], proved.trees[0].values
    forged = proof.DualValues(
        weights=-values.weights,
        slopes=255 - values.slopes,
        multipliers=1e6 * torch.ones(values.slopes.shape),
    )
    start = proof.SplitTree(split_on=tree.split_on, split_at=tree.split_at, values=forged)
    assert proof.verify(model, wrong, start=start, **LONG).status != "proved"
    waiting, _ = earlier_parts(
        start, proof.polytopes(wrong, proof.affine_chain(model))[0], 20, phases=True
    )
    assert bool((waiting.values.weights.sum(dim=1) - 1).abs().max() < 1e-12)
    assert bool((waiting.values.multipliers == 0).all())


def test_a_start_that_does_not_fit_is_refused(model, prop, proved):
    wide = networks.mlp(2, (10, 11), 2, generator=torch.Generator().manual_seed(4))
    with pytest.raises(ValueError, match="start: has values for 20 neurons and 1 rows; allowed"):
        proof.verify(wide, prop, start=proved, **LONG)
    shifted = replace(prop, low=3 * torch.ones(2), high=4 * torch.ones(2))
    with pytest.raises(ValueError, match=r"start: .* outside its part; allowed: cuts of the prop"):
        proof.verify(model, shifted, start=proved, **LONG)
    twice = replace(proved, trees=proved.trees * 2)
    with pytest.raises(ValueError, match="start: has trees of 2 polytopes; allowed: at most"):
        proof.verify(model, prop, start=twice, **LONG)
    tree = proved.trees[0]
    cut = replace(tree, split_on=tree.split_on[:-1], split_at=tree.split_at[:-1])
    with pytest.raises(ValueError, match="start: its tree is not complete"):
        proof.verify(model, prop, start=cut, **LONG)
