from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn

from carelab.causal.recording import run_recording
from carelab.causal.suffixes import suffix_runner, unread_units
from carelab.networks import feature_positions, mlp
from carelab.networks.architectures import seeded as seeded_layers
from carelab.networks.layers import ACTIVATIONS
from carelab.records import Neuron, Unit, WholeLayer
from tests.reference.effects import run_replaced
from tests.tables import seeded

PROBES, BATCH, STEPS = 2, 3, 2


def chain(*modules: nn.Module) -> nn.Sequential:
    """The modules in a row, named a, b, c, ..., with normalisations that do something."""
    generator = seeded(3)
    for module in modules:
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor in (module.running_mean, module.weight, module.bias):
                if tensor is not None:
                    tensor.data = torch.randn(tensor.shape, generator=generator)
            module.running_var = 0.5 + torch.rand(module.running_var.shape, generator=generator)
    return nn.Sequential(OrderedDict(zip("abcdefghijk", modules, strict=False))).double().eval()


def fully_connected() -> dict[str, nn.Sequential]:
    with seeded_layers(seeded(1)):
        networks = {
            "normalised": chain(
                nn.Linear(4, 5),
                nn.BatchNorm1d(5),
                nn.ReLU(),
                nn.Dropout(),
                nn.Linear(5, 4, bias=False),
                nn.BatchNorm1d(4, affine=False),
                nn.Tanh(),
                nn.Linear(4, 2),
            ),
            "rectified twice": chain(
                nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3, bias=False)
            ),
            "in place": chain(nn.Linear(4, 3), nn.ReLU(inplace=True), nn.Linear(3, 2)),
            "other ends": chain(
                nn.Linear(4, 5), nn.GELU(), nn.Linear(5, 3), nn.LayerNorm(3), nn.Softmax(dim=1)
            ),
            "nothing linear after": chain(nn.Linear(4, 3), nn.Sigmoid()),
        }
        for kind in ACTIVATIONS:
            networks[kind.__name__] = chain(
                nn.Linear(4, 5), kind(), nn.Linear(5, 4), kind(), nn.Linear(4, 2)
            )
    return networks


