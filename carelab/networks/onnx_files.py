"""Networks in ONNX files: read into named layers, and written for other tools."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from carelab.networks.architectures import in_a_row
from carelab.networks.inputs import check_evaluation_mode, input_features
from carelab.networks.layers import SILENT, ordered_modules
from carelab.networks.onnx_graphs import Step, as_layers, check_operator
from carelab.networks.whole_files import existing_file, write_whole

__all__ = ["read_onnx", "write_onnx"]

_LARGEST_FILE = 2**29  # bytes
_OLDEST_OPSET = 7  # before it, broadcasting was an attribute of each operator
_OPSET = 13
_IR_VERSION = 8  # of the same year as the operator set, so that older tools read it too
_INPUT, _OUTPUT, _BATCH = "input", "output", "batch"
_DTYPES = {TensorProto.FLOAT: torch.float32, TensorProto.DOUBLE: torch.float64}
_CONSTANTS = (*_DTYPES, TensorProto.INT64, TensorProto.INT32)


def read_onnx(path: str | os.PathLike[str]) -> nn.Sequential:
    """The network in an ONNX file, as named layers: linear1, relu1, linear2, ...

    A chain of Gemm, MatMul, Conv, Relu, Flatten, Reshape to flat and Identity, with additions,
    subtractions, multiplications and divisions by constants, which become part of the weights
    beside them. Where nothing is scaled the weights are those of the file, bit for bit.

    Inputs keep the axes that the file declares, with the batch first; those of which at most one
    is longer than 1, such as (1, 1, 1, 5) of ACAS Xu, become (batch, features). No code from the
    file is run, and no other file that it may name is read.

    Args:
        path: the file, of operator set 7 or newer and at most 512 MiB.

    Returns:
        The network, on the CPU, in the number type of its input, in evaluation mode.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file that is damaged, or a network that is not such a chain; an operator that
            is not supported is named.

    Example:
        >>> import tempfile, torch
        >>> from carelab import networks
        >>> model = networks.mlp(4, (3,), 2, generator=torch.Generator().manual_seed(0))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     networks.write_onnx(model, f"{folder}/a.onnx")
        ...     same = networks.read_onnx(f"{folder}/a.onnx")
    """
    content = existing_file(path, largest=_LARGEST_FILE).read_bytes()
    try:
        graph = _graph(content)
        given, shape, dtype = _input(graph)
        layers = as_layers(shape, tuple(_steps(graph, given)))
        numbers = [parameter for layer in layers for parameter in layer.parameters()]
        if not all(bool(part.to(dtype).isfinite().all()) for part in numbers):
            raise ValueError("holds a weight that is not finite")
    except ValueError as error:
        raise ValueError(f"path: {path} {error}") from None
    return in_a_row(layers).to(dtype)


def write_onnx(
    model: nn.Module, path: str | os.PathLike[str], *, shape: Sequence[int] | None = None
) -> None:
    """Write a network to an ONNX file that other tools can run, check or verify.

    Operator set 13; one input "input" and one output "output", whose first axis, the batch, is of
    any length. A ``Linear`` becomes a Gemm with the same weights, bit for bit. Equal networks give
    equal files. The file is there whole or not at all.

    Args:
        model: a sequential network of ``Linear``, ``Conv2d``, ``ReLU``, ``Flatten``, ``Identity``
            and dropout, float32 or float64, in evaluation mode.
        path: the file; an older one is replaced.
        shape: shape of one input, without the batch; by default the features of the first
            ``Linear``, which convolutional networks do not tell.

    Raises:
        ValueError: a network in training mode, not sequential or with another module, which is
            named; a shape that it cannot take, or none where it is needed.
        OSError: the folder is missing or cannot be written to.

    Example:
        >>> import tempfile, torch
        >>> from carelab import networks
        >>> model = networks.mlp(4, (3,), 2, generator=torch.Generator().manual_seed(0))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     networks.write_onnx(model, f"{folder}/a.onnx")
    """
    check_evaluation_mode(model)
    modules = ordered_modules(model)
    taken, returned, dtype = _shapes(model, shape)
    number_type = next(number for number, found in _DTYPES.items() if found == dtype)
    if not modules:
        raise ValueError("model: has no module; allowed: at least one")
    nodes: list[onnx.NodeProto] = []
    weights: list[TensorProto] = []
    value = _INPUT
    for number, (name, module) in enumerate(modules, start=1):
        output = _OUTPUT if number == len(modules) else f"{name}_value"
        node, constants = _node(name, module, value, output)
        nodes.append(node)
        weights += constants
        value = output
    graph = helper.make_graph(
        nodes,
        "carelab",
        [helper.make_tensor_value_info(_INPUT, number_type, [_BATCH, *taken])],
        [helper.make_tensor_value_info(_OUTPUT, number_type, [_BATCH, *returned])],
        weights,
    )
    content = helper.make_model(
        graph,
        producer_name="carelab",
        ir_version=_IR_VERSION,
        opset_imports=[helper.make_opsetid("", _OPSET)],
    )
    onnx.checker.check_model(content)
    write_whole(path, content.SerializeToString(deterministic=True))


def _graph(content: bytes) -> onnx.GraphProto:
    try:
        model = onnx.load_model_from_string(content)
    except (DecodeError, UnicodeDecodeError):
        raise ValueError("is damaged or no ONNX file") from None
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if len(versions) != 1 or versions[0] < _OLDEST_OPSET:
        raise ValueError(
            f"is of operator set {versions or 'none'}; allowed: {_OLDEST_OPSET} or newer"
        )
    return model.graph


def _input(graph: onnx.GraphProto) -> tuple[str, tuple[int, ...], torch.dtype]:
    """Name, shape without the batch, and number type of the network's one input."""
    constants = {tensor.name for tensor in graph.initializer}
    given = [value for value in graph.input if value.name not in constants]
    if len(given) != 1 or len(graph.output) != 1:
        raise ValueError(
            f"holds a network of {len(given)} inputs and {len(graph.output)} outputs; allowed: 1, 1"
        )
    declared = given[0].type.tensor_type
    if declared.elem_type not in _DTYPES:
        raise ValueError("holds a network whose input is not float32 or float64")
    shape = tuple(axis.dim_value for axis in declared.shape.dim)
    if len(shape) < 2 or min(shape[1:]) < 1:
        raise ValueError(
            f"holds a network whose input has the shape {shape}; allowed: the batch, then axes "
            "of known length"
        )
    return given[0].name, shape[1:], _DTYPES[declared.elem_type]


