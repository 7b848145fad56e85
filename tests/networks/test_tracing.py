import pytest
import torch
from torch import nn
from torch.nn import functional as F

from carelab.networks import as_sequential, hidden_layers, mlp, ordered_modules, width


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def names(model):
    return [name for name, _ in ordered_modules(model)]


class Reused(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 2)
        self.relu, self.drop = nn.ReLU(), nn.Dropout(0.5)

    def forward(self, x):
        x = self.drop(self.relu(self.fc1(x)))
        x = self.drop(self.relu(self.fc2(x)))
        return self.relu(self.fc3(x))


class Image(nn.Module):
    """The usual small network for images; `flat` is how it flattens the map."""

    def __init__(self, flat):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU())
        self.conv2, self.fc1, self.fc2 = nn.Conv2d(3, 4, 2), nn.Linear(16, 6), nn.Linear(6, 3)
        self.flat = flat

    def forward(self, x):
        x = F.max_pool2d(self.features(x), 2)
        x = F.avg_pool2d(F.relu(self.conv2(x), inplace=True), kernel_size=2, stride=1, padding=1)
        x = F.adaptive_avg_pool2d(x, (2, 2)).contiguous()
        x = F.dropout(torch.tanh(self.fc1(self.flat(x))), 0.5, training=self.training)
        return F.log_softmax(self.fc2(x), dim=1)


FLATTENINGS = {
    "flatten": lambda x: torch.flatten(x, 1),
    "method": lambda x: x.flatten(start_dim=1),
    "view": lambda x: x.view(x.size(0), -1),
    "reshape": lambda x: x.reshape(x.shape[0], -1),
    "size": lambda x: x.view(x.size()[0], 16),
    "function": lambda x: torch.reshape(x, (x.size(0), -1)),
    "open": lambda x: x.view(-1, 16),
    "tuple": lambda x: x.view((-1, 16)),
}

ACTIVATIONS = [
    F.relu,
    F.relu6,
    lambda x: F.leaky_relu(x, 0.3),
    lambda x: F.elu(x, alpha=0.5),
    F.selu,
    F.gelu,
    lambda x: F.gelu(x, approximate="tanh"),
    F.silu,
    F.mish,
    F.sigmoid,
    F.tanh,
    lambda x: F.softplus(x, 2.0),
    F.softsign,
    lambda x: F.hardtanh(x, -0.5, 0.25),
    F.hardswish,
    torch.relu,
    torch.sigmoid,
    torch.tanh,
    lambda x: x.relu(),
    lambda x: x.sigmoid(),
    lambda x: x.tanh(),
]


class Between(nn.Module):
    """Two linear layers with any step in between."""

    def __init__(self, step):
        super().__init__()
        self.first, self.last, self.step = nn.Linear(4, 4), nn.Linear(4, 2), step

    def forward(self, x):
        return self.last(self.step(self.first(x)))


def test_a_module_called_several_times_becomes_several_and_parameters_are_shared() -> None:
    model = Reused().eval()
    chain = as_sequential(model)
    assert names(chain) == ["fc1", "relu", "drop", "fc2", "relu_1", "drop_1", "fc3", "relu_2"]
    assert hidden_layers(chain) == ("relu", "relu_1")
    inputs = torch.randn(9, 4, generator=generator())
    assert torch.equal(chain(inputs), model(inputs))
    assert chain.fc1.weight is model.fc1.weight
    with torch.no_grad():
        model.fc2.bias += 1
    assert torch.equal(chain(inputs), model(inputs))


@pytest.mark.parametrize("flat", FLATTENINGS)
def test_functions_become_modules_that_compute_the_same_bits(flat) -> None:
    torch.manual_seed(0)
    model = Image(FLATTENINGS[flat])
    model.features[1].running_mean.uniform_()
    model.eval()
    chain = as_sequential(model)
    inputs = torch.randn(5, 1, 8, 8, generator=generator())
    assert torch.equal(chain(inputs), model(inputs))
    kinds = [type(module).__name__ for _, module in ordered_modules(chain)]
    assert kinds == [
        *("Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d", "Conv2d", "ReLU", "AvgPool2d"),
        *("AdaptiveAvgPool2d", "Flatten", "Linear", "Tanh", "Linear", "LogSoftmax"),
    ]
    assert names(chain)[:3] == ["features_0", "features_1", "features_2"]
    assert width(chain, "features_2") == 3
    assert not any(module.training for module in chain.modules())


