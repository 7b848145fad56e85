"""What another verifier says of repaired networks, read from their exported files."""

from __future__ import annotations

from typing import Any

from carelab.lab.provable_safety import repaired_network
from carelab.lab.safety_embedded import named_case
from carelab.proof import second_opinion, verify

__all__ = ["second_row"]


def second_row(name: str, method: str, *, folder: str, seconds: float) -> dict[str, Any]:
    """What Marabou says of the network that `provable_result` wrote, for `kept_runs`.

    Args:
        name: the task, as in `named_case`.
        method: the method.
        folder: the folder that was given.
        seconds: wall time after which Marabou gives up.

    Returns:
        `network`, `property`, `status`, `verifier`, `boxes`, `boxes_left` and `seconds`.

    Raises:
        FileNotFoundError: no such network was written.
        ModuleNotFoundError: the extra carelab[marabou] is not installed.

    Example:
        >>> from carelab.lab.second_opinions import second_row
        >>> second_row("embedded", "ours", folder=".runs/none", seconds=1.0)
        Traceback (most recent call last):
        FileNotFoundError: ...
    """
    case = named_case(name)
    network = repaired_network(case, method, folder)
    start = verify(network, case.prop)
    found = second_opinion(network, case.prop, seconds=seconds, start=start)
    return {
        "network": case.name.partition("-")[0],
        "property": case.prop.name,
        "status": found.status,
        "verifier": found.verifier,
        "boxes": found.boxes,
        "boxes_left": found.boxes_left,
        "seconds": found.seconds,
    }
