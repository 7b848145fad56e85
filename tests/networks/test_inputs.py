import pytest
import torch
from torch import nn

from carelab.networks import check_inputs, input_features, mlp


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def image_network():
    body = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.MaxPool2d(2))
    return nn.Sequential(body, nn.Flatten(), nn.Linear(12, 2)).eval()


class Summed(nn.Module):
    """No sequence: what it takes cannot be read off."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x):
        return x + self.inner(x)


def test_input_features_are_those_of_a_first_linear_layer() -> None:
    assert input_features(mlp(13, (2,), 2, generator=generator())) == 13
    assert input_features(image_network()) is None
    assert input_features(nn.Sequential(nn.Flatten(), nn.Linear(6, 2))) == 6
    assert input_features(nn.Sequential(nn.ReLU())) is None


@pytest.mark.parametrize(
    ("model", "shape", "message"),
    [
        (
            mlp(13, (2,), 2, generator=generator()),
            (5, 12),
            "got 12 features; this network takes 13",
        ),
        (mlp(13, (2,), 2, generator=generator()), (13,), r"got shape \(batch\); .* \(batch, 13\)"),
        (mlp(13, (2,), 2, generator=generator()), (5, 2, 13), r"shape \(batch, 2, 13\)"),
        (image_network(), (5, 3, 6, 6), "got 3 channels; this network takes 2"),
        (image_network(), (5, 72), r"takes \(batch, 2, height, width\)"),
        (nn.Sequential(nn.Flatten(), nn.Linear(6, 2)), (5, 7, 1), "got 7 features; .* takes 6"),
        (nn.Sequential(nn.Dropout(), nn.Linear(6, 2)), (5, 7), "got 7 features"),
    ],
)
def test_check_inputs_refuses_another_shape(model, shape, message) -> None:
    with pytest.raises(ValueError, match=f"inputs: .*{message}"):
        check_inputs(model, torch.zeros(shape))


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (mlp(13, (2,), 2, generator=generator()), (0, 13)),
        (image_network(), (1, 2, 6, 6)),
        (nn.Sequential(nn.Flatten(), nn.Linear(6, 2)), (5, 1, 2, 3)),
        # Cannot be told without running them.
        (nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(6, 2)), (5, 1, 2, 3)),
        (Summed(), (5, 7)),
    ],
)
def test_check_inputs_lets_pass_what_fits_and_what_cannot_be_told(model, shape) -> None:
    check_inputs(model, torch.zeros(shape))


def test_check_inputs_refuses_another_number_type() -> None:
    model = mlp(3, (2,), 2, generator=generator())
    with pytest.raises(ValueError, match=r"got torch.float64 on cpu; .* torch.float32 on cpu"):
        check_inputs(model, torch.zeros(1, 3, dtype=torch.float64))
    check_inputs(model.double(), torch.zeros(1, 3, dtype=torch.float64))
