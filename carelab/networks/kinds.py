"""The kinds of modules that a network file may name, with their constructor arguments."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping

from torch import nn

from carelab.networks.layers import assemble, ordered_modules
from carelab.networks.residual import Residual

__all__ = ["KINDS", "build_module", "build_network", "describe_module", "describe_network"]

# Names are nested by dots: no module of a file may lie deeper, a body of a Residual included.
_DEPTH = 32
_RESIDUAL = Residual.__name__

# No size in a file may be larger, whatever it is: a window or an output of that side already
# takes more memory than there is.
_LARGEST = 2**31 - 1
_LARGEST_WINDOW = 2**12


def _flag(value: object) -> bool:
    return isinstance(value, bool)


def _number(value: object) -> bool:
    # Compared, not converted: JSON may hold an integer that no float can.
    largest = sys.float_info.max
    return isinstance(value, int | float) and not _flag(value) and -largest <= value <= largest


def _fraction(value: object) -> bool:
    return _number(value) and 0 <= value <= 1  # type: ignore[operator]


def _integer(low: int, high: int = _LARGEST) -> Callable[[object], bool]:
    return lambda value: isinstance(value, int) and not _flag(value) and low <= value <= high


def _or_none(check: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or check(value)


def _window(low: int) -> Callable[[object], bool]:
    """A side, or two of them (height, width)."""
    side = _integer(low, _LARGEST_WINDOW)

    def check(value: object) -> bool:
        if isinstance(value, tuple):
            return len(value) == 2 and all(side(item) for item in value)
        return side(value)

    return check


def _choice(*allowed: str) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and value in allowed


def _output(value: object) -> bool:
    """A window of which a side may be None, which keeps that of the input."""
    sides = value if isinstance(value, tuple) else (value,)
    return len(sides) <= 2 and all(side is None or _window(1)(side) for side in sides)


def _padding(value: object) -> bool:
    return _choice("same", "valid")(value) or _window(0)(value)


_INPLACE = {"inplace": _flag}
_AXIS = {"dim": _or_none(_integer(-8, 8))}
_NORM = {
    "num_features": _integer(1),
    "eps": _number,
    "momentum": _or_none(_number),
    "affine": _flag,
    "track_running_stats": _flag,
}

# Each constructor argument is read from the attribute of its name, and checked before it is used.
KINDS: Mapping[type[nn.Module], Mapping[str, Callable[[object], bool]]] = {
    nn.Linear: {"in_features": _integer(1), "out_features": _integer(1), "bias": _flag},
    nn.Conv2d: {
        "in_channels": _integer(1),
        "out_channels": _integer(1),
        "kernel_size": _window(1),
        "stride": _window(1),
        "padding": _padding,
        "dilation": _window(1),
        "groups": _integer(1),
        "bias": _flag,
        "padding_mode": _choice("zeros", "reflect", "replicate", "circular"),
    },
    nn.BatchNorm1d: _NORM,
    nn.BatchNorm2d: _NORM,
    nn.MaxPool2d: {
        "kernel_size": _window(1),
        "stride": _window(1),
        "padding": _window(0),
        "dilation": _window(1),
        "ceil_mode": _flag,
    },
    nn.AvgPool2d: {
        "kernel_size": _window(1),
        "stride": _window(1),
        "padding": _window(0),
        "ceil_mode": _flag,
        "count_include_pad": _flag,
        "divisor_override": _or_none(_integer(1)),
    },
    nn.AdaptiveMaxPool2d: {"output_size": _output},
    nn.AdaptiveAvgPool2d: {"output_size": _output},
    nn.Flatten: {"start_dim": _integer(-8, 8), "end_dim": _integer(-8, 8)},
    nn.Identity: {},
    nn.Dropout: {"p": _fraction, **_INPLACE},
    nn.Dropout2d: {"p": _fraction, **_INPLACE},
    nn.Softmax: _AXIS,
    nn.LogSoftmax: _AXIS,
    nn.ReLU: _INPLACE,
    nn.ReLU6: _INPLACE,
    nn.LeakyReLU: {"negative_slope": _number, **_INPLACE},
    nn.ELU: {"alpha": _number, **_INPLACE},
    nn.SELU: _INPLACE,
    nn.GELU: {"approximate": _choice("none", "tanh")},
    nn.SiLU: _INPLACE,
    nn.Mish: _INPLACE,
    nn.Sigmoid: {},
    nn.Tanh: {},
    nn.Softplus: {"beta": _number, "threshold": _number},
    nn.Softsign: {},
    nn.Hardtanh: {"min_val": _number, "max_val": _number, **_INPLACE},
    nn.Hardswish: _INPLACE,
}
_BY_NAME = {kind.__name__: kind for kind in KINDS}
_ALLOWED = ", ".join([*_BY_NAME, _RESIDUAL])


def describe_network(model: nn.Module, *, path: str = "") -> list[dict[str, object]]:
    """Name, kind and constructor arguments of each leaf of a sequential network, for JSON.

    Args:
        model: the network.
        path: where it stands in a larger one, with a dot at the end, or empty.

    Raises:
        ValueError: a network that is not sequential or too deeply nested, or a module that cannot
            be described.

    Example:
        >>> from torch import nn
        >>> from carelab.networks.kinds import describe_network
        >>> describe_network(nn.Sequential(nn.Tanh()))
        [{'name': '0', 'kind': 'Tanh', 'arguments': {}}]
    """
    leaves = ordered_modules(model)
    for name, _ in leaves:
        _check_depth(f"{path}{name}", "model")
    return [{"name": name, **describe_module(f"{path}{name}", module)} for name, module in leaves]


def build_network(entries: object, *, path: str = "") -> nn.Sequential:
    """The sequential network that a description names; the inverse of `describe_network`.

    Args:
        entries: the leaves, as JSON has them.
        path: where the network stands in a larger one, with a dot at the end, or empty.

    Raises:
        ValueError: entries of another form, names that cannot be nested, an unknown kind, or
            arguments that are missing, unknown or out of range.

    Example:
        >>> from carelab.networks.kinds import build_network
        >>> build_network([{"name": "tanh1", "kind": "Tanh", "arguments": {}}]).tanh1
        Tanh()
    """
    if not isinstance(entries, list):
        raise ValueError(f"its modules{f' in {path[:-1]}' if path else ''} are no list")
    modules = []
    for entry in entries:
        if not isinstance(entry, dict) or set(entry) != {"name", "kind", "arguments"}:
            raise ValueError("a module needs name, kind and arguments, and nothing else")
        if not isinstance(entry["name"], str):
            raise ValueError(f"a module's name is {entry['name']!r}")
        full = f"{path}{entry['name']}"
        _check_depth(full, "description")
        modules.append((entry["name"], build_module(full, entry["kind"], entry["arguments"])))
    return assemble(modules)


def describe_module(name: str, module: nn.Module) -> dict[str, object]:
    """Kind and constructor arguments of a module, ready for JSON.

    Args:
        name: its name in the network, for the message.
        module: the module.

    Raises:
        ValueError: a kind that is neither in `KINDS` nor `Residual`, or an argument that cannot be
            described.

    Example:
        >>> from torch import nn
        >>> from carelab.networks.kinds import describe_module
        >>> describe_module("relu1", nn.ReLU())
        {'kind': 'ReLU', 'arguments': {'inplace': False}}
    """
    if type(module) is Residual:
        body = describe_network(module.body, path=f"{name}.body.")
        return {"kind": _RESIDUAL, "arguments": {"body": body}}
    if type(module) not in KINDS:
        raise ValueError(
            f"model: {name} is a {type(module).__name__}, which cannot be described in a file; "
            f"allowed: {_ALLOWED}"
        )
    arguments = {
        argument: module.bias is not None if argument == "bias" else getattr(module, argument)
        for argument in KINDS[type(module)]
    }
    _check_arguments(name, type(module), arguments)
    return {"kind": type(module).__name__, "arguments": arguments}


def build_module(name: str, kind: object, arguments: object) -> nn.Module:
    """The module that a description names, its weights as the constructor leaves them.

    Args:
        name: its name in the network, for the message.
        kind: name of a class in `KINDS`, or "Residual".
        arguments: its constructor arguments by name, as JSON has them.

    Raises:
        ValueError: an unknown kind, or arguments that are missing, unknown or out of range.

    Example:
        >>> from carelab.networks.kinds import build_module
        >>> build_module("drop", "Dropout", {"p": 0.25, "inplace": False})
        Dropout(p=0.25, inplace=False)
    """
    if not isinstance(kind, str) or kind not in (*_BY_NAME, _RESIDUAL):
        raise ValueError(f"{name} is of kind {kind!r}; allowed: {_ALLOWED}")
    if not isinstance(arguments, dict):
        raise ValueError(f"{name} has no arguments by name")
    if kind == _RESIDUAL:
        _check_names(name, kind, arguments, ("body",))
        return Residual(build_network(arguments["body"], path=f"{name}.body."))
    given = {
        argument: tuple(value) if isinstance(value, list) else value
        for argument, value in arguments.items()
    }
    _check_arguments(name, _BY_NAME[kind], given)
    try:
        return _BY_NAME[kind](**given)
    except (AssertionError, RuntimeError, ValueError) as error:
        # Arguments that are fine one by one may not fit together, or overflow as a product.
        raise ValueError(f"{name} ({kind}) cannot be built: {error}") from None


def _check_arguments(name: str, kind: type[nn.Module], arguments: Mapping[str, object]) -> None:
    checks = KINDS[kind]
    _check_names(name, kind.__name__, arguments, checks)
    for argument, value in arguments.items():
        if not checks[argument](value):
            raise ValueError(f"{name} ({kind.__name__}) has {argument} = {value!r}, out of range")


def _check_names(
    name: str, kind: str, arguments: Mapping[str, object], expected: Collection[str]
) -> None:
    if set(arguments) != set(expected):
        raise ValueError(
            f"{name} ({kind}) has arguments {', '.join(sorted(arguments)) or 'none'}; "
            f"allowed: {', '.join(sorted(expected)) or 'none'}"
        )


def _check_depth(name: str, argument: str) -> None:
    if name.count(".") > _DEPTH:
        raise ValueError(f"{argument}: too deeply nested to be described; allowed: {_DEPTH} levels")