def _steps(graph: onnx.GraphProto, given: str) -> Iterator[Step]:
    """The operators in the order in which they run, constants apart."""
    constants = {tensor.name: _constant(tensor) for tensor in graph.initializer}
    if graph.sparse_initializer:
        raise ValueError("holds sparse weights; allowed: dense ones")
    value = given
    for number, node in enumerate(graph.node):
        operator = (
            node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
        )
        attributes = {attribute.name: _attribute(attribute) for attribute in node.attribute}
        inputs = list(node.input)
        while inputs and not inputs[-1]:
            inputs.pop()
        operands = tuple(constants.get(name) for name in inputs)
        step = Step(
            operator=operator,
            name=node.name or f"number {number + 1}",
            attributes=attributes,
            operands=operands,
            place=inputs.index(value) if value in inputs else 0,
        )
        if len(node.output) != 1:
            raise step.refused(f"has {len(node.output)} outputs; allowed: 1")
        if operator == "Constant":
            constants[node.output[0]] = _constant_of(step)
        elif operator == "Identity" and operands and operands[0] is not None:
            constants[node.output[0]] = operands[0]
        else:
            yield _checked(step, inputs, constants.keys(), value)
            value = node.output[0]
    if graph.output[0].name != value:
        raise ValueError(f"holds a network whose output {graph.output[0].name!r} is not its last")


def _checked(step: Step, inputs: Sequence[str], constants: Iterable[str], value: str) -> Step:
    """The step, whose inputs are the value of the step before it, once, and constants."""
    check_operator(step)
    if inputs.count(value) != 1 or not set(inputs) <= {*constants, value}:
        raise step.refused(
            "does not take the value of the operator before it and constants; allowed: a chain "
            "without branches"
        )
    return step


