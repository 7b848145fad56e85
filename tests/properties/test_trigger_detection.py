from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from carelab.data import MaskTrigger
from carelab.properties import Reconstruction, detect_target, detect_target_by_deviation

TRIGGER = MaskTrigger(mask=torch.zeros(1, 28, 28), pattern=torch.zeros(1, 28, 28))


def reconstructions(sizes: Sequence[float], success: float = 1.0) -> list[Reconstruction]:
    return [
        Reconstruction(
            target=target, trigger=TRIGGER, success=success, size=size, history=torch.zeros(1)
        )
        for target, size in enumerate(sizes)
    ]


def drawn(networks: int, classes: int = 10) -> list[list[Reconstruction]]:
    """Clean networks under the model: log sizes of one normal law."""
    logs = 0.4 * torch.randn(networks, classes, generator=torch.Generator().manual_seed(0)) + 4
    return [reconstructions(sizes) for sizes in logs.exp().tolist()]


def test_by_hand() -> None:
    # Log sizes -8 and 4, 5, 6, the latter of mean 5 and deviation 1: the anomaly of the first is
    # 13 / sqrt(1 + 1/3), but a mask below a hundredth of a pixel counts as that much. Student's t
    # with 2 degrees of freedom exceeds 6.205 with a chance of 0.0125 = 0.05 / 4. Of the others each
    # is judged by the other two: class 1 by mean 5.5 and deviation sqrt(1/2), so that it is at
    # 1.5 / sqrt(1/2 * 3/2) = sqrt(3).
    found = detect_target(reconstructions([math.exp(log) for log in (-8, 4, 5, 6)]))
    assert found.suspects == (0,)
    assert found.threshold == pytest.approx(6.205, abs=1e-3)
    first = (5 - math.log(0.01)) / math.sqrt(4 / 3)
    expected = torch.tensor([first, math.sqrt(3), 0, -math.sqrt(3)], dtype=torch.float64)
    torch.testing.assert_close(found.anomaly, expected)
    assert found.level == 0.05
    # 6 / sqrt(4/3) = 5.196 stays below the threshold.
    found = detect_target(reconstructions([math.exp(log) for log in (-1, 4, 5, 6)]))
    assert found.suspects == ()
    assert float(found.anomaly[0]) == pytest.approx(6 / math.sqrt(4 / 3))


def test_the_known_rule_by_hand() -> None:
    # Median 9; distances from it 8, 1, 0, 1, 2 with median 1, so 8 / 1.4826 for the first.
    found = detect_target_by_deviation(reconstructions([1, 8, 9, 10, 11]))
    assert found.suspects == (0,)
    assert float(found.anomaly[0]) == pytest.approx(8 / 1.4826)
    assert float(found.anomaly[4]) == pytest.approx(-2 / 1.4826)
    assert found.level is None
    assert detect_target_by_deviation(reconstructions([7, 8, 9, 10, 17])).suspects == ()


def test_false_alarms_come_at_the_stated_rate() -> None:
    # One Bernoulli trial a network: three deviations of a rate of 0.1 in 500 are 0.04.
    alarms = sum(bool(detect_target(each, level=0.1).suspects) for each in drawn(500))
    assert abs(alarms / 500 - 0.1) < 0.04


def test_false_alarms_with_several_suspects() -> None:
    alarms = sum(bool(detect_target(each, level=0.1, most=3).suspects) for each in drawn(300))
    assert 0.03 < alarms / 300 < 0.15


def test_the_known_rule_raises_false_alarms_and_misses_small_masks() -> None:
    alarms = sum(bool(detect_target_by_deviation(each).suspects) for each in drawn(300))
    assert alarms / 300 > 0.08
    # Median 70 and median distance 65: a mask of size 0 is at 70 / (1.4826 65) = 0.73 only.
    spread = reconstructions([0.02, 10, 14, 20, 60, 80, 160, 200, 300, 400])
    assert detect_target_by_deviation(spread).suspects == ()
    assert detect_target(spread).suspects == (0,)


def test_several_targets_hide_each_other_unless_asked_for() -> None:
    found = reconstructions([3, 60, 70, 3.2, 80, 55, 65, 75, 62, 58])
    assert detect_target(found).suspects == ()
    both = detect_target(found, most=2)
    assert both.suspects == (0, 3)
    assert float(both.anomaly[[0, 3]].min()) > both.threshold
    assert float(both.anomaly[[1, 2, 4, 5, 6, 7, 8, 9]].max()) < both.threshold


def test_what_does_not_succeed_has_no_size() -> None:
    found = reconstructions([50, 60, 70, 80, 55, 65])
    failed = reconstructions([0.1], success=0.5)[0]
    failed = Reconstruction(
        target=9, trigger=TRIGGER, success=0.5, size=failed.size, history=failed.history
    )
    for rule in (detect_target, detect_target_by_deviation):
        assert rule([*found, failed]).suspects == ()
        assert float(rule([*found, failed]).anomaly[6]) < 0
    alone, beside = detect_target(found), detect_target([*found, failed])
    torch.testing.assert_close(beside.anomaly[:6], alone.anomaly)


def test_equal_sizes() -> None:
    for rule in (detect_target, detect_target_by_deviation):
        assert rule(reconstructions([5.0] * 6)).suspects == ()
        assert rule(reconstructions([5.0] * 5 + [1.0])).suspects == (5,)
        assert torch.isfinite(rule(reconstructions([5.0] * 5 + [1.0])).anomaly).all()


@settings(max_examples=40)
@given(
    logs=st.lists(st.floats(0, 6), min_size=5, max_size=12, unique=True), scale=st.floats(0.1, 10)
)
def test_only_ratios_of_sizes_count(logs: list[float], scale: float) -> None:
    sizes = [math.exp(log) for log in logs]
    one = detect_target(reconstructions(sizes))
    other = detect_target(reconstructions([scale * size for size in sizes]))
    if float(torch.tensor(logs).diff().abs().min()) > 1e-3:
        torch.testing.assert_close(one.anomaly, other.anomaly, rtol=1e-6, atol=1e-6)
        assert one.suspects == other.suspects


def test_misuse() -> None:
    found = reconstructions([1, 8, 9, 10, 11])
    with pytest.raises(ValueError, match="level: got 0"):
        detect_target(found, level=0)
    with pytest.raises(ValueError, match="most: got 0"):
        detect_target(found, most=0)
    with pytest.raises(ValueError, match=r"got 5, of which 5 succeed .* at least 6 that do"):
        detect_target(found, most=3)
    with pytest.raises(ValueError, match="of which 0 succeed"):
        detect_target(reconstructions([1, 2, 3, 4], success=0.5))
    with pytest.raises(ValueError, match="each class once"):
        detect_target([*found, found[0]])
    with pytest.raises(ValueError, match="threshold: got -1"):
        detect_target_by_deviation(found, threshold=-1)
