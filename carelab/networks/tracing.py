"""A module of one's own, with a forward method, as the equivalent sequential network."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from copy import copy, deepcopy

import torch
from torch import fx, nn
from torch.nn import functional

from carelab.networks.inputs import check_evaluation_mode
from carelab.networks.layers import assemble, ordered_modules

__all__ = ["as_sequential"]


def _flatten(start_dim: int = 0, end_dim: int = -1) -> nn.Module:
    if start_dim == 0:
        raise ValueError("a flatten from axis 0 mixes the samples")
    return nn.Flatten(start_dim, end_dim)


_POOLING = ("kernel_size", "stride", "padding")
_ADAPTIVE = ("output_size",)
_FLATTEN = (_flatten, ("start_dim", "end_dim"))

# What a forward method may call: the module that does the same, and the names of the arguments
# after the tensor, in order.
_CALLS: Mapping[object, tuple[Callable[..., nn.Module], tuple[str, ...]]] = {
    functional.relu: (nn.ReLU, ("inplace",)),
    functional.relu6: (nn.ReLU6, ("inplace",)),
    functional.leaky_relu: (nn.LeakyReLU, ("negative_slope", "inplace")),
    functional.elu: (nn.ELU, ("alpha", "inplace")),
    functional.selu: (nn.SELU, ("inplace",)),
    functional.gelu: (nn.GELU, ("approximate",)),
    functional.silu: (nn.SiLU, ("inplace",)),
    functional.mish: (nn.Mish, ("inplace",)),
    functional.softplus: (nn.Softplus, ("beta", "threshold")),
    functional.softsign: (nn.Softsign, ()),
    functional.hardtanh: (nn.Hardtanh, ("min_val", "max_val", "inplace")),
    functional.hardswish: (nn.Hardswish, ("inplace",)),
    functional.softmax: (nn.Softmax, ("dim",)),
    functional.log_softmax: (nn.LogSoftmax, ("dim",)),
    functional.max_pool2d: (nn.MaxPool2d, (*_POOLING, "dilation", "ceil_mode")),
    functional.avg_pool2d: (
        nn.AvgPool2d,
        (*_POOLING, "ceil_mode", "count_include_pad", "divisor_override"),
    ),
    functional.adaptive_max_pool2d: (nn.AdaptiveMaxPool2d, _ADAPTIVE),
    functional.adaptive_avg_pool2d: (nn.AdaptiveAvgPool2d, _ADAPTIVE),
    torch.relu: (nn.ReLU, ()),
    torch.sigmoid: (nn.Sigmoid, ()),
    torch.tanh: (nn.Tanh, ()),
    torch.softmax: (nn.Softmax, ("dim",)),
    torch.log_softmax: (nn.LogSoftmax, ("dim",)),
    torch.flatten: _FLATTEN,
    "relu": (nn.ReLU, ()),
    "sigmoid": (nn.Sigmoid, ()),
    "tanh": (nn.Tanh, ()),
    "softmax": (nn.Softmax, ("dim",)),
    "log_softmax": (nn.LogSoftmax, ("dim",)),
    "flatten": _FLATTEN,
}
_VIEWS = ("view", "reshape", torch.reshape)
_RANDOM = (functional.dropout, functional.dropout2d)
# Arguments that some of these calls record although the modules have no such argument.
_UNSET = {"return_indices": (False,), "dtype": (None,), "_stacklevel": (3,)}


def as_sequential(model: nn.Module) -> nn.Sequential:
    """The sequential network that computes what the module computes, with the same parameters.

    The forward method is traced once. Where it is a chain of modules and of the usual functions
    (activations, pooling, flattening), each step becomes a module: a module of the network keeps
    its name, with "_" for a dot, and is shared, not copied; a function is named after itself. A
    module without weights that is called several times becomes several, since interventions need
    one name for each call. Functional dropout, which does nothing in evaluation mode, is left out.

    Args:
        model: the module, in evaluation mode, whose forward takes one tensor.

    Returns:
        The sequential network, in evaluation mode; the module itself if it is one already.

    Raises:
        ValueError: a module in training mode, one that cannot be traced (its path depends on the
            data), or a step that is no chain or has no module; the message names the step.

    Example:
        >>> from torch import nn
        >>> from carelab.networks import as_sequential
        >>> relu = nn.ReLU()
        >>> twice = nn.Sequential(nn.Linear(2, 3), relu, nn.Linear(3, 3), relu).eval()
        >>> [name for name, _ in as_sequential(twice).named_children()]
        ['0', '1', '2', '1_1']
    """
    check_evaluation_mode(model)
    if isinstance(model, nn.Sequential) and _is_plain(model):
        return model
    try:
        # A shallow copy, since the tracer writes the constants it meets into what it traces.
        graph = fx.Tracer().trace(copy(model))
    # Whatever the user's own code raises when it meets a stand-in for a tensor.
    except Exception as error:
        raise ValueError(
            f"model: the forward of {type(model).__name__} cannot be traced ({error}); "
            "allowed: one whose path does not depend on the data"
        ) from error
    chain = _chain(graph, dict(model.named_modules(remove_duplicate=False)))
    return assemble(_named(chain))


def _is_plain(model: nn.Sequential) -> bool:
    try:
        ordered_modules(model)
    except ValueError:
        return False
    return True


def _chain(graph: fx.Graph, modules: Mapping[str, nn.Module]) -> list[tuple[fx.Node, nn.Module]]:
    """The steps that carry the tensor from the input to the output, with their modules."""
    needed = _needed(graph)
    value: fx.Node | None = None
    chain: list[tuple[fx.Node, nn.Module]] = []
    for node in graph.nodes:
        # Sizes and constants are no steps; whether one may use them is decided at its user.
        if node not in needed or _is_size(node) or node.op == "get_attr":
            continue
        if node.op == "placeholder" and value is None:
            value = node
        elif not node.args or node.args[0] is not value or value is None:
            raise _refused(node)
        elif node.op != "output":
            module = _module_for(node, modules)
            if module is not None:
                chain.append((node, module))
            value = node
    _check_views(chain)
    return chain


def _needed(graph: fx.Graph) -> set[fx.Node]:
    """The nodes that the output depends on."""
    waiting = [node for node in graph.nodes if node.op == "output"]
    needed: set[fx.Node] = set()
    while waiting:
        node = waiting.pop()
        if node not in needed:
            needed.add(node)
            waiting += node.all_input_nodes
    return needed


def _module_for(node: fx.Node, modules: Mapping[str, nn.Module]) -> nn.Module | None:
    """The module that does what the node does, or None where that is nothing."""
    if node.op == "call_module":
        if len(node.args) > 1 or node.kwargs:
            raise _refused(node)
        return modules[str(node.target)]
    if node.target == "contiguous":
        return None
    if node.target in _RANDOM:
        training = node.kwargs.get("training", node.args[2] if len(node.args) > 2 else True)
        if training is not False:
            raise _refused(node, "it draws at random in evaluation mode too")
        return None
    if node.target in _VIEWS:
        shape = _view_shape(node)
        # At most one side of a view may be open.
        if len(shape) != 2 or not (_is_batch(shape[0]) or (shape[0] == -1 and shape[1] != -1)):
            raise _refused(node, "only (batch, -1) is understood")
        return nn.Flatten().eval()
    if node.target not in _CALLS:
        raise _refused(node)
    make, names = _CALLS[node.target]
    given = {**dict(zip(names, node.args[1:], strict=False)), **node.kwargs}
    given = {key: value for key, value in given.items() if value not in _UNSET.get(key, ())}
    if len(node.args) > 1 + len(names) or len(node.all_input_nodes) > 1:
        raise _refused(node)
    try:
        return make(**given).eval()
    except (TypeError, ValueError) as error:
        raise _refused(node, str(error)) from None


def _named(chain: Sequence[tuple[fx.Node, nn.Module]]) -> list[tuple[str, nn.Module]]:
    """A name of its own for each step, and a module of its own where one is called again."""
    seen: set[nn.Module] = set()
    named: dict[str, nn.Module] = {}
    for node, module in chain:
        if module in seen:
            if module.state_dict():
                raise _refused(node, "a module with weights may be called only once")
            module = deepcopy(module)
        seen.add(module)
        stem = str(node.target).replace(".", "_") if node.op == "call_module" else node.name
        name, number = stem, 0
        while name in named or hasattr(nn.Sequential, name) or name == "training":
            number += 1
            name = f"{stem}_{number}"
        named[name] = module
    return list(named.items())


def _is_size(node: object) -> bool:
    """Whether the node is the shape of a tensor, or an entry of one."""
    if not isinstance(node, fx.Node) or node.op == "call_module":
        return False
    if node.target is operator.getitem:
        return _is_size(node.args[0])
    return node.target == "size" or (node.target is getattr and node.args[1] == "shape")


def _is_batch(node: object) -> bool:
    """Whether the node is the length of axis 0."""
    if not isinstance(node, fx.Node) or not _is_size(node):
        return False
    return node.args[1:] == (0,) or node.kwargs == {"dim": 0}


def _view_shape(node: fx.Node) -> Sequence[object]:
    shape = node.args[1:] or tuple(node.kwargs.values())
    return shape[0] if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape


def _check_views(chain: Sequence[tuple[fx.Node, nn.Module]]) -> None:
    """Refuse a view of (-1, n) or (batch, n) unless the Linear after it shows that n is a row."""
    for at, (node, _) in enumerate(chain):
        if node.op == "call_module" or node.target not in _VIEWS:
            continue
        features = _view_shape(node)[1]
        after = [module for _, module in chain[at + 1 :] if isinstance(module, nn.Linear)]
        takes = after[0].in_features if after else None
        if features != -1 and features != takes:
            raise _refused(node, f"the next Linear takes {takes} features")


def _refused(node: fx.Node, reason: str = "it is no step of a chain") -> ValueError:
    target = getattr(node.target, "__name__", node.target)
    return ValueError(
        f"model: node {node.name} ({node.op} {target}) has no sequential form: {reason}; allowed: "
        "modules, activations, pooling and flattening, each on the result of the one before"
    )