def _attribute(attribute: onnx.AttributeProto) -> object:
    value = helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    return tuple(value) if attribute.floats or attribute.ints else value


def _constant_of(step: Step) -> Tensor:
    for name, value in step.attributes.items():
        if name == "value" and isinstance(value, TensorProto):
            return _constant(value)
        if name in ("value_float", "value_floats", "value_int", "value_ints"):
            return torch.tensor(value)
    raise step.refused("holds no tensor of numbers")


def _constant(tensor: TensorProto) -> Tensor:
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        raise ValueError(f"keeps {tensor.name!r} in another file; allowed: weights in the file")
    if tensor.data_type not in _CONSTANTS:
        raise ValueError(f"holds {tensor.name!r} of another type; allowed: float, double, integer")
    try:
        return torch.from_numpy(np.array(numpy_helper.to_array(tensor)))
    except (ValueError, TypeError):
        raise ValueError(f"is damaged: {tensor.name!r} does not have its length") from None


def _shapes(
    model: nn.Module, shape: Sequence[int] | None
) -> tuple[list[int], list[int], torch.dtype]:
    """Shapes of one input and one output, and the number type, which must be one."""
    types = {parameter.dtype for parameter in model.parameters()} or {torch.float32}
    if len(types) != 1 or not types <= set(_DTYPES.values()):
        raise ValueError(
            f"model: has weights of type {', '.join(sorted(map(str, types)))}; allowed: all "
            "torch.float32 or all torch.float64"
        )
    features = input_features(model)
    taken = [int(size) for size in ([features or 0] if shape is None else shape)]
    if shape is None and features is None:
        raise ValueError(
            "shape: got None for a network whose first weight layer is no Linear; allowed: the "
            "shape of one input, such as (3, 32, 32)"
        )
    try:
        # Without arithmetic; on a copy, since the model stays where it is.
        with torch.no_grad():
            example = torch.zeros(1, *taken, dtype=min(types, key=str), device="meta")
            returned = deepcopy(model).to("meta")(example)
    except RuntimeError:
        raise ValueError(
            f"shape: got {tuple(taken)}, which the network cannot take; allowed: the shape of one "
            "input without the batch"
        ) from None
    return taken, list(returned.shape[1:]), min(types, key=str)


def _node(
    name: str, module: nn.Module, value: str, output: str
) -> tuple[onnx.NodeProto, list[TensorProto]]:
    """The operator of a module, and its weights."""
    if isinstance(module, nn.ReLU):
        return helper.make_node("Relu", [value], [output], name), []
    if isinstance(module, SILENT):
        return helper.make_node("Identity", [value], [output], name), []
    if isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) == (1, -1):
        return helper.make_node("Flatten", [value], [output], name, axis=1), []
    weights = [
        numpy_helper.from_array(part.detach().cpu().contiguous().numpy(), f"{name}.{label}")
        for label, part in module.named_parameters()
    ]
    inputs = [value, *(tensor.name for tensor in weights)]
    if isinstance(module, nn.Linear):
        return helper.make_node("Gemm", inputs, [output], name, transB=1), weights
    if isinstance(module, nn.Conv2d):
        return helper.make_node("Conv", inputs, [output], name, **_windows(name, module)), weights
    raise ValueError(
        f"model: {name} is a {type(module).__name__}, which is not written to ONNX; allowed: "
        "Linear, Conv2d, ReLU, Flatten from axis 1, Identity, Dropout"
    )


def _windows(name: str, layer: nn.Conv2d) -> dict[str, Any]:
    if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        raise ValueError(
            f"model: {name} has padding {layer.padding!r} by {layer.padding_mode}; allowed: a "
            "number of zeros"
        )
    return {
        "kernel_shape": list(layer.kernel_size),
        "strides": list(layer.stride),
        "pads": [*layer.padding, *layer.padding],
        "dilations": list(layer.dilation),
        "group": layer.groups,
    }
