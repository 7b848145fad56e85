"""The README's table of results says what the committed result files say."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "figures").glob("10_fairness_*_published.json"))


def table_row(result: dict) -> str:
    """One line of the table: rates in percent, accuracy in percentage points."""
    before, after = result["results"]["before"], result["results"]["after"]
    blind = result["results"]["baselines"]["hold_constant"]
    published = result["results"]["baselines"]["care_published"]

    def rate(measures: dict, name: str) -> str:
        return f"{100 * measures[f'unfair_rate_{name}']['mean']:.1f}"

    def drop(measures: dict) -> str:
        return f"{100 * (before['accuracy']['mean'] - measures['accuracy']['mean']):.1f}"

    cells = [
        result["parameters"]["task"],
        rate(after, "given"),
        rate(after, "fresh"),
        f"{rate(before, 'rows')} → {rate(after, 'rows')}",
        f"{rate(before, 'box')} → {rate(after, 'box')}",
        drop(after),
        rate(published, "given"),
        drop(blind),
    ]
    return f"| {' | '.join(cells)} |"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_row_of_the_table_is_what_the_run_gave(path: Path) -> None:
    row = table_row(json.loads(path.read_text(encoding="utf-8")))
    assert row in (ROOT / "README.md").read_text(encoding="utf-8")


def test_all_six_tasks_are_there() -> None:
    assert len(FILES) == 6


def test_the_mean_improvement_is_what_the_runs_gave() -> None:
    results = [json.loads(path.read_text(encoding="utf-8"))["results"] for path in FILES]
    improvement = sum(one["improvement_given"]["mean"] for one in results) / len(results)
    drop = sum(one["accuracy_drop"]["mean"] for one in results) / len(results)
    claim = (
        f"On average {100 * improvement:.1f} % fewer of the given instances flip "
        f"(the paper's headline: 61.91 %), for {100 * drop:.1f} points of accuracy."
    )
    assert claim in (ROOT / "README.md").read_text(encoding="utf-8")


FRONTIER = ROOT / "figures" / "11_fairness_frontier.json"
LOCALIZATION = ROOT / "figures" / "50_localization.json"


def localizer_row(name: str, strengths: dict) -> str:
    """One line of the localiser table: average precision with its interval at each strength."""
    cells = [
        f"{one['mean']:.2f} ({one['low']:.2f} to {one['high']:.2f})"
        for one in (
            strengths[strength]["average_precision"] for strength in ("weak", "medium", "strong")
        )
    ]
    return f"| {name} | {' | '.join(cells)} |"


def test_the_table_of_localizers_is_what_the_runs_gave() -> None:
    results = json.loads(LOCALIZATION.read_text(encoding="utf-8"))["results"]
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(results["localizers"]) >= 10
    for name, strengths in results["localizers"].items():
        assert localizer_row(name, strengths) in text


def frontier_row(task: str, results: dict) -> str:
    """One line of the frontier table: falls and accuracy in percent and percentage points."""
    verdict = results["verdict"][task]

    def choice(kind: str) -> str:
        one = verdict[kind]
        falls = [f"{100 * one[name]['mean']:.1f}" for name in ("fall_rows", "fall_box")]
        return f"{' / '.join(falls)} | {100 * one['accuracy_drop']['mean']:.2f}"

    cells = [
        task,
        choice("few_neurons"),
        choice("any_neurons"),
        f"{50 * verdict['hold_constant_drop']['mean']:.2f}",
        f"{100 * results['tasks'][task]['averaged_out'][0]['accuracy_drop']['mean']:.2f}",
        f"{100 * verdict['gap']['mean']:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def test_the_frontier_table_is_what_the_runs_gave() -> None:
    results = json.loads(FRONTIER.read_text(encoding="utf-8"))["results"]
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(results["tasks"]) == 11
    for task in results["tasks"]:
        assert frontier_row(task, results) in text


BACKDOORS = sorted((ROOT / "figures").glob("20_backdoor_*.json"))
RIVALS = ("random", "finetune", "finepruning", "anp", "care")


def backdoor_row(result: dict) -> str:
    """One line of the table of backdoors: attack's success in percent / points of accuracy lost."""
    parameters, results = result["parameters"], result["results"]
    before, ours = results["before"], results["after"]["ours"]

    def percent(one: dict) -> str:
        return f"{100 * one['mean']:.2f}"

    def both(measures: dict) -> str:
        return f"{percent(measures['attack_success_rate'])} / {percent(measures['drawdown'])}"

    seconds = sum(result["seconds"][step]["mean"] for step in ("localization", "repair"))
    cells = [
        f"{parameters['dataset']}, {parameters['attack']}",
        parameters["setting"],
        parameters["activation"],
        f"{percent(before['attack_success_rate'])} / {percent(before['accuracy'])}",
        both(ours),
        f"{seconds:.0f}",
        *(both(results["after"][name]) for name in RIVALS),
    ]
    return f"| {' | '.join(cells)} |"


@pytest.mark.parametrize("path", BACKDOORS, ids=lambda path: path.stem)
def test_a_row_of_the_backdoors_is_what_the_run_gave(path: Path) -> None:
    row = backdoor_row(json.loads(path.read_text(encoding="utf-8")))
    assert row in (ROOT / "README.md").read_text(encoding="utf-8")


def test_many_and_few_triggered_images_of_all_data_sets_are_there() -> None:
    names = {
        f"20_backdoor_{dataset}_{attack}_{setting}"
        for dataset in ("mnist", "fashion-mnist", "gtsrb", "cifar10")
        for attack in ("badnets", "blend")
        for setting in ("a", "b")
    }
    assert names <= {path.stem for path in BACKDOORS}


PROVED = sorted((ROOT / "figures").glob("31_provable_safety*.json"))


def provable_rows(result: dict) -> list[str]:
    """Lines of the table of proved repairs, one a method: fidelity in percent, seconds of wall."""
    tasks = {"later": "36 later tasks", "prorepair": "ProRepair's 36"}
    rows = []
    for method, totals in result["results"]["totals"].items():
        seconds = result["seconds"]["total"][method]
        count = totals["tasks"]
        cells = [
            tasks[result["parameters"]["which"]],
            method,
            f"{totals['proved']} / {totals['certificates_checked']} of {count}",
            f"{100 * totals['fidelity_domain_mean']:.3f} / "
            f"{100 * totals['fidelity_domain_worst']:.2f}",
            f"{100 * totals['fidelity_constant_mean']:.1f}",
            f"{100 * totals['generalization_mean']:.2f} / {100 * totals['kept_mean']:.2f}",
            f"{totals['still_held']} of {count}",
            f"{100 * totals['weights_changed_mean']:.2f}",
            f"{seconds['median']:.1f} / {seconds['worst']:.0f}",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


@pytest.mark.parametrize("path", PROVED, ids=lambda path: path.stem)
def test_the_rows_of_proved_repairs_are_what_the_run_gave(path: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for row in provable_rows(json.loads(path.read_text(encoding="utf-8"))):
        assert row in text


def test_every_proof_and_every_check_counts() -> None:
    result = json.loads((ROOT / "figures" / "32_verification.json").read_text(encoding="utf-8"))
    totals = result["results"]["totals"]
    said = (
        f"{totals['proved']} proved, {totals['refuted']} refuted, {totals['unknown']} unknown, "
        f"{totals['certificates_checked']} certificates checked again"
    )
    assert said in (ROOT / "README.md").read_text(encoding="utf-8")
