"""A headless Chromium in which tests open pages."""

import base64
import itertools
import json
import os
import shutil
import subprocess
import time

import pytest
import websocket

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
# .ci/run sets the variable: there a missing browser fails
needs_browser = pytest.mark.skipif(
    CHROMIUM is None and "MIEWID_BROWSER" not in os.environ, reason="no chromium to open pages in"
)
QUIET = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
QUIET += ["--disable-quic", "--no-first-run", "--disable-background-networking"]
QUIET += ["--disable-component-update", "--disable-sync"]
# by which the browser knows keys that act by themselves
CODES = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "ArrowLeft": 37, "ArrowUp": 38}
CODES |= {"ArrowRight": 39, "ArrowDown": 40, "Delete": 46}


class Browser:
    """A headless Chromium, spoken to by its DevTools protocol."""

    def __init__(self, folder):
        options = [f"--user-data-dir={folder / 'profile'}", "--remote-allow-origins=*", *QUIET]
        self.downloads, self.numbers, self.events = folder / "downloads", itertools.count(1), []
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        assert CHROMIUM, "no chromium to open pages in: apt-get install chromium"
        self.process = subprocess.Popen([CHROMIUM, *options, "about:blank"], **quiet)
        port = folder / "profile" / "DevToolsActivePort"
        wait_for(lambda: port.exists() and port.read_text().count("\n"))
        where, path = port.read_text().split("\n")[:2]
        self.socket = websocket.create_connection(f"ws://127.0.0.1:{where}{path}", timeout=20)
        self.session = None

    def forget(self):
        """Show an empty page to someone new, of whom nothing is kept: clearing what another page
        kept can still be under way when the next one keeps something."""
        self.session = None
        person = self.call("Target.createBrowserContext", disposeOnDetach=True)["browserContextId"]
        target = {"url": "about:blank", "browserContextId": person}
        attached = {"targetId": self.call("Target.createTarget", **target)["targetId"]}
        self.session = self.call("Target.attachToTarget", flatten=True, **attached)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        place = {"behavior": "allow", "downloadPath": str(self.downloads)}
        self.call("Browser.setDownloadBehavior", browserContextId=person, **place)

    def call(self, method, **parameters):
        message = {"id": next(self.numbers), "method": method, "params": parameters}
        if self.session and not method.startswith("Browser."):
            message["sessionId"] = self.session
        self.socket.send(json.dumps(message))
        while True:
            answer = json.loads(self.socket.recv())
            if answer.get("id") == message["id"]:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def run(self, script):
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def open(self, path):
        self._leave("Page.navigate", url=path.as_uri())

    def reload(self, progress):
        """Reload until the page shows `progress`: Chromium tells a page that is opened within
        milliseconds what was kept before them."""

        def shown():
            self._leave("Page.reload")
            return self.run("progress.textContent")

        wait_for(lambda: shown() == progress)

    def _leave(self, method, **parameters):
        self.run("window.left = true")  # of the page that is shown until the next one is there
        self.call(method, **parameters)
        wait_for(lambda: self.run("!window.left && document.readyState === 'complete'"))
        # which the script of the review page fills, the last of what it does
        wait_for(lambda: self.run("document.getElementById('progress')?.textContent !== ''"))

    def press(self, key, shift=False):
        more = {"windowsVirtualKeyCode": CODES.get(key, 0), "modifiers": 8 * shift}
        text = "\r" if key == "Enter" else key
        for kind in ("keyDown", "keyUp"):
            written = {"text": text} if kind == "keyDown" and len(text) == 1 else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, **more, **written)

    def write(self, text):
        self.call("Input.insertText", text=text)

    def click(self, selector):
        """Press the left button on the middle of what a selector finds."""
        box = f"document.querySelector({json.dumps(selector)}).getBoundingClientRect()"
        middle = f"(b => [b.x + b.width / 2, b.y + b.height / 2])({box})"
        self.drag(self.run(middle))

    def drag(self, *places):
        """Press the left button at the first (x, y), move to the others, and let go."""
        for kind in ("mousePressed", *["mouseMoved"] * (len(places) - 1), "mouseReleased"):
            x, y = places[0]
            places = places[1:] or places
            event = {"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1}
            self.call("Input.dispatchMouseEvent", **event)

    def choose_file(self, selector, path):
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def width(self, pixels, height=900):
        size = {"width": pixels, "height": height, "deviceScaleFactor": 1, "mobile": pixels < 700}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def screenshot(self, path):
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def exported(self):
        shutil.rmtree(self.downloads, ignore_errors=True)
        self.run("document.getElementById('export').click()")
        file = self.downloads / "reviewed.csv"
        wait_for(file.exists)
        return file

    def close(self):
        self.call("Browser.close")
        self.socket.close()
        self.process.wait(20)


def wait_for(condition, seconds=15):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
