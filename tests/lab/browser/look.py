"""A headless Chromium that does what lines of JSON on standard input say.

    {"wait": "<expression>"}     until the expression is true in the page; its value
    {"eval": "<expression>"}     the value of the expression
    {"size": [390, 844, true]}   width, height, and whether it is a phone
    {"scheme": "light"}          light or dark
    {"shot": "/path.png"}        a picture of what is seen
    {"end": true}                everything the page complained of

One line of JSON answers each: {"ok": value} or {"error": text}.
"""

import base64
import json
import subprocess
import sys
import tempfile
import time
import urllib.request

import websocket

PATIENCE = 40.0


class Browser:
    def __init__(self, url):
        self.directory = tempfile.TemporaryDirectory()
        self.process = subprocess.Popen(
            ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
             "--no-first-run", "--disable-background-networking", "--disable-component-update",
             "--disable-sync", "--disable-default-apps", "--remote-debugging-port=0",
             "--user-data-dir=" + self.directory.name, "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        said = []
        for line in self.process.stderr:
            said.append(line)
            if "DevTools listening" in line:
                port = line.split(":")[2].split("/")[0]
                break
        else:
            raise RuntimeError("chromium did not start: " + "".join(said[-10:]))
        pages = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=PATIENCE))
        page = next(page for page in pages if page["type"] == "page")
        self.socket = websocket.create_connection(
            page["webSocketDebuggerUrl"], suppress_origin=True, timeout=PATIENCE)
        self.number = 0
        self.complaints = []
        for domain in ["Runtime", "Log", "Page"]:
            self.call(domain + ".enable")
        self.call("Page.navigate", url=url)

    def call(self, method, **parameters):
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": parameters}))
        while True:
            heard = json.loads(self.socket.recv())
            kind = heard.get("method")
            if kind == "Runtime.exceptionThrown":
                self.complaints.append(heard["params"]["exceptionDetails"].get("text", "") + json.dumps(
                    heard["params"]["exceptionDetails"].get("exception", {}))[:500])
            elif kind == "Runtime.consoleAPICalled" and heard["params"]["type"] in ("error", "warning", "assert"):
                self.complaints.append(json.dumps(heard["params"]["args"])[:500])
            elif kind == "Log.entryAdded" and heard["params"]["entry"]["level"] in ("error", "warning"):
                self.complaints.append(heard["params"]["entry"]["text"])
            if heard.get("id") == self.number:
                if "error" in heard:
                    raise RuntimeError(f"{method}: {heard['error']}")
                return heard["result"]

    def value(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(json.dumps(result["exceptionDetails"])[:500])
        return result["result"].get("value")

    def wait(self, expression):
        end = time.monotonic() + PATIENCE
        while True:
            try:
                value, wrong = self.value(expression), ""
            except RuntimeError as error:  # of a page that is not there yet
                value, wrong = None, f" ({error})"
            if value:
                return value
            if time.monotonic() > end:
                text = self.value("document.body?.innerText")
                raise RuntimeError(f"never true: {expression}{wrong}; the page says:\n{text}")
            time.sleep(0.05)

    def do(self, wish):
        if "wait" in wish:
            return self.wait(wish["wait"])
        if "eval" in wish:
            return self.value(wish["eval"])
        if "size" in wish:
            width, height, phone = wish["size"]
            self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                      deviceScaleFactor=1, mobile=phone)
            return True
        if "scheme" in wish:
            self.call("Emulation.setEmulatedMedia",
                      features=[{"name": "prefers-color-scheme", "value": wish["scheme"]}])
            return True
        if "shot" in wish:
            picture = self.call("Page.captureScreenshot", format="png")
            with open(wish["shot"], "wb") as file:
                file.write(base64.b64decode(picture["data"]))
            return True
        if "end" in wish:
            self.value("1")
            return self.complaints
        raise RuntimeError(f"not understood: {wish}")

    def close(self):
        self.process.terminate()
        self.process.wait()


def main():
    browser = Browser(sys.argv[1])
    try:
        for line in sys.stdin:
            try:
                answer = {"ok": browser.do(json.loads(line))}
            except Exception as error:  # whatever it is, the test is to hear of it
                answer = {"error": str(error)}
            print(json.dumps(answer), flush=True)
    finally:
        browser.close()


main()
