"""How long interventions on a convolutional network take, beside the bare multiplications.

Run from the top of the repository: python -m benchmarks.convolutions
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor, nn

from benchmarks.localization import occupied, write
from benchmarks.multiplications import Chain, fastest_chains, multiply_all
from carelab.causal import activations, neuron_effects
from carelab.networks import cnn, feature_positions, hidden_neurons
from carelab.records import Neuron, Samples
from tests.reference.effects import run_replaced

__all__ = ["main"]

IMAGE = (1, 28, 28)
IMAGES = 10_000
STEPS = 4
LARGEST_RATIO = 3.0
LARGEST_MEMORY = 2048.0  # MiB
LARGEST_DIFFERENCE = 1e-10
# Cost must double when neurons, steps or images do, within a fifth.
DOUBLED = (1.6, 2.4)
_SMALL = {"neurons": 784, "steps": 8, "images": 1024}
_SEED = 0

# How many of each a localisation must do, and the matrices that it multiplies one after the other.
Work = Sequence[tuple[int, Sequence[Tensor]]]


class Chance:
    """The chance of one class, as a backdoor's target has it; one probe."""

    name = "chance of class 0"

    def probes(self, inputs: Tensor) -> Tensor:
        """The images themselves."""
        return inputs[None]

    def score(self, outputs: Tensor, samples: Samples) -> Tensor:
        """Softmax probability of class 0."""
        logits = outputs[..., 0, :, :]
        return (logits[..., 0] - logits.logsumexp(dim=-1)).exp()

    def margin(self, outputs: Tensor, samples: Samples) -> Tensor:
        """Minus the chance."""
        return -self.score(outputs, samples)

    def rate(self, outputs: Tensor, samples: Samples) -> Tensor:
        """Mean chance."""
        return self.score(outputs, samples).mean(dim=-1)


@click.command()
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Where to write.")
@click.option("--images", default=IMAGES, type=click.IntRange(min=64), help="Images for the time.")
@click.option("--repeats", default=2, type=click.IntRange(min=1), help="Interleaved runs.")
@click.option("--only-memory", is_flag=True, hidden=True, help="One run, then its peak memory.")
def main(output: Path | None, images: int, repeats: int, only_memory: bool) -> None:
    """Time effects of channels and positions, print a table and write it beside this file."""
    torch.set_num_threads(1)
    if only_memory:
        click.echo(json.dumps(_peak_memory()))
        return
    memory = _memory_of_a_child()
    model = _network()
    results = {
        "network": "convolutions 16 and 32 of 5 x 5, pooled; 1568 - 512 - 10; random weights",
        "units": {"channels": 48, "positions": 1568},
        "steps": STEPS,
        "torch": torch.__version__,
        "agreement": {"largest_difference": _largest_difference(model)},
        "whole": {"images": IMAGES, "mebibytes": memory},
        "timed": _beside_the_limit(model, images, repeats),
        "doubled": _doubled(model),
    }
    click.echo(_table(results))
    write(output or Path(__file__).with_name("convolutions.json"), results)
    missed = _missed(results)
    if missed:
        raise click.ClickException("; ".join(missed))


def _network() -> nn.Sequential:
    """CARE's NN5: its layers, with the weights that it starts training from."""
    generator = torch.Generator().manual_seed(_SEED)
    return cnn(IMAGE, (16, 32), (512,), 10, kernel=5, generator=generator)


def _images(count: int) -> Samples:
    generator = torch.Generator().manual_seed(_SEED + 1)
    return Samples(inputs=torch.rand(count, *IMAGE, generator=generator))


def _units(model: nn.Module) -> tuple[Neuron, ...]:
    channels = hidden_neurons(model, layers=["relu1", "relu2"])
    return (*channels, *feature_positions(model, "pool2", IMAGE))


def _largest_difference(model: nn.Sequential) -> float:
    """In double precision, from the slow reference, over a few units of each kind and 3 images."""
    double, samples = deepcopy(model).double(), Samples(inputs=_images(3).inputs.double())
    units = (*_units(model)[:48:16], *_units(model)[48::400])
    effects = neuron_effects(double, samples, Chance(), neurons=units, steps=STEPS)
    largest = 0.0
    for row, unit in enumerate(units):
        for step, value in enumerate(effects.values[row]):
            logits = [
                run_replaced(double, image, unit.layer, unit.place, value)
                for image in samples.inputs
            ]
            expected = float(torch.stack(logits).softmax(dim=-1)[:, 0].mean())
            largest = max(largest, abs(expected - float(effects.expectation[row, step])))
    return largest


def _beside_the_limit(model: nn.Sequential, images: int, repeats: int) -> dict[str, Any]:
    """Effects and bare multiplications by turns; minima of each, in seconds of the processor.

    Effects leave out what changes nothing: units that have their value already, and hidden
    neurons that stay on one side of their ReLU, of which random images leave more than real ones
    do. The limit counts them all.
    """
    generator = torch.Generator().manual_seed(_SEED)
    samples, units = _images(images), _units(model)
    with torch.inference_mode():
        work = _work(model, images)
        chains = fastest_chains(work, generator=generator)
        times = []
        for _ in range(repeats):
            multiplications = _seconds(lambda: multiply_all(work, chains, 1))
            effects = _seconds(
                lambda: neuron_effects(model, samples, Chance(), neurons=units, steps=STEPS)
            )
            times.append((effects, multiplications))
    effects, multiplications = (min(column) for column in zip(*times, strict=True))
    return {
        "images": images,
        "repeats": repeats,
        "threads": 1,
        "hidden_on_one_side": _on_one_side(model, samples),
        "gigamultiplications": _multiplications(work) / 1e9,
        "seconds": {
            "effects": effects,
            "multiplications": multiplications,
            "ratio": effects / multiplications,
            "rows_a_multiplication": _blocks(chains),
        },
    }


