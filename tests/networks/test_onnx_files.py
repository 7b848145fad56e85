from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from carelab.networks import mlp, read_onnx, write_onnx


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _graph_file(
    path: Path,
    nodes: Sequence[tuple[str, Sequence[object], dict[str, object]]],
    shape: Sequence[object],
    *,
    opset: int = 13,
    number_type: int = TensorProto.FLOAT,
    output: str | None = None,
) -> Path:
    """A file of a chain: "." stands for the value so far, an array for a constant."""
    made, constants, value = [], [], "input"
    for number, (kind, operands, attributes) in enumerate(nodes):
        names = []
        for place, operand in enumerate(operands):
            if isinstance(operand, str):
                names.append(value if operand == "." else operand)
            else:
                names.append(f"c{number}_{place}")
                constants.append(numpy_helper.from_array(np.asarray(operand), names[-1]))
        value = f"v{number}"
        made.append(helper.make_node(kind, names, [value], f"node{number}", **attributes))
    graph = helper.make_graph(
        made,
        "test",
        [helper.make_tensor_value_info("input", number_type, shape)],
        [helper.make_tensor_value_info(output or value, number_type, None)],
        constants,
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", opset)])
    path.write_bytes(model.SerializeToString())
    return path


def _run(path: Path, inputs: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options)
    return session.run(None, {session.get_inputs()[0].name: inputs})[0]


def _assert_reads_as_it_runs(path: Path, inputs: np.ndarray, taken: tuple[int, ...]) -> None:
    network = read_onnx(path)
    with torch.no_grad():
        found = network(torch.from_numpy(inputs).reshape(len(inputs), *taken)).numpy()
    np.testing.assert_allclose(found, _run(path, inputs).reshape(found.shape), atol=1e-5, rtol=1e-5)


def _conv_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), groups=2),
        nn.ReLU(),
        nn.Conv2d(6, 3, 3, dilation=2, bias=False),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(3 * 1 * 4, 5, bias=False),
        nn.Identity(),
    ).eval()


def test_a_written_network_is_read_bit_for_bit_and_runs_elsewhere(tmp_path):
    network = mlp(5, (7, 6), 3, generator=_generator())
    path = tmp_path / "a.onnx"
    write_onnx(network, path)
    same = read_onnx(path)
    assert [name for name, _ in same.named_children()] == [
        *("linear1", "relu1", "linear2", "relu2", "linear3")
    ]
    for own, other in zip(network.parameters(), same.parameters(), strict=True):
        assert torch.equal(own, other)
    assert not same.training
    inputs = _random(4, 5)
    with torch.no_grad():
        expected = network(torch.from_numpy(inputs)).numpy()
    np.testing.assert_allclose(_run(path, inputs), expected, atol=1e-6)


