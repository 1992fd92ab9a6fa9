"""Chromium for the tests of pages: where it is, how it is started, and what it asks for."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["chromium", "evaluate", "missing_for_browser_tests", "open_page", "requests_of", "running"]

LOCAL = re.compile(r"(https?|ws)://(127\.0\.0\.1|localhost)[:/]|data:|blob:")
START_SECONDS = 180

# Says on stderr when Python code of the server looks up or connects to another machine.
WATCH = """
import sys
def watch(event, arguments):
    host = {"socket.getaddrinfo": lambda: arguments[0], "socket.connect": lambda: arguments[1]}.get(event, lambda: None)()
    host = host[0] if isinstance(host, tuple) else None if event == "socket.connect" else host
    if host not in (None, "", "127.0.0.1", "::1", "localhost"):
        print("leaves the machine:", host, file=sys.stderr, flush=True)
sys.addaudithook(watch)
"""


def chromium() -> str | None:
    """Return the path of the Chromium or Chrome of this system."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def missing_for_browser_tests() -> str | None:
    """Say what browser tests lack here, None if they can run."""
    if importlib.util.find_spec("playwright") is None:
        return "needs Playwright: pip install playwright"
    return None if chromium() else "needs Chromium: apt-get install chromium"


@contextmanager
def open_page(**options: Any) -> Iterator[Any]:
    """Open an empty page; `requests_of` returns the addresses that it asks for."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": 1400, "height": 1000}, **options)
        context.set_default_timeout(START_SECONDS * 1000)
        page = context.new_page()
        page.asked = []
        page.on("request", lambda request: page.asked.append(request.url))
        yield page
        browser.close()


def evaluate(page: Any, expression: str) -> Any:
    """Evaluate JavaScript as the developer tools do, which a Content Security Policy without eval allows."""
    session = page.context.new_cdp_session(page)
    arguments = {"expression": expression, "awaitPromise": True, "returnByValue": True}
    return session.send("Runtime.evaluate", arguments)["result"].get("value")


def requests_of(page: Any, *, local: bool) -> list[str]:
    """Return the addresses that a page has asked for on this machine, or on others."""
    return [url for url in page.asked if bool(LOCAL.match(url)) == local]


@contextmanager
def running(command: list[str], log: Path, *, python: str | Path = sys.executable, **environment: str) -> Iterator[str]:
    """Run a server that prints its address first, and give the address; `log` gets what it writes to stderr."""
    with log.open("w") as errors:
        process = subprocess.Popen(
            [str(python), *command],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        assert process.stdout is not None
        try:
            found = re.search(r"http://[\w.:\[\]]+", process.stdout.readline())
            assert found is not None, log.read_text()
            yield found[0]
        finally:
            process.terminate()
            process.wait(30)
            process.stdout.close()
