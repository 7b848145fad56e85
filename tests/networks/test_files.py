import hashlib
import json
import os
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from carelab.networks import (
    Residual,
    cnn,
    fingerprint,
    load,
    load_into,
    mlp,
    ordered_modules,
    residual_network,
    save,
)
from carelab.networks.kinds import KINDS, build_module, describe_module

KEY = "carelab_network"


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def network():
    return mlp(3, (4,), 2, generator=generator())


def everything():
    """A nested network with arguments that differ from the defaults."""
    body = nn.Sequential(
        nn.Conv2d(2, 4, (3, 2), stride=(1, 2), padding=1, groups=2, bias=False),
        nn.BatchNorm2d(4, eps=1e-3, momentum=None),
        nn.LeakyReLU(0.3),
        nn.MaxPool2d(2, stride=1, ceil_mode=True),
        nn.Conv2d(4, 3, 3, padding="same", padding_mode="circular"),
        nn.ELU(alpha=0.7, inplace=True),
        nn.AvgPool2d((2, 1), count_include_pad=False),
        nn.AdaptiveAvgPool2d((2, None)),
        nn.AdaptiveMaxPool2d(2),
        nn.Dropout2d(0.25),
    )
    tail = (nn.Linear(12, 5), nn.GELU("tanh"), nn.Hardtanh(-0.2, 0.3), nn.Linear(5, 2, bias=False))
    torch.manual_seed(0)
    model = nn.Sequential(body, nn.Flatten(), nn.Dropout(0.1), *tail, nn.Softmax(dim=1)).eval()
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=generator(number)))
        model[0][1].running_var.uniform_(generator=generator())
    return model


def residual():
    return residual_network((1, 8, 8), (2, 3), 2, 3, widths=(4,), generator=generator())


def blocks_in_blocks():
    """Blocks inside a container, and one whose body holds a container and another block."""
    inner = Residual(nn.Sequential(nn.Linear(3, 3), nn.Tanh()))
    body = nn.Sequential(nn.Sequential(nn.Linear(3, 3), nn.GELU("tanh")), inner)
    return nn.Sequential(nn.Linear(3, 3), nn.Sequential(Residual(body)), nn.Linear(3, 2)).eval()


def parts(path):
    """Header and bytes of a safetensors file."""
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def rewrite(path, header, data):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def forge(path, change):
    """Change the description in a file, and give it the checksum that goes with the change."""
    header, data = parts(path)
    description = json.loads(header["__metadata__"][KEY])
    del description["checksum"]
    change(description)
    text = json.dumps(description, sort_keys=True)
    description["checksum"] = hashlib.sha256(text.encode()).hexdigest()
    header["__metadata__"][KEY] = json.dumps(description)
    rewrite(path, header, data)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "network.safetensors"
    save(network(), path)
    return path


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (network, (5, 3)),
        (lambda: mlp(3, (4, 4), 2, activation=nn.Tanh, generator=generator()), (5, 3)),
        (lambda: cnn((1, 8, 8), (2, 3), (4,), 3, generator=generator()), (5, 1, 8, 8)),
        (everything, (5, 2, 9, 9)),
        (residual, (5, 1, 8, 8)),
        (blocks_in_blocks, (5, 3)),
    ],
)
def test_a_network_comes_back_bit_for_bit(build, shape, tmp_path) -> None:
    model = build()
    save(model, tmp_path / "a")
    loaded = load(str(tmp_path / "a"))
    assert repr(loaded) == repr(model)
    assert fingerprint(loaded) == fingerprint(model)
    assert [n for n, _ in ordered_modules(loaded)] == [n for n, _ in ordered_modules(model)]
    inputs = torch.randn(shape, generator=generator())
    assert torch.equal(loaded(inputs), model(inputs))
    assert not any(module.training for module in loaded.modules())
    assert all(parameter.requires_grad for parameter in loaded.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_number_type_and_odd_values_are_kept(dtype, tmp_path) -> None:
    model = network().to(dtype)
    with torch.no_grad():
        model.linear1.bias[:3] = torch.tensor([-0.0, torch.nan, torch.inf])
    save(model, tmp_path / "a")
    assert fingerprint(load(tmp_path / "a")) == fingerprint(model)
    assert load(tmp_path / "a").linear1.weight.dtype == dtype


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_described_and_built_again(kind) -> None:
    given = {"Linear": (2, 3), "Conv2d": (2, 3, 1), "MaxPool2d": (2,), "AvgPool2d": (2,)}
    given |= {"BatchNorm1d": (3,), "BatchNorm2d": (3,), "Softmax": (1,), "LogSoftmax": (1,)}
    given |= {"AdaptiveMaxPool2d": (2,), "AdaptiveAvgPool2d": (2,)}
    module = kind(*given.get(kind.__name__, ()))
    description = json.loads(json.dumps(describe_module("m", module)))
    built = build_module("m", description["kind"], description["arguments"])
    assert type(built) is kind
    assert repr(built) == repr(module)


def test_equal_networks_give_equal_files_and_the_global_random_state_is_left_alone(path) -> None:
    again = path.with_name("again")
    before = torch.get_rng_state()
    save(load(path), again)
    assert again.read_bytes() == path.read_bytes()
    assert torch.equal(torch.get_rng_state(), before)


def test_shared_and_strided_weights_are_written_as_they_are(tmp_path) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3)).eval()
    model[2].weight = model[0].weight
    model[0].bias = nn.Parameter(torch.arange(6.0)[::2])
    model.append(nn.Linear(3, 2))
    model[3].weight = nn.Parameter(torch.randn(3, 2, generator=generator()).T)
    model.eval()
    save(model, tmp_path / "a")
    assert fingerprint(load(tmp_path / "a")) == fingerprint(model)