def test_the_written_file_says_what_it_takes(tmp_path):
    path = tmp_path / "a.onnx"
    write_onnx(mlp(5, (7,), 3, generator=_generator()), path)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [entry.version for entry in model.opset_import] == [13]
    taken, returned = (
        [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (model.graph.input[0], model.graph.output[0])
    )
    assert (model.graph.input[0].name, taken) == ("input", ["batch", 5])
    assert (model.graph.output[0].name, returned) == ("output", ["batch", 3])
    again = tmp_path / "b.onnx"
    write_onnx(mlp(5, (7,), 3, generator=_generator()), again)
    assert again.read_bytes() == path.read_bytes()


def test_convolutions_in_both_directions(tmp_path):
    network, path, inputs = _conv_network(), tmp_path / "a.onnx", _random(3, 4, 9, 9)
    write_onnx(network, path, shape=(4, 9, 9))
    with torch.no_grad():
        expected = network(torch.from_numpy(inputs)).numpy()
    np.testing.assert_allclose(_run(path, inputs), expected, atol=1e-5)
    _assert_reads_as_it_runs(path, inputs, (4, 9, 9))
    assert [name for name, _ in read_onnx(path).named_children()] == [
        *("conv1", "relu1", "conv2", "flatten", "linear1")
    ]


def test_double_networks_stay_double(tmp_path):
    network = mlp(2, (3,), 2, generator=_generator()).double()
    write_onnx(network, tmp_path / "a.onnx")
    same = read_onnx(tmp_path / "a.onnx")
    assert torch.equal(same.linear1.weight, network.linear1.weight)
    assert _run(tmp_path / "a.onnx", np.zeros((1, 2))).dtype == np.float64


def test_names_of_a_network_may_be_those_of_the_file(tmp_path):
    network = nn.Sequential()
    for name in ("output", "input"):
        network.add_module(name, nn.Linear(2, 2))
    write_onnx(network.eval(), tmp_path / "a.onnx")
    _assert_reads_as_it_runs(tmp_path / "a.onnx", _random(2, 2), (2,))


def test_weights_of_a_product_and_a_sum_are_those_of_the_file(tmp_path):
    # The form of the ACAS Xu files: a mean of zeros, then x W + b on the last axis.
    weight, bias = _random(5, 4), _random(4, seed=1)
    zeros = np.zeros((1, 1, 1, 5), dtype=np.float32)
    nodes = [
        ("Sub", [".", zeros], {}),
        ("Flatten", ["."], {"axis": 1}),
        ("MatMul", [".", weight], {}),
        ("Add", [".", bias], {}),
        ("Relu", ["."], {}),
    ]
    path = _graph_file(tmp_path / "a.onnx", nodes, [1, 1, 1, 5])
    network = read_onnx(path)
    assert [name for name, _ in network.named_children()] == ["linear1", "relu1"]
    np.testing.assert_array_equal(network.linear1.weight.detach().numpy(), weight.T)
    np.testing.assert_array_equal(network.linear1.bias.detach().numpy(), bias)
    _assert_reads_as_it_runs(path, _random(1, 1, 1, 5), (5,))


def test_scalings_fold_into_the_layers_beside_them(tmp_path):
    by_pixel, one = _random(1, 2, 3, 3), np.float32(1.7)
    nodes = [
        ("Sub", [by_pixel, "."], {}),  # a constant minus the value
        ("Div", [".", np.float32(0.3)], {}),
        ("Identity", ["."], {}),
        ("Reshape", [".", np.array([-1, 18])], {}),
        ("Mul", [_random(18, seed=1), "."], {}),
        ("Gemm", [".", _random(18, 6), _random(1, 6)], {"alpha": 0.5, "beta": 2.0}),
        ("Mul", [".", _random(1, 6, seed=2)], {}),
        ("Add", [".", one], {}),
        ("Relu", ["."], {}),
        ("Sub", [".", _random(6)], {}),
        ("MatMul", [".", _random(6, 2)], {}),
    ]
    path = _graph_file(tmp_path / "a.onnx", nodes, ["batch", 2, 3, 3])
    _assert_reads_as_it_runs(path, _random(4, 2, 3, 3), (2, 3, 3))
    assert [name for name, _ in read_onnx(path).named_children()] == [
        *("flatten", "linear1", "relu1", "linear2")
    ]


def test_scalings_fold_into_the_convolutions_beside_them(tmp_path):
    nodes = [
        ("Div", [".", np.array([0.5, 2, 3, 4], np.float32).reshape(1, 4, 1, 1)], {}),
        ("Conv", [".", _random(6, 2, 3, 3), _random(6)], {"group": 2, "pads": [1, 1, 1, 1]}),
        ("Mul", [".", _random(6, 1, 1)], {}),
        ("Relu", ["."], {}),
        ("Sub", [".", _random(1, 6, 1, 1, seed=1)], {}),
        ("Mul", [".", np.float32(-0.4)], {}),
        ("Conv", [".", _random(4, 3, 2, 2)], {"group": 2, "strides": [2, 1]}),
        ("Add", [".", np.float32(0.2)], {}),
    ]
    path = _graph_file(tmp_path / "a.onnx", nodes, ["batch", 4, 6, 6])
    _assert_reads_as_it_runs(path, _random(3, 4, 6, 6), (4, 6, 6))


LINEAR = ("MatMul", [".", _random(4, 3)], {})


@pytest.mark.parametrize(
    ("nodes", "shape", "message"),
    [
        ([LINEAR, ("Sigmoid", ["."], {})], [1, 4], r"Sigmoid 'node1', which is not supported; all"),
        ([("MaxPool", ["."], {"kernel_shape": [2, 2]})], [1, 1, 4, 4], "MaxPool 'node0', which is"),
        (
            [LINEAR, ("Add", [".", "input"], {})],
            [1, 4],
            "Add 'node1', which does not take .*branch",
        ),
        ([("Add", [".", "."], {})], [1, 4], "Add 'node0', which does not take"),
        ([LINEAR, ("Relu", ["input"], {})], [1, 4], "Relu 'node1', which does not take"),
        (
            [("Sub", [".", _random(4)], {}), ("Relu", ["."], {})],
            [1, 4],
            "Sub 'node0', which cannot",
        ),
        ([LINEAR, ("Relu", ["."], {}), ("Mul", [".", _random(3)], {})], [1, 4], "Mul 'node2'"),
        ([("Div", [".", np.zeros(4, np.float32)], {}), LINEAR], [1, 4], "Div .*divides by zero"),
        ([("Div", [_random(4), "."], {}), LINEAR], [1, 4], "divides by the network's value"),
        ([("Add", [".", _random(3, 4)], {}), LINEAR], [1, 4], r"constant of shape \(3, 4\) for"),
        ([("MatMul", [".", _random(5, 3)], {})], [1, 4], r"takes 5 features and is given \(4,\)"),
        ([("MatMul", [".", _random(4, 3)], {})], [1, 2, 4], "MatMul .*is not a product of"),
        ([("Gemm", [".", _random(1, 3)], {"transA": 1})], [1, 4], "Gemm .*is not a product of"),
        ([("Flatten", ["."], {"axis": 0}), LINEAR], [1, 4], "Flatten .*has axis 0; allowed: 1"),
        ([("Reshape", [".", np.array([1, 2, 2])], {})], [1, 4], r"makes the shape \[1, 2, 2\]"),
        ([LINEAR], ["n"], r"shape \(0,\); allowed: the batch"),
        ([LINEAR], [1, "features"], r"shape \(1, 0\); allowed: the batch"),
        ([LINEAR], [1, 2**25], r"a value of shape \(33554432,\)"),
        (
            [("Conv", [".", _random(2, 1, 2, 2)], {"pads": [0, 0, 1, 1]})],
            [1, 1, 4, 4],
            r"has pads \[0, 0, 1, 1\]",
        ),
        (
            [("Conv", [".", _random(2, 1, 2, 2)], {"auto_pad": "SAME_UPPER"})],
            [1, 1, 4, 4],
            "leaves its padding open",
        ),
        ([("Conv", [".", _random(2, 1, 9, 9)], {})], [1, 1, 4, 4], "window larger than its image"),
        ([("Conv", [".", _random(2, 3, 2, 2)], {})], [1, 1, 4, 4], "takes 3 channels"),
        (
            [
                ("Sub", [".", np.float32(1)], {}),
                ("Conv", [".", _random(2, 1, 3, 3)], {"pads": [1, 1, 1, 1]}),
            ],
            [1, 1, 4, 4],
            "Sub 'node0', which cannot become part of the convolution after it",
        ),
        (
            [("Conv", [".", _random(2, 1, 3, 3)], {}), ("Add", [".", _random(2, 2, 2)], {})],
            [1, 1, 4, 4],
            "Add 'node1', which cannot become part of the convolution before it",
        ),
        ([("MatMul", [".", np.full((4, 1), np.inf, np.float32)], {})], [1, 4], "is not finite"),
        ([("MatMul", [".", np.zeros((4, 1), np.int8)], {})], [1, 4], "of another type"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, nodes, shape, message):
    path = _graph_file(tmp_path / "a.onnx", nodes, shape)
    with pytest.raises(ValueError, match=f"path: .*a.onnx holds.*{message}"):
        read_onnx(path)


def test_old_operator_sets_other_types_and_other_outputs(tmp_path):
    path = tmp_path / "a.onnx"
    with pytest.raises(ValueError, match=r"operator set \[6\]; allowed: 7 or newer"):
        read_onnx(_graph_file(path, [LINEAR], [1, 4], opset=6))
    with pytest.raises(ValueError, match="input is not float32 or float64"):
        read_onnx(_graph_file(path, [LINEAR], [1, 4], number_type=TensorProto.INT32))
    with pytest.raises(ValueError, match="output 'v0' is not its last"):
        read_onnx(_graph_file(path, [LINEAR, ("Relu", ["."], {})], [1, 4], output="v0"))


def test_damaged_and_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"path: there is no file .*a.onnx"):
        read_onnx(tmp_path / "a.onnx")
    path = tmp_path / "a.onnx"
    write_onnx(mlp(5, (7,), 3, generator=_generator()), path)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"no model", b"\x00" * 100, whole[100:]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"path: .*a.onnx (is|holds)"):
            read_onnx(path)


def test_weights_in_another_file_are_not_read(tmp_path):
    path = _graph_file(tmp_path / "a.onnx", [LINEAR], [1, 4])
    model = onnx.load(path)
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    tensor.ClearField("raw_data")
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="keeps 'c0_1' in another file"):
        read_onnx(path)


