"""JupyterLab and Voila on the loopback address, and pages of them in a real browser."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
LOOPBACK = "127.0.0.1"
_LONG = 240_000  # milliseconds: a kernel that imports torch on a busy machine
# Messages of JupyterLab and of Voila themselves, which any notebook shows.
_NOT_OURS = ("Failed to load resource: the server responded with a status of 404",)


@dataclass
class Page:
    """A page of the browser, with everything that it asked for and complained of."""

    page: Any
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def outside(self) -> list[str]:
        """Requests that left the machine."""
        own = (f"http://{LOOPBACK}", f"ws://{LOOPBACK}", "data:", "blob:", "about:", "file:")
        return [address for address in self.requests if not address.startswith(own)]


def notebook(path: Path, cells: Sequence[str]) -> None:
    """Write a notebook with these code cells."""
    book = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell) for cell in cells],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    )
    nbformat.write(book, path)


@contextmanager
def serving(command: Sequence[str], folder: Path, ready: str) -> Iterator[str]:
    """A server on a free port of the loopback address, ended at the end; its address."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port = probe.getsockname()[1]
    address = f"http://{LOOPBACK}:{port}"
    settings = {
        name: str(folder / ".jupyter" / name)
        for name in ("JUPYTER_CONFIG_DIR", "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR")
    }
    filled = [sys.executable, "-m", *[part.format(port=port) for part in command]]
    news = folder / ".jupyter/JUPYTERLAB_SETTINGS_DIR/@jupyterlab/apputils-extension"
    news.mkdir(parents=True, exist_ok=True)
    quiet = {"fetchNews": "false", "checkForUpdates": False}
    (news / "notification.jupyterlab-settings").write_text(json.dumps(quiet))
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(
            filled,
            cwd=folder,
            env={**os.environ, **settings, "JUPYTER_PLATFORM_DIRS": "1"},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _wait_for(f"{address}{ready}", server, folder / "server.log")
            yield address
        finally:
            # Its kernels are in the group that it leads.
            os.killpg(server.pid, signal.SIGTERM)
            try:
                server.wait(timeout=20)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()


def _wait_for(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    ends = time.monotonic() + _LONG / 1000
    while time.monotonic() < ends:
        if server.poll() is not None:
            raise RuntimeError(f"the server ended: {log.read_text()[-2000:]}")
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.3)
    raise TimeoutError(f"{address} did not answer: {log.read_text()[-2000:]}")


def lab(folder: Path) -> Any:
    """JupyterLab on a folder."""
    return serving(
        [
            "jupyterlab",
            "--no-browser",
            f"--ip={LOOPBACK}",
            "--port={port}",
            "--IdentityProvider.token=",
            "--ServerApp.allow_root=True",
            f"--ServerApp.root_dir={folder}",
            "--expose-app-in-browser",
            "--KernelManager.transport_encryption=auto",
        ],
        folder,
        "/api/status",
    )


@contextmanager
def browser(playwright: Any) -> Iterator[Any]:
    """Debian's chromium, without a window."""
    launched = playwright.chromium.launch(executable_path=CHROMIUM, args=list(_FLAGS))
    try:
        yield launched
    finally:
        launched.close()


def new_page(opened: Any, size: tuple[int, int]) -> Page:
    """An empty page of that size, which notes requests and errors."""
    context = opened.new_context(
        viewport={"width": size[0], "height": size[1]}, accept_downloads=True
    )
    page = Page(page=context.new_page())
    page.page.set_default_timeout(_LONG)
    page.page.on("request", lambda request: page.requests.append(request.url))
    page.page.on("websocket", lambda socket: page.requests.append(socket.url))
    page.page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.page.on("console", lambda message: _note(page, message))
    return page


def _note(page: Page, message: Any) -> None:
    if message.type == "error" and not message.text.startswith(_NOT_OURS):
        page.errors.append(message.text)


def open_in_lab(page: Page, address: str, name: str) -> None:
    """Open a notebook in JupyterLab, run all of it, and wait for its explorer."""
    page.page.goto(f"{address}/lab/workspaces/{name}/tree/{name}.ipynb?reset")
    page.page.wait_for_function(
        "() => window.jupyterapp?.shell?.currentWidget?.context?.isReady === true"
    )
    page.page.evaluate(
        """async () => {
            const app = window.jupyterapp;
            const widget = app.shell.currentWidget;
            await widget.context.ready;
            await widget.sessionContext.ready;
            await app.commands.execute("application:toggle-left-area").catch(() => null);
            await app.commands.execute("notebook:run-all-cells");
        }"""
    )
    wait_for_explorer(page)


def wait_for_explorer(page: Page) -> None:
    """Wait until the explorer is drawn."""
    page.page.locator(".carelab-explorer .reading").first.wait_for()


def settle(page: Page, answered: int, at: int = 0) -> None:
    """Wait until a view has drawn the answer to all that was asked, of which there are more."""
    page.page.wait_for_function(
        """([answered, at]) => {
            const root = document.querySelectorAll(".carelab-explorer")[at];
            return root.requests.log.answered > answered && !root.requests.waits()
              && root.dataset.waiting === "no";
        }""",
        arg=[answered, at],
    )


def log_of(page: Page, at: int = 0) -> dict[str, Any]:
    """How many requests were sent and answered, and how long each took on the screen (ms)."""
    text = page.page.evaluate(
        "(at) => JSON.stringify(document.querySelectorAll('.carelab-explorer')[at].requests.log)",
        at,
    )
    return json.loads(text)


def readings(page: Page) -> dict[str, float]:
    """The read-outs on the screen, by name."""
    text = page.page.evaluate(
        """() => JSON.stringify(Object.fromEntries(
            [...document.querySelector(".carelab-explorer").querySelectorAll(".reading")].map(
                (one) => [one.dataset.name, Number(one.dataset.now)])))"""
    )
    return json.loads(text)


def voila(folder: Path, templates: Path) -> Any:
    """Voila on a folder, with a template that asks nothing from other hosts."""
    os.environ["JUPYTER_PATH"] = str(templates)
    return serving(
        [
            "voila",
            "--no-browser",
            f"--Voila.ip={LOOPBACK}",
            "--port={port}",
            "--template=offline",
            "--classic-tree",
            "--KernelManager.transport_encryption=auto",
            str(folder),
        ],
        folder,
        "/voila/static/voila-style.js",
    )
