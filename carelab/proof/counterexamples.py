"""Look for inputs that violate a property, and confirm them in the number types that count."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from carelab.networks import write_onnx
from carelab.proof.chains import AffineChain
from carelab.proof.polytopes import Polytope
from carelab.proof.rounding import rounding_margins

__all__ = [
    "Counterexample",
    "confirmed_counterexample",
    "descended",
    "exported_outputs",
    "representable",
    "spread_points",
]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Counterexample:
    """An input that violates a property for certain.

    Args:
        point: the input (features), float64.
        confirmed_by: the arithmetics in which it does, as in `Verdict`.
    """

    point: Float[Tensor, " features"]
    confirmed_by: tuple[str, ...]


def spread_points(part: Polytope, count: int) -> Float[Tensor, "count features"]:
    """Points that fill a polytope's box evenly, the same ones each time.

    Args:
        part: the polytope.
        count: how many.

    Source: Sobol, USSR Computational Mathematics and Mathematical Physics 1967, as torch has it.

    Example:
        >>> import torch
        >>> from carelab import proof
        >>> part = proof.Polytope(matrix=torch.eye(1), limits=torch.zeros(1), low=torch.zeros(1),
        ...     high=torch.ones(1))
        >>> proof.spread_points(part, 3).flatten().tolist()
        [0.0, 0.5, 0.75]
    """
    engine = torch.quasirandom.SobolEngine(len(part.low), scramble=False)
    shares = engine.draw(count, dtype=torch.float64).to(part.low)
    return part.low + shares * (part.high - part.low)


def descended(
    chain: AffineChain,
    part: Polytope,
    points: Float[Tensor, "batch features"],
    *,
    steps: int,
    first: float = 0.1,
) -> Float[Tensor, "batch features"]:
    """The best points met on ways down the largest row of matrix y - limits, one way a point.

    Each step goes along the sign of the gradient and stays in the box; steps shrink from `first`
    to 1e-4 of its sides.

    Args:
        chain: the network.
        part: the polytope to get into, and its box.
        points: where the ways start.
        steps: steps of each way.
        first: length of the first step, as a share of each side of the box.

    Example:
        >>> import torch
        >>> from carelab import networks, proof
        >>> chain = proof.affine_chain(networks.mlp(2, (3,), 1, generator=torch.Generator()))
        >>> box = {"low": torch.zeros(2).double(), "high": torch.ones(2).double()}
        >>> part = proof.Polytope(matrix=torch.eye(1).double(), limits=torch.zeros(1).double(),
        ...     **box)
        >>> points = proof.descended(chain, part, proof.spread_points(part, 4), steps=3)
    """
    width = part.high - part.low
    best, lowest = points, points.new_full((len(points),), torch.inf)
    for share in torch.logspace(torch.tensor(first).log10(), -4, steps).tolist():
        with torch.enable_grad():
            inputs = points.detach().requires_grad_()
            depth = (chain(inputs) @ part.matrix.T - part.limits).amax(dim=1)
            (slope,) = torch.autograd.grad(depth.sum(), inputs)
        better = depth.detach() < lowest
        lowest = torch.where(better, depth.detach(), lowest)
        best = torch.where(better.unsqueeze(1), points, best)
        points = (points - share * width * slope.sign()).clamp(part.low, part.high)
    return best


def representable(
    points: Float[Tensor, "batch features"],
    low: Float[Tensor, " features"],
    high: Float[Tensor, " features"],
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "batch features"]:
    """Points of the box near the given ones whose coordinates the number type holds exactly.

    A side of the box that holds no such number keeps its float64 coordinate.

    Args:
        points: points of the box (batch, features).
        low: smallest value of each feature.
        high: largest value of each feature.
        dtype: the number type of the network's inputs.

    Returns:
        The points, float64.

    Example:
        >>> import torch
        >>> from carelab.proof import representable
        >>> point = torch.tensor([[0.1]], dtype=torch.float64)
        >>> representable(point, point[0], point[0] + 1).item() >= 0.1
        True
    """
    near = points.to(dtype)
    up = torch.nextafter(near, torch.full_like(near, torch.inf))
    down = torch.nextafter(near, torch.full_like(near, -torch.inf))
    near = torch.where(near.double() < low, up, torch.where(near.double() > high, down, near))
    inside = (near.double() >= low) & (near.double() <= high)
    return torch.where(inside, near.double(), points.double().clamp(low.double(), high.double()))


def confirmed_counterexample(
    model: nn.Module,
    chain: AffineChain,
    matrix: Float[Tensor, "rows outputs"],
    limits: Float[Tensor, " rows"],
    points: Float[Tensor, "batch features"],
    *,
    shape: Sequence[int] | None = None,
) -> Counterexample | None:
    """The point whose outputs are deepest in matrix y <= limits, if any is in it for certain.

    For certain: in float64 with the rounding margin to spare, in the network's own number type as
    torch runs it, and, where `exported_outputs` can tell, as onnxruntime does.

    Args:
        model: the network.
        chain: the same as a chain.
        matrix: rows of the polytope.
        limits: limit of each row.
        points: points to try (batch, features), float64.
        shape: shape of one input where the network takes no flat ones.

    Returns:
        One of the points and what confirmed it, or None.

    Example:
        >>> import torch
        >>> from carelab import networks, proof
        >>> model = networks.mlp(2, (3,), 1, generator=torch.Generator())
        >>> one, limit = torch.ones(1, 1).double(), torch.full((1,), 1e6).double()
        >>> chain, point = proof.affine_chain(model), torch.zeros(1, 2).double()
        >>> proof.confirmed_counterexample(model, chain, one, limit, point).confirmed_by[:2]
        ('float64', 'torch float32')
    """
    sums = rounding_margins(chain, points, points)[-1]
    # The margin of the row itself: its own sum has as many terms as the margin allows for.
    spare = 2 * (sums @ matrix.abs().T) + 1e-15 * limits.abs()
    certain = (chain(points) @ matrix.T - limits + spare).amax(dim=1)
    inputs = _shaped(points.to(next(model.parameters())), shape)
    with torch.no_grad():
        outputs = model(inputs).double()
    depth = torch.maximum(certain, (outputs @ matrix.T - limits).amax(dim=1))
    if not bool(depth.min() <= 0):
        return None
    arithmetics = ["float64", f"torch {str(inputs.dtype).removeprefix('torch.')}"]
    # The file is run on what is certain already, since making it takes a moment.
    sure = (depth <= 0).nonzero().squeeze(1)
    exported = exported_outputs(model, inputs[sure])
    if exported is not None:
        arithmetics.append("onnxruntime")
        own = (exported.to(matrix) @ matrix.T - limits).amax(dim=1)
        depth[sure] = torch.maximum(depth[sure], own)
    best = int(depth.argmin())
    if not bool(depth[best] <= 0):
        return None
    return Counterexample(point=points[best], confirmed_by=tuple(arithmetics))


def exported_outputs(
    model: nn.Module, inputs: Float[Tensor, "batch ..."]
) -> Float[Tensor, "batch outputs"] | None:
    """Outputs of the network's ONNX file as onnxruntime computes them, or None.

    None where onnxruntime, an optional extra, is not installed, or where the network has a layer
    that `networks.write_onnx` does not write.

    Args:
        model: the network, in evaluation mode.
        inputs: what it takes (batch, ...), in its number type.

    Example:
        >>> import torch
        >>> from carelab import networks, proof
        >>> model = networks.mlp(2, (3,), 1, generator=torch.Generator())
        >>> outputs = proof.exported_outputs(model, torch.zeros(4, 2))
        >>> outputs is None or outputs.shape == (4, 1)
        True
    """
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        try:
            write_onnx(model, path, shape=tuple(inputs.shape[1:]))
        except ValueError:
            return None
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    name = session.get_inputs()[0].name
    return torch.from_numpy(session.run(None, {name: inputs.detach().cpu().numpy()})[0])


def _shaped(points: Tensor, shape: Sequence[int] | None) -> Tensor:
    return points if shape is None else points.unflatten(1, tuple(shape))
