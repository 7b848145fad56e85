"""What a property is, and how a network is judged by one."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from carelab.networks import check_inputs, logits
from carelab.records import Samples

__all__ = ["Property", "margins", "probe_outputs", "violates", "violation_rate", "violation_scores"]


@runtime_checkable
class Property(Protocol):
    """What must hold of a network, judged sample by sample.

    A property says at which inputs the network is to be run (`probes`) and reads off the logits
    there whether, and by how much, it is violated. Interventions and repairs only ever change
    what happens between the two, so they work for every property alike. Leading axes "runs" of
    the outputs are many variants of the network judged at once: neurons x steps, or particles.

    Example:
        >>> import torch
        >>> from carelab.properties import IndividualFairness, Property
        >>> fair = IndividualFairness(columns=(1,), values=torch.tensor([[0.0], [1.0]]))
        >>> isinstance(fair, Property)
        True
    """

    @property
    def name(self) -> str:
        """What the property is called in plots and records."""
        ...

    def probes(self, inputs: Float[Tensor, "batch ..."]) -> Float[Tensor, "probes batch ..."]:
        """The inputs at which the network is run to judge each sample."""
        ...

    def score(
        self, outputs: Float[Tensor, "*runs probes batch classes"], samples: Samples
    ) -> Float[Tensor, "*runs batch"]:
        """The graded violation y of each sample: the outcome whose causes are looked for."""
        ...

    def margin(
        self, outputs: Float[Tensor, "*runs probes batch classes"], samples: Samples
    ) -> Float[Tensor, "*runs batch"]:
        """How far each sample is from violating, in logits; negative where it violates."""
        ...

    def rate(
        self, outputs: Float[Tensor, "*runs probes batch classes"], samples: Samples
    ) -> Float[Tensor, "*runs"]:
        """The undesired behaviour UB of each run as a fraction of the samples."""
        ...


def probe_outputs(
    model: nn.Module, samples: Samples, prop: Property, *, batch_size: int = 8192
) -> Float[Tensor, "probes batch classes"]:
    """Logits of the network at every probe of every sample.

    Args:
        model: the network, in evaluation mode.
        samples: the samples to judge.
        prop: the property.
        batch_size: inputs a pass.

    Raises:
        ValueError: no sample, inputs of the wrong width, or a network in training mode.

    Example:
        >>> import torch
        >>> from carelab import networks, properties, records
        >>> model = networks.mlp(3, (4,), 2, generator=torch.Generator().manual_seed(0))
        >>> fair = properties.IndividualFairness(columns=(1,), values=torch.tensor([[0.0], [1.0]]))
        >>> properties.probe_outputs(model, records.Samples(inputs=torch.rand(5, 3)), fair).shape
        torch.Size([3, 5, 2])
    """
    if len(samples) == 0:
        raise ValueError("samples: got none; allowed: at least one sample to judge")
    check_inputs(model, samples.inputs)
    probes = prop.probes(samples.inputs)
    outputs = logits(model, probes.flatten(0, 1), batch_size=batch_size)
    return outputs.unflatten(0, probes.shape[:2])


def violation_scores(
    model: nn.Module, samples: Samples, prop: Property, *, batch_size: int = 8192
) -> Float[Tensor, " batch"]:
    """Graded violation y(x) of each sample.

    Args:
        model: the network, in evaluation mode.
        samples: the samples to judge.
        prop: the property; it says what the score means.
        batch_size: inputs a pass.

    Example:
        >>> import torch
        >>> from carelab import networks, properties, records
        >>> model = networks.mlp(3, (4,), 2, generator=torch.Generator().manual_seed(0))
        >>> fair = properties.IndividualFairness(columns=(1,), values=torch.tensor([[0.0], [1.0]]))
        >>> properties.violation_scores(model, records.Samples(inputs=torch.rand(5, 3)), fair).shape
        torch.Size([5])
    """
    outputs = probe_outputs(model, samples, prop, batch_size=batch_size)
    return prop.score(outputs, samples)


def margins(
    model: nn.Module, samples: Samples, prop: Property, *, batch_size: int = 8192
) -> Float[Tensor, " batch"]:
    """Distance of each sample from violating, in logits; negative where it violates.

    Args:
        model: the network, in evaluation mode.
        samples: the samples to judge.
        prop: the property.
        batch_size: inputs a pass.

    Example:
        >>> import torch
        >>> from carelab import networks, properties, records
        >>> model = networks.mlp(3, (4,), 2, generator=torch.Generator().manual_seed(0))
        >>> fair = properties.IndividualFairness(columns=(1,), values=torch.tensor([[0.0], [1.0]]))
        >>> properties.margins(model, records.Samples(inputs=torch.rand(5, 3)), fair).shape
        torch.Size([5])
    """
    outputs = probe_outputs(model, samples, prop, batch_size=batch_size)
    return prop.margin(outputs, samples)


def violates(
    model: nn.Module, samples: Samples, prop: Property, *, batch_size: int = 8192
) -> Bool[Tensor, " batch"]:
    """Which samples violate the property (their margin is negative).

    Args:
        model: the network, in evaluation mode.
        samples: the samples to judge.
        prop: the property.
        batch_size: inputs a pass.

    Example:
        >>> import torch
        >>> from carelab import networks, properties, records
        >>> model = networks.mlp(3, (4,), 2, generator=torch.Generator().manual_seed(0))
        >>> fair = properties.IndividualFairness(columns=(1,), values=torch.tensor([[0.0], [1.0]]))
        >>> properties.violates(model, records.Samples(inputs=torch.rand(5, 3)), fair).dtype
        torch.bool
    """
    return margins(model, samples, prop, batch_size=batch_size) < 0


def violation_rate(
    model: nn.Module, samples: Samples, prop: Property, *, batch_size: int = 8192
) -> float:
    """Undesired behaviour of the network as a fraction of the samples.

    Args:
        model: the network, in evaluation mode.
        samples: the samples to judge.
        prop: the property; for group fairness the rate is the gap between the groups.
        batch_size: inputs a pass.

    Example:
        >>> import torch
        >>> from carelab import networks, properties, records
        >>> model = networks.mlp(3, (4,), 2, generator=torch.Generator().manual_seed(0))
        >>> fair = properties.IndividualFairness(columns=(1,), values=torch.tensor([[0.0], [1.0]]))
        >>> properties.violation_rate(model, records.Samples(inputs=torch.zeros(5, 3)), fair)
        0.0
    """
    with torch.no_grad():
        outputs = probe_outputs(model, samples, prop, batch_size=batch_size)
        return float(prop.rate(outputs, samples))
