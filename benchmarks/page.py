"""``make bench-page``: the page in Chromium with software GL, over cities of up to a million.

A real backend serves page, city and states. `change` is the time from a tick of a hundred
lamps at the page's own stream until its frame is drawn and read back. Prints what it does,
then one JSON object as its last line. Times to be ready are medians of several new
browser profiles; beside them stands how long MapLibre alone takes here over nothing.
Chromium loads pages of its own beside a new window, for more than a second of a core:
both wait until that is over, as somebody would who has a browser open.
"""

import argparse
import contextlib
import http.client
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright
from tests import servers

from benchmarks.__main__ import Targets, _cpu_s, close, show
from benchmarks.lighting import city
from duha_backend.app import TEND_S
from duha_backend.lighting.inventory import Asset
from duha_backend.registry import Registry

TARGETS: Targets = {
    "ready_20k_ms": ("<=", 1200),
    "change_20k_ms": ("<=", 70),
    "ready_200k_ms": ("<=", 2000),
    "change_200k_ms": ("<=", 200),
    "change_1m_ms": ("<=", 1200),
    "sse_100_clients_cpu_percent": ("<=", 5),
}
SOFTWARE_GL = [
    "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
    "--no-sandbox", "--enable-precise-memory-info",
]  # fmt: skip
SETTLED_MS = 2000
_KEEP_STREAM = """
  const Native = EventSource;
  window.EventSource = class extends Native {
    constructor(...given) { super(...given); window.stream = this; }
  };
"""
_CHANGE = """async () => {
  const canvas = document.querySelector('#map canvas'), gl = canvas.getContext('webgl2');
  const lamps = [...Array(100).keys()], frame = () => new Promise(requestAnimationFrame);
  const seqOf = () => fetch('/api/v1/state').then(answer => Number(answer.headers.get('x-seq')));
  let seq = await seqOf();
  window.stream.close();  // ticks of the backend would come in between
  const times = [];
  for (let k = 0; k < 7; k++) {
    const tick = {seq: ++seq, now: Date.now(), i: lamps, s: lamps.map(() => 20 + 10 * k), figures: {lit: k}, assets: 0};
    await frame();
    const begun = performance.now();
    window.stream.dispatchEvent(new MessageEvent('tick', {data: JSON.stringify(tick)}));
    await frame();
    gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4));
    times.push(performance.now() - begun);
  }
  return times.sort((a, b) => a - b)[3];
}"""


@contextlib.contextmanager
def served(assets: list[Asset]) -> Iterator[tuple[int, str, int]]:
    """A backend over a city: its port, a token, its process id."""
    folder = Path(tempfile.mkdtemp(prefix="duha-bench-page-"))
    registry = Registry.in_folder(folder)
    registry.put_assets(assets)
    token = registry.new_token("bench")
    registry.close()
    port = servers.free_port()
    command = [
        sys.executable, "-m", "duha", "backend", "run", "--data", str(folder),
        "--port", str(port), "--broker", "127.0.0.1:1",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait(port)
        yield port, token, process.pid
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(folder)


def _wait(port: int, limit_s: float = 180) -> None:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, http.client.HTTPException):
            link = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            link.request("GET", "/api/v1/health")
            if link.getresponse().status == 200:
                return
        time.sleep(0.2)
    raise TimeoutError("the backend did not start")


def look(browser: Browser, port: int, token: str) -> tuple[Page, float]:
    """A page signed in beforehand, and how long it took to be ready [ms]."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.add_init_script(_KEEP_STREAM)
    root = f"http://127.0.0.1:{port}"
    context.request.post(f"{root}/api/v1/session", data={"token": token})
    page = context.new_page()
    page.wait_for_timeout(SETTLED_MS)
    begun = time.perf_counter()
    page.goto(root)
    page.wait_for_selector("html[data-ready]", timeout=120_000)
    return page, 1000 * (time.perf_counter() - begun)


_BARE = """async () => {
  const begun = performance.now(), {Map} = await import('/vendor/maplibre-gl.mjs');
  document.documentElement.innerHTML = '<body><div id=map style="position:fixed;inset:0"></div></body>';
  const map = new Map({container: 'map', style: {version: 8, sources: {}, layers: []}});
  await new Promise(done => map.once('idle', done));
  return performance.now() - begun;
}"""


def bare(browser: Browser, port: int) -> float:
    """How long MapLibre takes until it has drawn nothing, in a new profile [ms]."""
    context = browser.new_context(
        viewport={"width": 1280, "height": 800}, bypass_csp=True
    )
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{port}/api/v1/health")
    page.wait_for_timeout(SETTLED_MS)
    took: float = page.evaluate(_BARE)
    context.close()
    return took


def draw(browser: Browser, count: int, name: str) -> dict[str, float]:
    """Ready time, change and heap of a city of so many lamps."""
    looks = 5 if count <= 200_000 else 2
    with served(city(count, 100)) as (port, token, _):
        found, times, alone = {}, [], []
        page, _ = look(browser, port, token)  # fills the caches of disk and compiler
        for _ in range(looks):
            page.context.close()
            alone.append(bare(browser, port))
            page, ready = look(browser, port, token)
            times.append(ready)
        found[f"ready_{name}_ms"] = statistics.median(times)
        found[f"bare_map_{name}_ms"] = statistics.median(alone)
        found[f"heap_{name}_mib"] = (
            page.evaluate("() => performance.memory.usedJSHeapSize") / 2**20
        )
        found[f"change_{name}_ms"] = page.evaluate(_CHANGE)
        sent = page.evaluate(
            "() => performance.getEntriesByType('resource')"
            ".reduce((sum, entry) => sum + entry.transferSize, 0)"
        )
        found[f"bytes_{name}_mib"] = sent / 2**20
        page.context.close()
    return found


def streams(clients: int = 100, seconds: float = 20) -> dict[str, float]:
    """What streams to clients cost the backend beyond what it does anyway [% of a core]."""
    with served(city(20_000, 100)) as (port, token, pid):
        time.sleep(TEND_S + 5)  # by then it has looked for nights to settle
        alone = _cpu_percent(pid, seconds)
        links = [_stream(port, token) for _ in range(clients)]
        time.sleep(2)
        busy = _cpu_percent(pid, seconds)
        for link in links:
            link.close()
    return {"sse_100_clients_cpu_percent": busy - alone}


def _stream(port: int, token: str) -> http.client.HTTPConnection:
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    link.request("GET", "/api/v1/events", headers={"Authorization": f"Bearer {token}"})
    if link.getresponse().status != 200:
        raise ConnectionError("no stream")
    return link


def _cpu_percent(pid: int, seconds: float) -> float:
    begun, before = time.monotonic(), _cpu_s(pid)
    time.sleep(seconds)
    return 100 * (_cpu_s(pid) - before) / (time.monotonic() - begun)


def main() -> int:
    """Run all, print the figures, and return how many targets were missed."""
    parser = argparse.ArgumentParser(prog="make bench-page", description=__doc__)
    parser.add_argument("--most", type=int, default=1_000_000, help="lamps, at most")
    options = parser.parse_args()
    found: dict[str, float] = {}
    chromium = shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=SOFTWARE_GL)
        for count, name in ((20_000, "20k"), (200_000, "200k"), (1_000_000, "1m")):
            if count <= options.most:
                for key, value in draw(browser, count, name).items():
                    found[key] = value
                    show(key, value, TARGETS)
        browser.close()
    for key, value in streams().items():
        found[key] = value
        show(key, value, TARGETS)
    asked = {name: target for name, target in TARGETS.items() if name in found}
    return close(found, asked)


if __name__ == "__main__":
    sys.exit(main())
