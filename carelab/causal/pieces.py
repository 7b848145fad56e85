"""What follows a layer, taken apart at the first linear map, and the rows that run together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import no_type_check

from torch import Tensor, nn

from carelab.causal.samples_last import acts_by_number, is_full_flatten, rows_last
from carelab.records import Unit

__all__ = ["Pass", "Passes", "Piece", "Run", "Suffix", "piece_of", "run_head", "run_linear"]

Run = Callable[[Tensor], Tensor]
# Some steps of all units in turn, some rows, and the logits there (classes, group x steps, rows).
Pass = tuple[slice, slice, Tensor]
Passes = Callable[[Sequence[Unit], Tensor], Iterator[Pass]]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Suffix:
    """What follows a layer, taken apart at the first linear map.

    Args:
        head: modules up to the map, which act channel by channel or flatten.
        linear: the map, a ``Linear`` or a ``Conv2d`` that can be updated, or None.
        tail: what comes after it, or after the head where there is no such map.
    """

    head: tuple[nn.Module, ...]
    linear: nn.Linear | nn.Conv2d | None
    tail: tuple[nn.Module, ...]

    def updates(self, axes: int) -> bool:
        """Whether the map reads a layer with so many axes as it is, or flattened."""
        if type(self.linear) is nn.Linear:
            return axes == 1 or any(is_full_flatten(module) for module in self.head)
        return type(self.linear) is nn.Conv2d and axes == 3

    @property
    def by_number(self) -> bool:
        """Whether each number of the layer reaches the map through itself alone."""
        return all(acts_by_number(module) or is_full_flatten(module) for module in self.head)

    @property
    def rectifies(self) -> bool:
        """Whether the map and all after it are fully connected maps and ReLUs in turn."""
        kinds = [type(module) for module in (self.linear, *self.tail)]
        return len(kinds) >= 3 and kinds == [nn.Linear, *[nn.ReLU, nn.Linear] * (len(kinds) // 2)]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Piece:
    """Rows that are worked on together, without intervention.

    Args:
        rows: which rows.
        own: what the layer gives (channels, ..., rows).
        hidden: what the linear map reads (channels, ..., rows).
        untouched: what the linear map gives (outputs, ..., rows).
    """

    rows: slice
    own: Tensor
    hidden: Tensor
    untouched: Tensor


# Run very often with small tensors: checking the shapes of each call, as everywhere else in the
# package, would take as long as the work. Tests compare all of it with the slow reference.
@no_type_check
def piece_of(suffix: Suffix, own: Tensor, rows: slice) -> Piece:
    """Some rows of a layer, and what the suffix makes of them up to its linear map.

    Args:
        suffix: what follows the layer.
        own: what the layer gives without intervention (channels, ..., rows).
        rows: which rows.

    Example:
        >>> import torch
        >>> from carelab.causal.pieces import Suffix, piece_of
        >>> suffix = Suffix(head=(torch.nn.ReLU(),), linear=torch.nn.Linear(3, 2), tail=())
        >>> piece_of(suffix, torch.rand(3, 5), slice(1, 5)).untouched.shape
        torch.Size([2, 4])
    """
    part = own[..., rows].contiguous()
    hidden = run_head(suffix, part.clone())
    untouched = run_linear(suffix, hidden).contiguous()
    return Piece(rows=rows, own=part, hidden=hidden, untouched=untouched)


@no_type_check
def run_head(suffix: Suffix, current: Tensor, channels: Sequence[int] | None = None) -> Tensor:
    """The modules before the linear map, for some channels; a flatten keeps them apart.

    Args:
        suffix: what follows the layer.
        current: the channels (channels, ..., rows); they may be overwritten.
        channels: which these are, where they are not all.

    Example:
        >>> import torch
        >>> from carelab.causal.pieces import Suffix, run_head
        >>> suffix = Suffix(head=(torch.nn.ReLU(),), linear=torch.nn.Linear(3, 2), tail=())
        >>> run_head(suffix, torch.tensor([[-1.0, 2.0]]), [1])
        tensor([[0., 2.]])
    """
    for module in suffix.head:
        if not is_full_flatten(module):
            current = rows_last(module, channels=channels)(current)
    return current


@no_type_check
def run_linear(suffix: Suffix, hidden: Tensor) -> Tensor:
    """The linear map on all channels.

    Args:
        suffix: what follows the layer, with a linear map.
        hidden: what the map reads (channels, ..., rows).

    Example:
        >>> import torch
        >>> from carelab.causal.pieces import Suffix, run_linear
        >>> suffix = Suffix(head=(), linear=torch.nn.Linear(6, 2), tail=())
        >>> run_linear(suffix, torch.rand(3, 2, 5)).shape
        torch.Size([2, 5])
    """
    flat = hidden.flatten(0, -2) if type(suffix.linear) is nn.Linear else hidden
    return rows_last(suffix.linear)(flat)