@pytest.mark.parametrize(("where", "step"), [(os, "fsync"), (Path, "replace")])
def test_a_file_is_replaced_whole_or_not_at_all(path, monkeypatch, where, step) -> None:
    before = path.read_bytes()

    def fail(*arguments):
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(where, step, fail)
        with pytest.raises(OSError, match="disk full"):
            save(mlp(3, (5,), 2, generator=generator()), path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    save(mlp(3, (5,), 2, generator=generator()), path)
    assert load(path).linear1.out_features == 5
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_saving_refuses_what_it_cannot_describe(tmp_path) -> None:
    class Mine(nn.ReLU):
        pass

    target = tmp_path / "a"
    with pytest.raises(
        ValueError, match=r"model: 1 is a Mine, which cannot be described .* Linear"
    ):
        save(nn.Sequential(nn.Linear(2, 2), Mine()), target)
    with pytest.raises(ValueError, match="only sequential"):
        save(nn.Linear(2, 2), target)
    with pytest.raises(ValueError, match=r"model: 0.weight is torch.complex64"):
        save(nn.Sequential(nn.Linear(2, 2, dtype=torch.complex64)), target)
    for wrap in (nn.Sequential, lambda inner: Residual(nn.Sequential(inner))):
        deep = nn.Linear(2, 2)
        for _ in range(40):
            deep = wrap(deep)
        with pytest.raises(ValueError, match="too deeply nested"):
            save(nn.Sequential(deep), target)
    with pytest.raises(ValueError, match=r"model: 0.body.1 is a Mine, .* Hardswish, Residual"):
        save(nn.Sequential(Residual(nn.Sequential(nn.ReLU(), Mine()))), target)
    with pytest.raises(FileNotFoundError):
        save(network(), tmp_path / "missing" / "a")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_and_a_folder_are_named(tmp_path) -> None:
    for missing in (tmp_path / "none", tmp_path):
        with pytest.raises(FileNotFoundError, match=f"path: there is no file {missing}"):
            load(missing)
        with pytest.raises(FileNotFoundError, match="path: there is no file"):
            load_into(network(), missing)


@pytest.mark.parametrize("length", [0, 4, 8, 50, -1])
def test_a_truncated_file_is_refused(path, length) -> None:
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match="is damaged or no safetensors file"):
        load(path)


def test_a_pickle_is_refused_without_being_opened(tmp_path) -> None:
    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "sprung"),))

    torch.save({"a": Trap()}, tmp_path / "a")
    with pytest.raises(ValueError, match="is damaged or no safetensors file"):
        load(tmp_path / "a")
    assert not (tmp_path / "sprung").exists()


def test_every_changed_byte_of_the_weights_is_found(path) -> None:
    header, data = parts(path)
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1
        rewrite(path, header, bytes(changed))
        with pytest.raises(ValueError, match="its weights do not have their fingerprint"):
            load(path)


