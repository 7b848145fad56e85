"""A network on fixed inputs, run again under changes of its neurons from the changed layer on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from carelab.networks import check_evaluation_mode, hidden_layers, ordered_modules
from carelab.networks.layers import ACTIVATIONS, SILENT
from carelab.records import Neuron

__all__ = ["CachedRun", "Change"]

# Modules that treat every channel by itself and alike, so that they may run on a few of them.
_BY_CHANNEL = (*ACTIVATIONS, *SILENT, nn.MaxPool2d, nn.AvgPool2d)
# Numbers in one pass through the widest layer: what a pass makes stays in the processor's cache.
_NUMBERS_A_PASS = 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """What is done to the activation h of a neuron: held at a value, or scaled, h := factor x h.

    Args:
        value: the value it is held at for every input, do(neuron = value); None: it is not held.
        factor: its factor where it is not held; 1 changes nothing.

    Example:
        >>> from carelab.show.explorer import Change
        >>> Change(factor=0.5).value is None
        True
    """

    value: float | None = None
    factor: float = 1.0


@dataclass(frozen=True, eq=False, slots=True)
class _Stage:
    """What runs from one layer to the next: channel by channel, a linear map, and the rest."""

    layer: str
    head: tuple[nn.Module, ...]
    linear: nn.Linear | nn.Conv2d | None
    tail: tuple[nn.Module, ...]


class CachedRun:
    """Logits of one network at fixed inputs under changes of hidden neurons.

    The layers before the first changed one are never run again. Where few neurons of that layer
    change, what the next linear map gives is updated by their part of its weights instead of
    being computed anew. Later layers are run from the first one whose changes differ from those
    of the last call.

    Args:
        model: a sequential network in evaluation mode; it is not touched.
        inputs: the inputs (rows, ...), at least one.

    Raises:
        ValueError: a network in training mode or without hidden layers, or no input.

    Example:
        >>> import torch
        >>> from carelab import networks, records
        >>> from carelab.show.explorer import CachedRun, Change
        >>> model = networks.mlp(2, (3,), 2, generator=torch.Generator().manual_seed(0))
        >>> run, one = CachedRun(model, torch.rand(5, 2)), records.Neuron("relu1", 0)
        >>> run.logits({one: Change(value=0.0)}).shape
        torch.Size([5, 2])
    """

    def __init__(self, model: nn.Module, inputs: Float[Tensor, "rows ..."]) -> None:
        """Run the network once, and keep what every hidden layer gives."""
        check_evaluation_mode(model)
        self.layers = hidden_layers(model)
        if not self.layers or len(inputs) == 0:
            raise ValueError(
                f"model, inputs: got {len(self.layers)} hidden layers and {len(inputs)} rows; "
                "allowed: at least one of each"
            )
        self._stages = _stages(model, self.layers)
        self._base: list[Tensor] = []
        self._sums: list[Tensor | None] = []
        self._untouched = self._run_base(inputs)
        self._last: dict[Neuron, Change] = {}
        self._raw: dict[int, Tensor] = {}
        self._logits = self._untouched

    @torch.inference_mode()
    def logits(self, changes: Mapping[Neuron, Change]) -> Float[Tensor, "rows classes"]:
        """The logits under the changes; without any, those of the network itself.

        Args:
            changes: what is done to which neurons (whole channels in feature maps).

        Raises:
            ValueError: a neuron of a layer that is not hidden, or beyond its layer.
        """
        by_layer = self._by_layer(changes)
        if not by_layer:
            self._last, self._raw, self._logits = {}, {}, self._untouched
            return self._untouched
        first, start = min(by_layer), self._first_difference(by_layer)
        if start is None:
            return self._logits
        if start > first and start in self._raw:
            self._raw = {at: raw for at, raw in self._raw.items() if at <= start}
            current = self._run_from(start, self._raw[start], by_layer)
        else:
            self._raw = {}
            current = self._after_first(first, by_layer[first])
            if first + 1 < len(self.layers):
                self._raw[first + 1] = current
                current = self._run_from(first + 1, current, by_layer)
        self._last, self._logits = dict(changes), current
        return current

    def activations(self, layer: str) -> Float[Tensor, "rows neurons ..."]:
        """Activations of a hidden layer without any change."""
        return self._base[self.layers.index(layer)]

    def _run_base(self, inputs: Tensor) -> Tensor:
        current = inputs
        with torch.inference_mode():
            for at, stage in enumerate(self._stages):
                sums, current = _through(stage, current)
                self._sums.append(sums if at else None)
                if at < len(self.layers):
                    self._base.append(current)
        return current

    def _by_layer(self, changes: Mapping[Neuron, Change]) -> dict[int, dict[int, Change]]:
        found: dict[int, dict[int, Change]] = {}
        for neuron, change in changes.items():
            if neuron.layer not in self.layers or neuron.position:
                raise ValueError(
                    f"changes: got {neuron}; allowed: whole neurons of {', '.join(self.layers)}"
                )
            at = self.layers.index(neuron.layer)
            if not 0 <= neuron.index < self._base[at].shape[1]:
                raise ValueError(
                    f"changes: got {neuron}; allowed: {neuron.layer}[0] to "
                    f"{neuron.layer}[{self._base[at].shape[1] - 1}]"
                )
            if change.value is not None or change.factor != 1:
                found.setdefault(at, {})[neuron.index] = change
        return found

    def _first_difference(self, by_layer: Mapping[int, Mapping[int, Change]]) -> int | None:
        last = self._by_layer(self._last)
        different = [
            at for at in sorted(set(last) | set(by_layer)) if last.get(at) != by_layer.get(at)
        ]
        return different[0] if different else None

    def _run_from(
        self, at: int, raw: Tensor, by_layer: Mapping[int, Mapping[int, Change]]
    ) -> Tensor:
        """Logits from what layer `at` gives, which has yet to be changed."""
        current = _changed(raw, by_layer.get(at, {}))
        for after in range(at + 1, len(self._stages)):
            current = _through(self._stages[after], current)[1]
            if after < len(self.layers):
                self._raw[after] = current
                current = _changed(current, by_layer.get(after, {}))
        return current

    def _after_first(self, at: int, changes: Mapping[int, Change]) -> Tensor:
        """Output of the stage after the first layer that changes; updated if in few neurons."""
        stage, sums, base = self._stages[at + 1], self._sums[at + 1], self._base[at]
        if sums is None or stage.linear is None or len(changes) > base.shape[1] // 2:
            return _through(stage, _changed(base, changes))[1]
        picked = torch.tensor(list(changes), device=base.device)
        order = dict(enumerate(changes.values()))
        outputs = []
        for rows in _passes(base, sums):
            before = base[rows].index_select(1, picked)
            after = _run(stage.head, _changed(before, order))
            moved = after - _run(stage.head, before)
            outputs.append(_run(stage.tail, _updated(stage.linear, sums[rows], moved, picked)))
        return torch.cat(outputs)


def _stages(model: nn.Module, layers: Sequence[str]) -> list[_Stage]:
    stages, modules = [], []
    for name, module in ordered_modules(model):
        modules.append(module)
        if name in layers:
            stages.append(_stage(name, modules))
            modules = []
    return [*stages, _stage("", modules)]


def _stage(layer: str, modules: Sequence[nn.Module]) -> _Stage:
    """The modules, cut where the first linear map stands if all before it go by channel."""
    for at, module in enumerate(modules):
        if isinstance(module, nn.Linear | nn.Conv2d) and _is_plain(module):
            return _Stage(layer, tuple(modules[:at]), module, tuple(modules[at + 1 :]))
        flat = type(module) is nn.Flatten and (module.start_dim, module.end_dim) == (1, -1)
        if not flat and not isinstance(module, _BY_CHANNEL):
            break
    return _Stage(layer, (), None, tuple(modules))


def _is_plain(module: nn.Linear | nn.Conv2d) -> bool:
    """Whether its output is the sum of what each input channel adds."""
    if isinstance(module, nn.Conv2d):
        return type(module) is nn.Conv2d and module.groups == 1 and module.padding_mode == "zeros"
    return type(module) is nn.Linear


def _through(stage: _Stage, current: Tensor) -> tuple[Tensor | None, Tensor]:
    """What the linear map of a stage gives, and what the whole stage gives."""
    sums, outputs = [], []
    for rows in _passes(current, None):
        # With the channels last in memory pooling takes a fraction of the time.
        part = current[rows]
        if part.ndim == 4:
            part = part.contiguous(memory_format=torch.channels_last)
        part = _run(stage.head, _own(part, stage.head or stage.tail))
        if stage.linear is not None:
            part = stage.linear(part)
            sums.append(part)
            part = _own(part, stage.tail)
        outputs.append(_run(stage.tail, part))
    return (torch.cat(sums) if sums else None), torch.cat(outputs)


def _own(part: Tensor, modules: Sequence[nn.Module]) -> Tensor:
    """A copy where a module that works in place would overwrite what is kept."""
    return part.clone() if any(getattr(module, "inplace", False) for module in modules) else part


def _updated(linear: nn.Linear | nn.Conv2d, sums: Tensor, moved: Tensor, picked: Tensor) -> Tensor:
    """W h' + b from W h + b, where only some of the channels that h holds have moved."""
    if isinstance(linear, nn.Conv2d):
        return sums + nn.functional.conv2d(
            moved,
            linear.weight.index_select(1, picked),
            stride=linear.stride,
            padding=linear.padding,
            dilation=linear.dilation,
        )
    each = moved.flatten(1).shape[1] // len(picked)
    columns = (picked[:, None] * each + torch.arange(each, device=picked.device)).flatten()
    return sums + moved.flatten(1) @ linear.weight.index_select(1, columns).T


def _changed(activation: Tensor, changes: Mapping[int, Change]) -> Tensor:
    if not changes:
        return activation
    changed = activation.clone()
    for index, change in changes.items():
        if change.value is None:
            changed[:, index] *= change.factor
        else:
            changed[:, index] = change.value
    return changed


def _run(modules: Sequence[nn.Module], current: Tensor) -> Tensor:
    for module in modules:
        current = module(current)
    return current


def _passes(current: Tensor, sums: Tensor | None) -> list[slice]:
    widest = max(current[0].numel(), 0 if sums is None else sums[0].numel(), 1)
    rows = max(1, _NUMBERS_A_PASS // widest)
    return [slice(start, start + rows) for start in range(0, len(current), rows)]
