"""A second opinion: the same question, asked of Marabou through the exported ONNX file."""

from __future__ import annotations

import importlib.util
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm.auto import tqdm

from carelab.networks import check_evaluation_mode, fingerprint, write_onnx
from carelab.proof.chains import AffineChain, affine_chain
from carelab.proof.counterexamples import confirmed_counterexample, representable
from carelab.proof.covering import parts_of
from carelab.proof.polytopes import Polytope, polytopes
from carelab.proof.verdicts import SplitTree, Verdict
from carelab.properties import OutputRegion, OutputRegions

__all__ = ["SecondOpinion", "second_opinion"]

_GONE = -2  # a node that a coarser tree no longer has


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class SecondOpinion:
    """What another verifier says of a network and a property.

    Args:
        status: "proved" as far as that verifier's arithmetic goes, "refuted" or "unknown".
        property_name: name of the property.
        network: sha256 of the network's weights (`networks.fingerprint`).
        verifier: name and version of the verifier.
        counterexample: for "refuted", an input of the box (features), float64, confirmed here.
        boxes: how many parts of the box it was asked about.
        boxes_left: how many of them it did not decide.
        seconds: wall time.
    """

    status: str
    property_name: str
    network: str
    verifier: str
    counterexample: Float[Tensor, " features"] | None = None
    boxes: int
    boxes_left: int
    seconds: float


def second_opinion(
    model: nn.Module,
    prop: OutputRegion | OutputRegions,
    *,
    seconds: float = 600.0,
    seconds_a_box: int = 5,
    start: Verdict | None = None,
    leaves: int = 16,
    progress: bool = False,
) -> SecondOpinion:
    """Whether no output of the property's box is in a polytope of it, as Marabou answers.

    The network goes through its ONNX file, which Marabou reads itself, so that nothing but the
    property's numbers is shared with `verify`. A part of the box that Marabou does not decide in
    time is cut in half across its longest side, and both halves are asked about.

    Args:
        model: a sequential network of ``Linear`` and ``ReLU``, float32, in evaluation mode.
        prop: the property, with a finite box.
        seconds: wall time after which it gives up.
        seconds_a_box: time for each part, in whole seconds.
        start: a verdict on the same property, whose cuts of the inputs say which parts to begin
            with; by default the whole box is the first. The parts cover the box in any case.
        leaves: that many parts of `start`, at most, are asked about at once.
        progress: show a bar.

    Returns:
        The answer. Marabou decides in float64 with tolerances of its own: it is evidence that
        `verify` is right, no proof by itself. A counterexample is confirmed as `verify` does.

    Raises:
        ModuleNotFoundError: maraboupy, an optional extra, is not installed.
        ValueError: a network or property that cannot be verified, or a time that is not positive.

    Source: Katz et al., The Marabou Framework, CAV 2019.

    Example:
        >>> import torch
        >>> from carelab import networks, proof, properties
        >>> model = networks.mlp(2, (3,), 2, generator=torch.Generator().manual_seed(0))
        >>> prop = properties.never_lowest(0, 2, low=-torch.ones(2), high=torch.ones(2))
        >>> proof.second_opinion(model, prop).status  # doctest: +SKIP
        'refuted'
    """
    if not seconds > 0 or seconds_a_box < 1 or leaves < 1:
        raise ValueError(
            f"seconds, seconds_a_box, leaves: got {seconds}, {seconds_a_box}, {leaves}; allowed: "
            "positive numbers"
        )
    check_evaluation_mode(model)
    marabou = _marabou()
    began = perf_counter()
    chain = affine_chain(model)
    parts = polytopes(prop, chain)
    asked, left, point = 0, 0, None
    with tempfile.TemporaryDirectory() as folder, tqdm(unit="box", disable=not progress) as bar:
        path = Path(folder) / "network.onnx"
        write_onnx(model, path)
        for number, part in enumerate(parts):
            query = _query(marabou, path, part)
            waiting = _first_boxes(part, start, number, leaves)
            while waiting and point is None and perf_counter() - began < seconds:
                low, high = waiting.pop()
                answer, found = _asked(marabou, query, low, high, seconds_a_box)
                asked += 1
                bar.update()
                if answer == "sat":
                    point = _confirmed(model, chain, part, found)
                if answer != "unsat" and point is None:
                    halves = _halves(low, high)
                    waiting += halves
                    left += not halves
            left += len(waiting)
    return SecondOpinion(
        status="refuted" if point is not None else "unknown" if left else "proved",
        property_name=prop.name,
        network=fingerprint(model),
        verifier=f"maraboupy {version('maraboupy')}",
        counterexample=point,
        boxes=asked,
        boxes_left=left,
        seconds=perf_counter() - began,
    )