def test_a_changed_description_is_found(path) -> None:
    header, data = parts(path)
    assert '"ReLU"' in header["__metadata__"][KEY]
    text = header["__metadata__"][KEY].replace('"ReLU"', '"Tanh"').replace('"inplace": false', "")
    header["__metadata__"][KEY] = text
    rewrite(path, header, data)
    with pytest.raises(ValueError, match="its description does not have its checksum"):
        load(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no readable description"),
        ("{", "has no readable description"),
        ("[" * 100_000, "has no readable description"),
        ("[]" + " " * 1_000_001, "longer than 1000000 characters"),
        ("[]", "description of version None; allowed: 1"),
        ('{"version": 2}', "description of version 2; allowed: 1"),
        ('{"version": 1}', "does not have its checksum"),
        ('{"version": 1, "modules": [], "fingerprint": ""}', "does not have its checksum"),
    ],
)
def test_an_unreadable_description_is_refused(path, text, message) -> None:
    header, data = parts(path)
    header["__metadata__"][KEY] = text
    rewrite(path, header, data)
    with pytest.raises(ValueError, match=message):
        load(path)


def entry(position, **change):
    return lambda description: description["modules"][position].update(change)


def argument(position, **change):
    return lambda description: description["modules"][position]["arguments"].update(change)


def added(**module):
    return lambda description: description["modules"].append(module)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(modules={}), "its modules are no list"),
        (lambda d: d["modules"].append(3), "a module needs name, kind and arguments"),
        (entry(1, code="import os"), "a module needs name, kind and arguments"),
        (entry(1, name=7), "a module's name is 7"),
        (entry(1, name="forward"), "names cannot be nested"),
        (entry(1, name="linear1"), "linear1 comes twice"),
        (entry(1, name="linear1.relu"), "linear1 in linear1.relu is a leaf"),
        (entry(1, name="a." * 40 + "a"), "too deeply nested"),
        (entry(1, kind="Bilinear"), "relu1 is of kind 'Bilinear'; allowed: Linear, Conv2d"),
        (entry(1, kind="os.system"), "of kind 'os.system'"),
        (entry(1, kind=["ReLU"]), "of kind"),
        (entry(1, arguments=[]), "relu1 has no arguments by name"),
        (entry(1, arguments={}), "has arguments none; allowed: inplace"),
        (argument(1, device="cuda"), "has arguments device, inplace; allowed: inplace"),
        (argument(1, inplace=1), "inplace = 1, out of range"),
        (argument(0, in_features=-3), "in_features = -3, out of range"),
        (argument(0, in_features=True), "in_features = True, out of range"),
        (argument(0, in_features=2.5), "in_features = 2.5, out of range"),
        (argument(0, in_features="3"), "in_features = '3', out of range"),
        (argument(0, in_features=[3]), "out of range"),
        (argument(0, in_features=10**30), "out of range"),
        (argument(0, in_features=2**31 - 1, out_features=2**31 - 1), "cannot be built"),
        (argument(0, in_features=10**9), r"linear1.weight with shape \(4, 3\); .* \(4, 1000000000"),
        (argument(0, bias=False), "unknown linear1.bias"),
        (added(name="more", kind="Linear", arguments={}), "has arguments none; allowed: bias"),
        (lambda d: d["modules"].pop(), "missing none; unknown linear2.bias, linear2.weight"),
        (lambda d: d.update(fingerprint="0" * 64), "do not have their fingerprint"),
        (lambda d: d.update(note="x"), "does not have its checksum"),
    ],
)
def test_a_forged_description_cannot_build_anything_else(path, change, message) -> None:
    forge(path, change)
    with pytest.raises(ValueError, match=f"^path: .*{message}"):
        load(path)


def body(change):
    """A change of the first block of the network that `residual` makes."""

    def changed(description):
        (block, *_) = [one for one in description["modules"] if one["kind"] == "Residual"]
        change(block["arguments"])

    return changed


