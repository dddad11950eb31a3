"""A real Chromium, driven over the DevTools protocol."""

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import connect
from websockets.sync.connection import Connection

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-component-update",
    "--disable-background-networking", "--disable-sync", "--disable-default-apps", "--disable-dev-shm-usage",
)  # fmt: skip
_KEYS = {"ArrowRight": 39, "ArrowLeft": 37, "Escape": 27}


class Page:
    """The one tab of a browser."""

    def __init__(self, connection: Connection):
        self._connection = connection
        self._number = 0
        self.problems: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        self._connection.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._connection.recv(timeout=30))
            self._note(message)
            if message.get("id") == self._number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result

    def _note(self, message: dict[str, Any]) -> None:
        """Errors of the page, among them all that its Content-Security-Policy stopped."""
        if message.get("method") == "Runtime.exceptionThrown":
            self.problems.append(str(message["params"]["exceptionDetails"]))
        if message.get("method") == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
            self.problems.append(message["params"]["entry"]["text"])

    def open(self, address: str) -> None:
        self.call("Page.navigate", url=address)

    def value(self, script: str) -> Any:
        """What a script comes to, promises awaited."""
        found = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait_for(self, script: str, seconds: float = 20) -> None:
        ends_at = time.monotonic() + seconds
        while not self.value(f"Boolean({script})"):
            assert time.monotonic() < ends_at, f"never came true: {script}; {self.problems}"
            time.sleep(0.03)

    def press(self, key: str) -> None:
        code = {"key": key, "windowsVirtualKeyCode": _KEYS.get(key, ord(key[0]) if len(key) == 1 else 0)}
        text = {"text": key} if len(key) == 1 else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **code, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **code)

    def look_like(self, width_px: int, height_px: int, scheme: str) -> None:
        size = {"width": width_px, "height": height_px, "deviceScaleFactor": 1, "mobile": width_px < 500}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def chromium(profile: Path) -> Iterator[Page]:
    """A browser with an empty profile, gone at the end whatever happens."""
    assert CHROMIUM
    with subprocess.Popen(
        [CHROMIUM, *_QUIET, "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        try:
            told, ends_at = profile / "DevToolsActivePort", time.monotonic() + 60
            while not (told.is_file() and "\n" in told.read_text()):
                assert process.poll() is None, "the browser ended"
                assert time.monotonic() < ends_at, "the browser did not start"
                time.sleep(0.05)
            with connect(_address_of_tab(told.read_text().split()[0]), max_size=None) as connection:
                yield Page(connection)
        finally:
            process.kill()


def _address_of_tab(port: str) -> str:
    from urllib.request import urlopen

    while True:
        with urlopen(f"http://127.0.0.1:{port}/json/list", timeout=10) as answer:
            for tab in json.load(answer):
                if tab["type"] == "page":
                    address: str = tab["webSocketDebuggerUrl"]
                    return address
        time.sleep(0.05)
