from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from carelab import lab
from carelab.lab.reporting import read_results, write_report


def test_the_page_holds_every_result_with_its_picture(tmp_path):
    lab.save(
        "a", Figure(), {"title": "First", "results": {"before": {"rate": 0.5}}}, out_dir=tmp_path
    )
    lab.save("b", None, {"title": "Second"}, out_dir=tmp_path)
    page = write_report(tmp_path, tmp_path / "new" / "report.html")
    text = page.read_text(encoding="utf-8")
    assert text.count("data:image/png;base64,") == 1
    assert "First" in text
    assert "b.png is missing" in text
    assert [path.name for path in page.parent.iterdir()] == ["report.html"]


@pytest.mark.parametrize("text", ["{", "", '{"a": NaN', "\xff"])
def test_a_broken_result_is_named_and_no_page_is_written(tmp_path, text):
    (tmp_path / "broken.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"figures: .*broken\.json is no JSON"):
        write_report(tmp_path, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_a_result_that_is_no_object_is_named(tmp_path):
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(ValueError, match=r"list\.json holds no JSON object"):
        read_results(tmp_path)


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no result file \(\*\.json\) in"):
        read_results(tmp_path / "none")