def test_a_tensor_that_promises_more_than_it_has(tmp_path):
    path = _graph_file(tmp_path / "a.onnx", [LINEAR], [1, 4])
    model = onnx.load(path)
    model.graph.initializer[0].dims[:] = [2**20, 2**20]
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="is damaged: 'c0_1' does not have its length"):
        read_onnx(path)


@pytest.mark.parametrize(
    ("network", "shape", "message"),
    [
        (nn.Sequential(nn.Linear(2, 2)), None, "model: is in training mode"),
        (nn.Sequential(nn.Linear(2, 2), nn.GELU()).eval(), None, "model: 1 is a GELU, which"),
        (nn.Sequential(nn.Conv2d(1, 2, 3)).eval(), None, "shape: got None"),
        (nn.Sequential(nn.Conv2d(1, 2, 3)).eval(), (2, 5, 5), r"shape: got \(2, 5, 5\), which the"),
        (nn.Sequential(nn.Conv2d(1, 1, 3, padding="same")).eval(), (1, 5, 5), "padding 'same'"),
        (nn.Sequential(nn.Linear(2, 2).half()).eval(), None, "weights of type torch.float16"),
        (nn.Sequential().eval(), (2,), "model: has no module"),
    ],
)
def test_what_cannot_be_written(tmp_path, network, shape, message):
    with pytest.raises(ValueError, match=message):
        write_onnx(network, tmp_path / "a.onnx", shape=shape)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        write_onnx(mlp(5, (7,), 3, generator=_generator()), tmp_path / "none" / "a.onnx")