def _on_one_side(model: nn.Module, samples: Samples) -> float:
    """Neurons of the fully connected layer whose input has one sign on all images, as a share."""
    low, high = activations(model, samples.inputs, ["linear1"])["linear1"].aminmax(dim=0)
    return float(((low > 0) | (high <= 0)).double().mean())


def _work(model: nn.Sequential, images: int) -> Work:
    """What no method can avoid that runs the network again after each unit.

    A convolution counts as the multiplication of its patches, which are there already: one
    column an output place. The maps right after a unit are updated, not multiplied.
    """
    first, second, hidden, last = (
        model.get_parameter(f"{name}.weight").detach()
        for name in ("conv1", "conv2", "linear1", "linear2")
    )
    held = images * STEPS
    return [
        # The network once on each image.
        (images * 28 * 28, [first.flatten(1)]),
        (images * 14 * 14, [second.flatten(1)]),
        (images, [hidden, last]),
        # Channels of the first map: one input channel of the second convolution for each image,
        # everything fully connected for each value as well.
        (16 * images * 14 * 14, [second[:, :1].flatten(1)]),
        (16 * held, [hidden, last]),
        # Channels of the second map: their 49 columns for each image, then the last matrix.
        (32 * images, [hidden[:, :49]]),
        (32 * held, [last]),
        # Positions: one column is no multiplication.
        (1568 * held, [last]),
    ]


def _multiplications(work: Work) -> int:
    return sum(rows * sum(weight.numel() for weight in weights) for rows, weights in work)


def _blocks(chains: Sequence[Chain]) -> list[int]:
    return [block for block, _ in chains]


def _doubled(model: nn.Sequential) -> dict[str, dict[str, float]]:
    """Seconds for some positions, and times as long for twice the positions, values or images."""

    def seconds(neurons: int, steps: int, images: int) -> float:
        # Spread over all channels, of which some have nothing but zeros.
        units = feature_positions(model, "pool2", IMAGE)[:: 1568 // neurons]
        samples = _images(images)
        return min(
            _seconds(lambda: neuron_effects(model, samples, Chance(), neurons=units, steps=steps))
            for _ in range(3)
        )

    once = seconds(**_SMALL)
    return {
        name: {
            "from": size,
            "to": 2 * size,
            "seconds_ratio": seconds(**{**_SMALL, name: 2 * size}) / once,
        }
        for name, size in _SMALL.items()
    }


def _seconds(run: Callable[[], object]) -> float:
    """Of the processor, since other work on the machine must not count."""
    start = time.process_time()
    run()
    return time.process_time() - start


def _memory_of_a_child() -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.convolutions", "--only-memory"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def _peak_memory() -> dict[str, float]:
    model, samples = _network(), _images(IMAGES)
    before = occupied()
    neuron_effects(model, samples, Chance(), neurons=_units(model), steps=STEPS)
    return {"before": before, "peak": occupied()}


def _missed(results: dict[str, Any]) -> list[str]:
    """What the benchmark claims and this run does not show."""
    missed = []
    difference = results["agreement"]["largest_difference"]
    if difference > LARGEST_DIFFERENCE:
        missed.append(f"effects differ from the reference by {difference:.1e}")
    ratio, peak = results["timed"]["seconds"]["ratio"], results["whole"]["mebibytes"]["peak"]
    if ratio > LARGEST_RATIO:
        missed.append(f"{ratio:.2f} times the limit, over {LARGEST_RATIO:g}")
    if peak >= LARGEST_MEMORY:
        missed.append(f"{peak:.0f} MiB, not below {LARGEST_MEMORY:g}")
    for name, one in results["doubled"].items():
        if not DOUBLED[0] <= one["seconds_ratio"] <= DOUBLED[1]:
            missed.append(f"twice the {name} take {one['seconds_ratio']:.2f} times as long")
    return missed


def _table(results: dict[str, Any]) -> str:
    timed, whole = results["timed"], results["whole"]
    seconds = timed["seconds"]
    lines = [
        f"{results['network']}, torch {results['torch']}",
        f"48 channels and 1568 positions, {STEPS} values each, 1 thread, seconds of the processor",
        f"  {timed['images']} images: effects {seconds['effects']:.1f} s, bare multiplications "
        f"{seconds['multiplications']:.1f} s, ratio {seconds['ratio']:.2f}",
        f"  of the fully connected neurons {timed['hidden_on_one_side']:.0%} stay on one side",
        f"  {whole['images']} images: {whole['mebibytes']['peak']:.0f} MiB at the peak",
        f"  largest difference from the reference {results['agreement']['largest_difference']:.1e}",
    ]
    lines += [
        f"  {name:<8}{one['from']:>6} to {one['to']:<6} {one['seconds_ratio']:.2f} times as long"
        for name, one in results["doubled"].items()
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
