import hashlib
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from carelab.data.fetching import (
    DataError,
    RemoteFile,
    Source,
    cache_folder,
    file_status,
    obtain,
    user_folder,
)

CONTENT = bytes(range(256)) * 1000


class Server(ThreadingHTTPServer):
    """Serves CONTENT; the first `faults` answers break as `fault` says."""

    daemon_threads = True
    fault = ""
    faults = 0
    answers = 0


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.answers += 1
        fault = self.server.fault if self.server.answers <= self.server.faults else ""
        if fault == "not found":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        if fault == "dropped":
            self.wfile.write(CONTENT[: len(CONTENT) // 2])
        elif fault == "altered":
            self.wfile.write(CONTENT[:-1] + b"!")
        else:
            self.wfile.write(CONTENT)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(autouse=True)
def clean_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CARELAB_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("carelab.data.fetching.cache_folder", lambda: tmp_path / "cache/carelab")
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def source_at(port: int) -> Source:
    file = RemoteFile(
        path="set/file.bin",
        address=f"http://127.0.0.1:{port}/file.bin",
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        size=len(CONTENT),
    )
    return Source(name="set", description="a set", licence="MIT", files=(file,))


@pytest.fixture
def source(server: Server) -> Source:
    return source_at(server.server_address[1])


def in_cache(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache/carelab/set").glob("*"))


def user_copy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "mine" / "set" / "file.bin"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    monkeypatch.setenv("CARELAB_DATA", str(tmp_path / "mine"))
    return path


def test_download_is_kept_and_not_repeated(source: Source, server: Server, tmp_path: Path) -> None:
    (path,) = obtain(source, progress=False)
    assert path == tmp_path / "cache/carelab/set/file.bin"
    assert path.read_bytes() == CONTENT
    assert obtain(source, progress=False) == (path,)
    assert server.answers == 1
    assert in_cache(tmp_path) == ["file.bin"]


def test_progress_bar_only_where_wanted(source: Source, capsys: pytest.CaptureFixture[str]) -> None:
    (path,) = obtain(source, progress=False)
    assert "100%" not in capsys.readouterr().err
    path.unlink()
    obtain(source, progress=True)
    assert "100%" in capsys.readouterr().err


@pytest.mark.parametrize("fault", ["dropped", "altered", "not found"])
def test_one_fault_is_overcome_by_trying_again(
    source: Source, server: Server, tmp_path: Path, fault: str
) -> None:
    server.fault, server.faults = fault, 1
    (path,) = obtain(source, progress=False)
    assert path.read_bytes() == CONTENT
    assert server.answers == 2
    assert in_cache(tmp_path) == ["file.bin"]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("dropped", r"could not be fetched from http://127.0.0.1:\d+/file.bin \(\w+Error\)"),
        ("altered", r"serves has the wrong checksum \(expected sha256 [0-9a-f]{64}\)"),
        ("not found", r"could not be fetched from .* \(HTTP status 404\)"),
    ],
)
def test_lasting_fault_leaves_nothing_and_a_later_call_starts_clean(
    source: Source, server: Server, tmp_path: Path, fault: str, message: str
) -> None:
    server.fault, server.faults = fault, 3
    with pytest.raises(DataError, match=message) as caught:
        obtain(source, progress=False)
    assert caught.value.__suppress_context__  # one message, not a chain of tracebacks
    assert "embedded-census" in str(caught.value)
    assert str(tmp_path / "cache/carelab/set/file.bin") in str(caught.value)
    assert in_cache(tmp_path) == []
    (path,) = obtain(source, progress=False)
    assert path.read_bytes() == CONTENT


def test_refused_connection_tells_where_to_put_the_file(server: Server, tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as closed:
        port = closed.server_address[1]
    with pytest.raises(DataError, match=r"\(ConnectionError\); put the file at .* by hand"):
        obtain(source_at(port), progress=False)
    assert in_cache(tmp_path) == []


def test_partial_files_of_killed_downloads_are_removed_in_time(
    source: Source, tmp_path: Path
) -> None:
    folder = tmp_path / "cache/carelab/set"
    folder.mkdir(parents=True)
    for name, age in (("tmpabandond", 7200), ("tmprunning1", 5)):
        (folder / name).write_bytes(CONTENT[:100])
        os.utime(folder / name, (time.time() - age, time.time() - age))
    (path,) = obtain(source, progress=False)
    assert path.read_bytes() == CONTENT
    assert in_cache(tmp_path) == ["file.bin", "tmprunning1"]


def test_damaged_file_in_the_cache_is_fetched_again(
    source: Source, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    (path,) = obtain(source, progress=False)
    path.write_bytes(CONTENT[:-1] + b"?")
    assert file_status(source)[0].status == "wrong checksum"
    assert obtain(source, progress=False)[0].read_bytes() == CONTENT
    assert server.answers == 2
    assert "fetching it again" in caplog.text


def test_cache_that_cannot_be_written(source: Source, tmp_path: Path, server: Server) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(DataError, match=r"cache folder .* cannot be written .* CARELAB_DATA"):
        obtain(source, progress=False)
    assert server.answers == 0


def test_users_folder_comes_first_and_is_never_written(
    source: Source, server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mine = user_copy(monkeypatch, tmp_path, CONTENT)
    assert obtain(source, progress=False) == (mine,)
    assert file_status(source)[0].found == "CARELAB_DATA"
    mine.unlink()
    (cached,) = obtain(source, progress=False)
    assert cached.is_relative_to(tmp_path / "cache")
    assert not mine.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (CONTENT[:1000], "file.bin is truncated: 1000 of 256000 bytes"),
        (CONTENT[:-1] + b"?", r"wrong checksum: sha256 [0-9a-f]{64}, expected [0-9a-f]{64}"),
        (CONTENT + b"more", "wrong checksum"),
    ],
)
def test_damaged_file_of_the_user_is_an_error_every_time(
    source: Source,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    content: bytes,
    message: str,
) -> None:
    mine = user_copy(monkeypatch, tmp_path, content)
    for _ in range(2):
        with pytest.raises(DataError, match=message) as caught:
            obtain(source, progress=False)
    assert "replace it" in str(caught.value)
    assert "delete it" in str(caught.value)
    assert server.answers == 0
    assert mine.read_bytes() == content


def test_users_folder_that_does_not_exist(
    source: Source, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CARELAB_DATA", str(tmp_path / "nowhere"))
    for call in (user_folder, lambda: obtain(source), lambda: file_status(source)):
        with pytest.raises(DataError, match=r"CARELAB_DATA names .*nowhere, which is no folder"):
            call()


def test_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARELAB_DATA", " ")
    assert user_folder() is None


def test_status_of_a_missing_file(source: Source, server: Server) -> None:
    (status,) = file_status(source)
    assert (status.status, status.found, status.detail) == ("missing", "to download", "")
    assert server.answers == 0


def test_cache_folder_carries_the_package_name() -> None:
    assert cache_folder().name == "carelab"
