from copy import deepcopy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from carelab.networks import cnn, hidden_neurons
from carelab.repair import edited_share, edits_between, weight_space
from tests.tables import network, seeded


def changed_by(entries) -> tuple:
    """A 4-6-5-3-2 network and a copy in which the entries (parameter, index) differ."""
    model = network()
    changed = deepcopy(model)
    with torch.no_grad():
        for name, index in entries:
            changed.get_parameter(name)[index] += 1
    return model, changed


@pytest.mark.parametrize(
    ("entries", "neurons"),
    [
        ([], 0),
        ([("linear1.weight", (2, 0)), ("linear1.weight", (2, 3))], 1),  # one row of the inputs
        ([("linear2.bias", 1), ("linear2.weight", (1, 4))], 1),  # a bias and its row
        ([("linear2.weight", (0, 3)), ("linear2.weight", (4, 3))], 1),  # one column
        ([("linear2.weight", (0, 3)), ("linear2.weight", (4, 1))], 2),  # neither row nor column
        ([("linear4.weight", (1, 2)), ("linear4.bias", 0)], 1),  # outputs are no hidden neurons
        # A row of linear2 and a column of linear3 meet in the neuron relu2[1].
        ([("linear2.weight", (1, 0)), ("linear3.weight", (0, 1)), ("linear3.weight", (2, 1))], 1),
    ],
)
def test_by_hand(entries, neurons) -> None:
    assert edited_share(*changed_by(entries)) * 14 == pytest.approx(neurons)


@given(st.sets(st.integers(0, 13), min_size=1, max_size=6), st.booleans(), st.booleans())
def test_never_more_than_the_neurons_that_were_edited(numbers, incoming, outgoing) -> None:
    if not incoming and not outgoing:
        incoming = True
    model = network()
    neurons = [hidden_neurons(model)[number] for number in sorted(numbers)]
    space = weight_space(model, neurons, incoming=incoming, outgoing=outgoing)
    changed = deepcopy(model)
    changed.load_state_dict({**model.state_dict(), **space.parameters(space.start + 1)})
    share = edited_share(model, changed) * 14
    assert share <= len(neurons) + 1e-9
    if incoming:  # each bias forces its neuron
        assert share == pytest.approx(len(neurons))


def test_edits_lead_from_one_network_to_the_other() -> None:
    model, changed = changed_by([("linear2.weight", (0, 3)), ("linear1.bias", 5)])
    edits = edits_between(model, changed)
    assert [(edit.parameter, edit.indices) for edit in edits] == [
        ("linear1.bias", (5,)),
        ("linear2.weight", (0,)),
    ]


def test_misuse() -> None:
    with pytest.raises(ValueError, match="other layers than model"):
        edited_share(network(), network(widths=(6, 5)))
    model = cnn((1, 8, 8), (3, 4), (5,), 2, generator=seeded())
    with pytest.raises(ValueError, match="has convolutions"):
        edited_share(model, model)
    with pytest.raises(ValueError, match="other parameters than model"):
        edits_between(network(), network(widths=(6, 5)))
