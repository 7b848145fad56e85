"""The set-up agrees with itself: requirements, pins, conda's file and the Makefile."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import carelab

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = [Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines()]
# Written in two parts, so that this file does not hold what it forbids.
HOSTS = ("py" + "pi.org", "pythonhosted" + ".org", "anaconda" + ".org", "download.pytorch" + ".org")
MACHINE_PATH = re.compile(r"(?<![\w.:/~$}*])/(?:work|tmp|root|home|Users|opt)/")


def _requirements() -> list[Requirement]:
    """Every direct requirement, as `pip install .[lab]` has it."""
    extras = PROJECT["optional-dependencies"]
    lines = [*PROJECT["dependencies"], *extras["notebooks"], *extras["test"]]
    return [Requirement(line) for line in dict.fromkeys(lines)]


def test_the_extra_lab_is_everything():
    assert PROJECT["optional-dependencies"]["lab"] == ["carelab[notebooks,test]"]


@pytest.mark.parametrize("requirement", _requirements(), ids=str)
def test_each_requirement_is_pinned_to_a_version_it_allows(requirement):
    pins = [pin for pin in PINS if pin.name == canonicalize_name(requirement.name)]
    assert pins, "make lock"
    for pin in pins:
        (exact,) = pin.specifier
        assert exact.operator == "=="
        assert requirement.specifier.contains(exact.version)


@pytest.mark.parametrize("python", ["3.11.2", "3.11.7", "3.12.0", "3.13.0", "3.14.0"])
@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_each_requirement_has_one_pin_on_each_platform(python, platform):
    short = ".".join(python.split(".")[:2])
    where = {
        "python_version": short,
        "python_full_version": python,
        "sys_platform": platform,
        "platform_machine": "arm64" if platform == "darwin" else "x86_64",
    }
    live = [pin.name for pin in PINS if pin.marker is None or pin.marker.evaluate(where)]
    assert len(live) == len(set(live))
    assert {canonicalize_name(requirement.name) for requirement in _requirements()} <= set(live)


def test_the_pins_bring_no_address_no_path_and_no_gpu_packages():
    for pin in PINS:
        assert pin.url is None
        assert not re.match(r"nvidia-|cuda-|triton", pin.name)
        assert all("+" not in str(specifier) for specifier in pin.specifier)


def test_make_lock_keeps_the_version_of_torch():
    (torch,) = [pin for pin in PINS if pin.name == "torch"]
    (version,) = re.findall(r"^TORCH\s*:= (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert str(torch.specifier) == f"=={version}"


def test_conda_installs_the_same():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert conda == [f"python{PROJECT['requires-python']}", "pip"]
    expected = ["-c constraints.txt", *map(str, _requirements()), "-e ."]
    assert [str(Requirement(line)) if line[0] != "-" else line for line in pip["pip"]] == expected


def test_the_version_is_the_same_everywhere():
    assert carelab.__version__ == PROJECT["version"]


def _committed() -> list[Path]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


def test_no_committed_file_names_a_registry_or_a_path_of_a_machine():
    for path in _committed():
        text = path.read_bytes().decode("utf-8", errors="replace")
        if path.suffix == ".png":
            continue
        assert not [host for host in HOSTS if host in text], path
        assert not MACHINE_PATH.search(text), path


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('out = "/wo' + 'rk/main"', True),
        ("see /tm" + "p/x", True),
        ("https://host/ho" + "me/page", False),
        ("../tm" + "p/x", False),
    ],
)
def test_what_counts_as_a_path_of_a_machine(text, found):
    assert bool(MACHINE_PATH.search(text)) == found