def convolutional() -> dict[str, nn.Sequential]:
    with seeded_layers(seeded(2)):
        return {
            "NN5 in small": chain(
                nn.Conv2d(2, 3, 3, padding=1),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.Conv2d(3, 4, 3, padding=1),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.Flatten(),
                nn.Linear(16, 5),
                nn.ReLU(),
                nn.Linear(5, 3),
            ),
            "three convolutions": chain(
                nn.Conv2d(2, 3, 3, stride=2, padding=1),
                nn.LeakyReLU(0.3),
                nn.Conv2d(3, 4, (3, 1), dilation=(1, 2), padding="same"),
                nn.Tanh(),
                nn.Conv2d(4, 2, 2, bias=False, padding="valid"),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
            ),
            "normalised": chain(
                nn.Conv2d(2, 3, 3),
                nn.BatchNorm2d(3),
                nn.Sigmoid(),
                nn.AvgPool2d(2),
                nn.Dropout2d(),
                nn.Conv2d(3, 2, 2, dilation=2, padding=1),
                nn.BatchNorm2d(2),
                nn.Flatten(),
                nn.GELU(),
                nn.Linear(18, 3),
            ),
            "windows at the edge": chain(
                nn.Conv2d(2, 3, 3),
                nn.MaxPool2d(3, stride=2, padding=1),
                nn.Conv2d(3, 3, 2, padding=1),
                nn.AvgPool2d(2, stride=1, padding=1),
                nn.MaxPool2d(2, stride=3, ceil_mode=True),
                nn.ELU(),
                nn.Flatten(),
                nn.Linear(12, 2),
            ),
            "overlapping windows": chain(
                nn.Conv2d(2, 3, 3),
                nn.MaxPool2d(3, stride=1),
                nn.Conv2d(3, 3, 2),
                nn.MaxPool2d((2, 1), stride=(1, 2)),
                nn.Flatten(),
                nn.Linear(12, 2),
            ),
            "groups and other padding": chain(
                nn.Conv2d(2, 4, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(4, 4, 3, padding=1, groups=2),
                nn.ReLU(),
                nn.Conv2d(4, 2, 3, padding=1, padding_mode="circular"),
                nn.AdaptiveMaxPool2d((2, 1)),
                nn.Flatten(),
                nn.BatchNorm1d(4),
                nn.Linear(4, 2),
            ),
        }


def compare(model: nn.Sequential, layer: str, units: list[Unit], inputs: Tensor) -> None:
    """Logits under replacement equal the reference, for constants and values of each row."""
    recorded, _ = run_recording(model, inputs, [layer])
    before = recorded[layer].unflatten(0, (PROBES, BATCH))
    shape = before[(0, 0, *units[0].place)].shape
    with torch.inference_mode():
        run = suffix_runner(model, layer)(before)
        constants = torch.randn(len(units), STEPS, dtype=torch.float64, generator=seeded(4))
        each = torch.randn(
            (len(units), STEPS, PROBES, BATCH, *shape), dtype=torch.float64, generator=seeded(5)
        )
        held, replaced = run(units, constants), run(units, each)
    rows = inputs.unflatten(0, (PROBES, BATCH))
    for number, unit in enumerate(units):
        for step in range(STEPS):
            for probe in range(PROBES):
                for sample in range(BATCH):
                    row = rows[probe, sample]
                    for fast, value in (
                        (held, constants[number, step]),
                        (replaced, each[number, step, probe, sample]),
                    ):
                        slow = run_replaced(model, row, layer, unit.place, value)
                        torch.testing.assert_close(
                            fast[number, step, probe, sample], slow, rtol=0, atol=1e-10
                        )


@pytest.mark.parametrize(("name", "model"), fully_connected().items(), ids=fully_connected())
def test_neurons_and_whole_layers_equal_the_slow_reference(name: str, model: nn.Sequential) -> None:
    inputs = torch.randn(PROBES * BATCH, 4, dtype=torch.float64, generator=seeded())
    for layer, _ in list(model.named_children())[:-1]:
        width = run_recording(model, inputs, [layer])[0][layer].shape[1]
        compare(model, layer, [Neuron(layer, index) for index in range(width)], inputs)
        compare(model, layer, [WholeLayer(layer)], inputs)


@pytest.mark.parametrize(("name", "model"), convolutional().items(), ids=convolutional())
def test_channels_and_positions_equal_the_slow_reference(name: str, model: nn.Sequential) -> None:
    inputs = torch.randn(PROBES * BATCH, 2, 8, 8, dtype=torch.float64, generator=seeded())
    for layer, _ in list(model.named_children())[:-1]:
        output = run_recording(model, inputs, [layer])[0][layer]
        compare(model, layer, [Neuron(layer, i) for i in range(output.shape[1])][:3], inputs)
        compare(model, layer, [WholeLayer(layer)], inputs)
        if output.ndim == 4:
            positions = feature_positions(model, layer, (2, 8, 8))
            compare(model, layer, list(positions[:: -(-len(positions) // 3)]), inputs)


def test_passes_are_cut_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("carelab.causal.samples_last._NUMBERS_A_PASS", {"cpu": 1})
    monkeypatch.setattr("carelab.causal.samples_last._FEWEST_ROWS", 4)
    inputs = torch.randn(PROBES * BATCH, 4, dtype=torch.float64, generator=seeded())
    for name in ("rectified twice", "normalised"):
        model = fully_connected()[name]
        compare(model, "a", [Neuron("a", index) for index in range(5)], inputs)
    images = torch.randn(PROBES * BATCH, 2, 8, 8, dtype=torch.float64, generator=seeded())
    model = convolutional()["NN5 in small"]
    compare(model, "b", [Neuron("b", index) for index in range(3)], images)
    compare(model, "b", [WholeLayer("b")], images)
    compare(model, "f", list(feature_positions(model, "f", (2, 8, 8))), images)


def test_a_weight_that_reads_a_unit_is_found() -> None:
    model = convolutional()["NN5 in small"]
    with torch.no_grad():
        model.d.weight[:, 1] = 0  # channel 1 of a, b, c
        model.h.weight[:, 4:8] = 0  # channel 1 of d, e, f, of which each pooled number is read
        model.h.weight[:, 9] = 0  # position (0, 1) of channel 2
        model.j.weight[:, 3] = 0
    shapes = {"b": (3, 8, 8), "d": (4, 4, 4), "f": (4, 2, 2), "g": (16,), "i": (5,)}
    expected = {
        Neuron("b", 0): False,
        Neuron("b", 1): True,
        Neuron("b", 1, (7, 7)): True,
        WholeLayer("b"): False,
        Neuron("d", 1): True,
        Neuron("d", 2): False,
        Neuron("d", 2, (0, 2)): False,  # pooled into a number that is not read: not looked into
        Neuron("f", 1): True,
        Neuron("f", 2, (0, 1)): True,
        Neuron("f", 2, (0, 0)): False,
        Neuron("g", 9): True,
        Neuron("g", 8): False,
        Neuron("i", 3): True,
        Neuron("i", 0): False,
    }
    assert dict(zip(expected, unread_units(model, list(expected), shapes), strict=True)) == expected


def test_an_unknown_layer_is_refused() -> None:
    with pytest.raises(ValueError, match="layer: got 'relu9'"):
        suffix_runner(mlp(2, (3,), 2, generator=seeded()), "relu9")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("layer", ["b", "d", "f"])
def test_a_gpu_gives_the_same(layer: str) -> None:
    model = convolutional()["NN5 in small"]
    inputs = torch.randn(PROBES * BATCH, 2, 8, 8, dtype=torch.float64, generator=seeded())
    values = torch.randn(3, STEPS, dtype=torch.float64, generator=seeded())
    logits = []
    for device in ("cpu", "cuda"):
        recorded, _ = run_recording(model.to(device), inputs.to(device), [layer])
        before = recorded[layer].unflatten(0, (PROBES, BATCH))
        with torch.inference_mode():
            run = suffix_runner(model, layer)(before)
            for place in ((), (0, 1)):
                units = [Neuron(layer, index, place) for index in range(3)]
                logits.append(run(units, values.to(device)).cpu())
    torch.testing.assert_close(logits[2:], logits[:2], rtol=0, atol=1e-10)