def nested(levels):
    """The body of a block that holds blocks within blocks."""
    entries = []
    for _ in range(levels):
        entries = [{"name": "0", "kind": "Residual", "arguments": {"body": entries}}]
    return entries


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.update(body=3), "its modules in residual1.body are no list"),
        (lambda a: a.update(body=[3]), "a module needs name, kind and arguments"),
        (lambda a: a.update(extra=1), r"residual1 \(Residual\) has arguments body, extra; .* body"),
        (lambda a: a.clear(), r"residual1 \(Residual\) has arguments none; allowed: body"),
        (lambda a: a["body"].pop(), "missing none; unknown residual1.body.conv2.bias"),
        (lambda a: a["body"][0].update(kind="os.system"), "residual1.body.conv1 is of kind"),
        (lambda a: a["body"][0].update(name="relu1"), "names cannot be nested: relu1 comes twice"),
        (
            lambda a: a["body"][0]["arguments"].update(in_channels=0),
            r"residual1.body.conv1 \(Conv2d\) has in_channels = 0, out of range",
        ),
        (lambda a: a.update(body=nested(40)), "too deeply nested"),
    ],
)
def test_a_forged_block_cannot_build_anything_else(tmp_path, change, message) -> None:
    save(residual(), tmp_path / "a")
    forge(tmp_path / "a", body(change))
    with pytest.raises(ValueError, match=f"^path: .*{message}"):
        load(tmp_path / "a")


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("Conv2d", {"kernel_size": [3]}),
        ("Conv2d", {"kernel_size": 10**6}),
        ("Conv2d", {"padding": "huge"}),
        ("Conv2d", {"padding_mode": "other"}),
        ("Conv2d", {"groups": 7}),
        ("Conv2d", {"stride": 0}),
        ("AdaptiveAvgPool2d", {"output_size": [10**6, 1]}),
        ("AdaptiveAvgPool2d", {"output_size": [1, 1, 1]}),
        ("Dropout", {"p": 1.5}),
        ("Hardtanh", {"min_val": 2.0}),
        ("Softplus", {"beta": float("nan")}),
        ("LeakyReLU", {"negative_slope": 10**400}),
        ("GELU", {"approximate": 3}),
        ("Flatten", {"start_dim": 99}),
    ],
)
def test_arguments_out_of_range_build_no_module(kind, change) -> None:
    sound = {"Conv2d": (nn.Conv2d, (2, 4, 3)), "AdaptiveAvgPool2d": (nn.AdaptiveAvgPool2d, (2,))}
    make, given = sound.get(kind, (getattr(nn, kind), ()))
    arguments = describe_module("m", make(*given))["arguments"]
    with pytest.raises(ValueError, match=f"^m .*{kind}"):
        build_module("m", kind, {**arguments, **change})


def test_a_claimed_size_without_bytes_is_refused(path) -> None:
    header, data = parts(path)
    header["linear1.weight"]["shape"] = [10**6, 10**6]
    rewrite(path, header, data)
    with pytest.raises(ValueError, match="is damaged or no safetensors file"):
        load(path)


def test_weights_of_an_integer_type_are_refused(path) -> None:
    header, data = parts(path)
    header["linear1.weight"]["dtype"] = "I32"
    rewrite(path, header, data)
    with pytest.raises(ValueError, match=r"linear1.weight is torch.int32; allowed: torch.float16"):
        load(path)
    header["linear1.weight"] |= {"dtype": "I64", "shape": [2, 3]}
    rewrite(path, header, data)
    with pytest.raises(ValueError, match=r"linear1.weight with shape \(2, 3\)"):
        load(path)


def test_plain_weights_need_a_network_to_go_into(tmp_path) -> None:
    class Branching(nn.Module):
        def __init__(self, seed):
            super().__init__()
            torch.manual_seed(seed)
            self.inner, self.norm = nn.Linear(3, 3), nn.BatchNorm1d(3)

        def forward(self, x):
            return x + self.norm(self.inner(x))

    model, other = Branching(0), Branching(1)
    save_file(model.state_dict(), tmp_path / "a")
    with pytest.raises(ValueError, match=r"no description of a network; .* networks.load_into"):
        load(tmp_path / "a")
    before = fingerprint(other)
    loaded = load_into(other, tmp_path / "a")
    assert fingerprint(loaded) == fingerprint(model) != before
    assert fingerprint(other) == before
    assert not loaded.training


def test_load_into_refuses_weights_of_another_network(path) -> None:
    with pytest.raises(ValueError, match=r"missing linear3.bias, linear3.weight; unknown none"):
        load_into(mlp(3, (4, 4), 2, generator=generator()), path)
    with pytest.raises(ValueError, match=r"linear1.bias with shape \(4,\); .* takes \(5,\)"):
        load_into(mlp(3, (5,), 2, generator=generator()), path)
    with pytest.raises(ValueError, match=r"as torch.float32; this network takes torch.float64"):
        load_into(network().double(), path)


def test_load_into_reads_a_full_network_file_too(path) -> None:
    other = mlp(3, (4,), 2, generator=generator(5))
    assert fingerprint(load_into(other, path)) == fingerprint(network())
