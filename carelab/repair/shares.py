"""How much of a network a repair touched: the fewest neurons that account for every change."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching
from torch import nn

from carelab.networks import hidden_neurons, ordered_modules

__all__ = ["edited_share"]


def edited_share(model: nn.Module, changed: nn.Module) -> float:
    """Fewest hidden neurons whose rows, biases or columns hold every changed weight, of all.

    A changed weight belongs to the neuron it leads into (its row) or to the one it comes from
    (its column); weights of the inputs and biases belong to the neuron they lead into, weights
    of the outputs to the one they come from; a changed bias of the output layer belongs to none.
    The fewest neurons are a smallest vertex cover, which in a bipartite graph is as large as a
    largest matching (König): neurons of odd layers on one side, of even layers on the other.

    Args:
        model: the network before, a sequence of linear layers.
        changed: the network after, of the same layout.

    Returns:
        A fraction of the hidden neurons, in [0, 1].

    Raises:
        ValueError: networks of different layout, or one with convolutions.

    Source: König, 1931; scipy's maximum_bipartite_matching.

    Example:
        >>> import torch
        >>> from carelab import networks, records, repair
        >>> model = networks.mlp(2, (3, 4), 2, generator=torch.Generator().manual_seed(0))
        >>> changed, _ = repair.scale_neurons(model, [records.Neuron("relu1", 0)], torch.zeros(1))
        >>> round(repair.edited_share(model, changed) * 7)
        1
    """
    before = [m for _, m in ordered_modules(model) if isinstance(m, nn.Linear | nn.Conv2d)]
    after = [m for _, m in ordered_modules(changed) if isinstance(m, nn.Linear | nn.Conv2d)]
    if [m.weight.shape for m in before] != [m.weight.shape for m in after]:
        raise ValueError("changed: has other layers than model; allowed: the same layout")
    if any(isinstance(module, nn.Conv2d) for module in before):
        raise ValueError("model: has convolutions; allowed: linear layers only")
    widths = [layer.weight.shape[0] for layer in before[:-1]]
    starts = np.concatenate([[0], np.cumsum(widths)])
    forced: set[int] = set()
    edges: list[tuple[int, int]] = []
    for depth, (old, new) in enumerate(zip(before, after, strict=True)):
        rows, columns = (old.weight != new.weight).nonzero().T.cpu().numpy()
        last = depth == len(before) - 1
        into = starts[depth] + rows if not last else None
        out_of = starts[depth - 1] + columns if depth else None
        if old.bias is not None and new.bias is not None and not last:
            biases = (old.bias != new.bias).nonzero().flatten().cpu().numpy()
            forced.update((starts[depth] + biases).tolist())
        if into is not None and out_of is not None:
            edges += list(zip(out_of.tolist(), into.tolist(), strict=True))
        elif into is not None:
            forced.update(into.tolist())
        elif out_of is not None:
            forced.update(out_of.tolist())
    return (len(forced) + _cover(edges, forced, starts)) / len(hidden_neurons(model))


def _cover(edges: list[tuple[int, int]], forced: set[int], starts: np.ndarray) -> int:
    """Size of a smallest vertex cover of the edges that no forced neuron covers already."""
    left = [edge for edge in edges if not forced & set(edge)]
    if not left:
        return 0
    depth = np.searchsorted(starts, np.array(left)[:, 0], side="right") - 1
    pairs = np.where((depth % 2 == 0)[:, None], np.array(left), np.array(left)[:, ::-1])
    size = int(starts[-1])
    graph = csr_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(size, size))
    matching = maximum_bipartite_matching(graph, perm_type="column")
    return int((torch.from_numpy(matching) >= 0).sum())