def _marabou() -> Any:
    if importlib.util.find_spec("maraboupy") is None:
        raise ModuleNotFoundError(
            "maraboupy is not installed; a second opinion needs the extra carelab[marabou]"
        )
    with warnings.catch_warnings():
        # It warns of every reader of other formats whose package is missing.
        warnings.simplefilter("ignore")
        from maraboupy import Marabou

    return Marabou


def _first_boxes(
    part: Polytope, start: Verdict | None, number: int, leaves: int
) -> list[tuple[Tensor, Tensor]]:
    """Boxes that cover a polytope's: all of it, or what the cuts of a verdict make of it."""
    if start is None or number >= len(start.trees):
        return [(part.low, part.high)]
    tree = start.trees[number]
    coarse = SplitTree(
        split_on=_coarse_cuts(tree, len(part.low), leaves),
        split_at=tree.split_at,
        values=tree.values,
    )
    kept = coarse.split_on != _GONE
    coarse = replace(coarse, split_on=coarse.split_on[kept], split_at=coarse.split_at[kept])
    low, high = part.low.cpu().numpy(), part.high.cpu().numpy()
    boxes = parts_of(coarse, low, high, 0)
    lows, highs = torch.from_numpy(boxes.low).to(part.low), torch.from_numpy(boxes.high)
    return list(zip(lows, highs.to(part.low), strict=True))


def _coarse_cuts(tree: SplitTree, features: int, leaves: int) -> Tensor:
    """The cuts of a tree without those below nodes of few leaves, or on neurons; _GONE for them."""
    ons = tree.split_on.tolist()
    sizes, parts = [1] * len(ons), [1] * len(ons)
    waiting: list[int] = []
    for node in reversed(range(len(ons))):
        if ons[node] != -1:
            children = [waiting.pop(), waiting.pop()]
            sizes[node] = 1 + sum(sizes[child] for child in children)
            parts[node] = sum(parts[child] for child in children)
        waiting.append(node)
    coarse, node = torch.full((len(ons),), _GONE), 0
    while node < len(ons):
        whole = parts[node] <= leaves or ons[node] >= features
        coarse[node] = -1 if whole else ons[node]
        node += sizes[node] if whole else 1
    return coarse


def _query(marabou: Any, path: Path, part: Polytope) -> Any:
    """The network with the polytope that its outputs must not enter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        query = marabou.read_onnx(str(path))
    outputs = query.outputVars[0].flatten().tolist()
    for row, limit in zip(part.matrix.tolist(), part.limits.tolist(), strict=True):
        terms = [(variable, a) for variable, a in zip(outputs, row, strict=True) if a != 0]
        query.addInequality([one for one, _ in terms], [a for _, a in terms], limit)
    return query


def _asked(
    marabou: Any, query: Any, low: Tensor, high: Tensor, seconds: int
) -> tuple[str, Tensor | None]:
    """Marabou's answer for one box, and the input that it found."""
    inputs = query.inputVars[0].flatten().tolist()
    for variable, least, largest in zip(inputs, low.tolist(), high.tolist(), strict=True):
        query.setLowerBound(variable, least)
        query.setUpperBound(variable, largest)
    options = marabou.createOptions(verbosity=0, timeoutInSeconds=seconds, numWorkers=1)
    answer, values, _ = query.solve(verbose=False, options=options)
    if answer != "sat":
        return str(answer), None
    return "sat", torch.tensor([values[variable] for variable in inputs], dtype=torch.float64)


def _confirmed(
    model: nn.Module, chain: AffineChain, part: Polytope, point: Tensor | None
) -> Tensor | None:
    if point is None:
        return None
    points = representable(
        point.to(part.low).clamp(part.low, part.high).unsqueeze(0),
        part.low,
        part.high,
        next(model.parameters()).dtype,
    )
    found = confirmed_counterexample(model, chain, part.matrix, part.limits, points)
    return None if found is None else found.point


def _halves(low: Tensor, high: Tensor) -> Sequence[tuple[Tensor, Tensor]]:
    """Both halves of a box across its longest side, or none where no number lies inside it."""
    side = int((high - low).argmax())
    middle = low[side] / 2 + high[side] / 2
    if not bool(low[side] < middle) or not bool(middle < high[side]):
        return []
    first, second = high.clone(), low.clone()
    first[side] = second[side] = middle
    return [(low, first), (second, high)]
