from __future__ import annotations

from pathlib import Path

import pytest

from carelab.lab import provable_safety
from carelab.lab.provable_safety import METHODS, provable_result, provable_totals
from carelab.lab.safety_embedded import named_case
from carelab.networks import fingerprint
from carelab.proof import check_certificate, load_certificate

SMALL = {"points": 2000, "samples": 200, "seconds": 20.0}


@pytest.mark.parametrize("method", METHODS)
def test_a_repair_is_exported_proved_checked_and_measured(method: str, tmp_path: Path) -> None:
    case = named_case("embedded")
    result = provable_result(case, method, folder=tmp_path, **SMALL)
    assert result.status == "proved"
    assert result.certificate_checked
    assert result.generalization == 1.0
    assert result.violating > 0
    network = provable_safety.repaired_network(case, method, tmp_path)
    path = tmp_path / f"embedded_{method}.safetensors"
    assert load_certificate(path).network == fingerprint(network)
    assert check_certificate(network, case.prop, path).status == "proved"
    # The network given has another certificate coming.
    with pytest.raises(ValueError, match="network"):
        check_certificate(case.model, case.prop, path)


def test_ours_keeps_the_advice_and_the_other_properties(tmp_path: Path) -> None:
    result = provable_result(named_case("embedded"), "ours", folder=tmp_path, **SMALL)
    assert result.fidelity_domain > result.fidelity_constant
    assert result.kept == 1.0
    assert set(result.still_held.values()) == {"proved"}


def test_totals_by_hand() -> None:
    rows = [
        {
            "status": status,
            "certificate_checked": True,
            "still_held": {"phi1": held},
            "fidelity_domain": share,
            "fidelity_box": 1.0,
            "fidelity_constant": 0.8,
            "generalization": None,
            "kept": 1.0,
            "weights_changed": 0.1,
        }
        for status, held, share in (("proved", "proved", 0.9), ("unknown", "refuted", 0.7))
    ]
    totals = provable_totals(rows)
    assert (totals["tasks"], totals["proved"], totals["still_held"]) == (2, 1, 1)
    assert totals["fidelity_domain_mean"] == pytest.approx(0.8)
    assert totals["fidelity_domain_worst"] == 0.7
    assert "generalization_mean" not in totals


def test_refuses_a_method_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="method: got 'magic'; allowed: ours, prorepair"):
        provable_result(named_case("embedded"), "magic", folder=tmp_path)