@pytest.mark.parametrize("step", ACTIVATIONS)
def test_every_activation_is_taken_over_with_its_arguments(step) -> None:
    torch.manual_seed(0)
    model = Between(step).eval()
    chain = as_sequential(model)
    inputs = 3 * torch.randn(50, 4, generator=generator())
    assert torch.equal(chain(inputs), model(inputs))
    assert len(hidden_layers(chain)) == 1


def test_a_sequential_network_is_returned_as_it_is() -> None:
    model = mlp(4, (3,), 2, generator=generator())
    assert as_sequential(model) is model


def test_a_sequential_network_that_repeats_a_module_gets_a_name_for_each_call() -> None:
    relu = nn.ReLU()
    model = nn.Sequential(nn.Linear(2, 3), relu, nn.Linear(3, 3), relu, nn.Linear(3, 2)).eval()
    chain = as_sequential(model)
    assert names(chain) == ["0", "1", "2", "1_1", "4"]
    assert len(set(map(id, chain))) == 5
    inputs = torch.randn(5, 2, generator=generator())
    assert torch.equal(chain(inputs), model(inputs))


def test_names_that_a_sequential_cannot_have_get_a_number() -> None:
    class Clashing(nn.Module):
        def __init__(self):
            super().__init__()
            self.append, self.append_1 = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.append_1(self.append(x))

    chain = as_sequential(Clashing().eval())
    assert names(chain) == ["append_1", "append_1_1"]
    assert chain(torch.zeros(1, 4)).shape == (1, 2)


def test_unused_branches_and_unused_arguments_do_not_matter() -> None:
    class Spare(Between):
        def forward(self, x, mask=None):
            self.last(x)
            return super().forward(x)

    model = Spare(torch.tanh).eval()
    inputs = torch.randn(5, 4, generator=generator())
    assert torch.equal(as_sequential(model)(inputs), model(inputs))
    assert names(as_sequential(model)) == ["first", "tanh", "last"]


class Residual(Between):
    def forward(self, x):
        hidden = self.first(x)
        return self.last(hidden + torch.relu(hidden))


class Twice(Between):
    def forward(self, x):
        return self.last(self.first(self.first(x)))


class TwoInputs(Between):
    def forward(self, x, y):
        return self.last(x * y)


class Deciding(Between):
    def forward(self, x):
        return self.last(x if x.sum() > 0 else -x)


class Pair(Between):
    def forward(self, x):
        return self.first(x), self.last(x)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Residual(None), "node add .* has no sequential form: it is no step of a chain"),
        (Twice(None), "node first_1 .* a module with weights may be called only once"),
        (TwoInputs(None), "node y "),
        (Deciding(None), "the forward of Deciding cannot be traced"),
        (Pair(None), "node (last|output) "),
        (Between(lambda x: x * 0.5), "node mul "),
        (Between(lambda x: F.dropout(x, 0.5)), "node dropout .* at random in evaluation mode"),
        (Between(lambda x: torch.flatten(x)), "node flatten .* mixes the samples"),
        (Between(lambda x: x.view(-1, 2)), "node view .* the next Linear takes 4 features"),
        (Between(lambda x: x.view(2, -1)), r"node view .* only \(batch, -1\)"),
        (Between(lambda x: x.view(x.size(1), -1)), r"node view .* only \(batch, -1\)"),
        (Between(lambda x: x.t()), "node t "),
        (Between(lambda x: F.softmax(x, 1, dtype=torch.float64)), "node softmax "),
        (Between(lambda x: F.linear(x, torch.eye(4))), "node linear "),
    ],
)
def test_what_is_no_chain_is_refused_with_the_name_of_the_step(model, message) -> None:
    with pytest.raises(ValueError, match=f"^model: {message}"):
        as_sequential(model.eval())


def test_tracing_leaves_the_module_alone() -> None:
    model = Between(lambda x: F.linear(x, torch.eye(4))).eval()
    before = dict(vars(model))
    with pytest.raises(ValueError, match="node linear"):
        as_sequential(model)
    assert vars(model) == before


def test_a_module_in_training_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="is in training mode"):
        as_sequential(Reused())
    partly = Reused().eval()
    partly.drop.train()
    with pytest.raises(ValueError, match="is in training mode"):
        as_sequential(partly)
