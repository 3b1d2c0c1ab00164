"""A page that stays open for days: behind a proxy, through sleep, with charts drawn again and again."""

import contextlib
import socket
import threading

import pytest
from playwright.sync_api import expect

from duha_sim.trouble import change
from tests.system.test_page import Tab, browser
from tests.system.test_views import go

__all__ = ["browser"]
pytestmark = [pytest.mark.browser, pytest.mark.system, pytest.mark.timeout(240)]
SMALL = ("--cabinets", "2", "--luminaires", "8", "--gauges", "2", "--rtu", "0", "--now")
BAD_GATEWAY = (
    b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
)


class Proxy:
    """A proxy that can answer 502, as nginx does while what is behind it restarts."""

    def __init__(self, target: int) -> None:
        self.bad = False
        self._target = target
        self._open: set[socket.socket] = set()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.http_port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End every connection."""
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.cut()
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                threading.Thread(
                    target=self._serve, args=(client,), daemon=True
                ).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            if self.bad:
                client.recv(65_536)
                client.sendall(BAD_GATEWAY)
                return
            with socket.create_connection(("127.0.0.1", self._target)) as server:
                self._open |= {client, server}
                back = threading.Thread(
                    target=_pipe, args=(server, client), daemon=True
                )
                back.start()
                _pipe(client, server)
                back.join()
                self._open -= {client, server}


def _pipe(source: socket.socket, to: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            to.sendall(data)
    with contextlib.suppress(OSError):
        to.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def town(start):
    return start(*SMALL)


@pytest.fixture
def proxied(town, browser):
    """A page behind a proxy."""
    proxy = Proxy(town.http_port)
    tab = Tab(browser, town, "en-GB")
    tab.root = f"http://127.0.0.1:{proxy.http_port}/"
    tab.open(town.token)
    yield town, tab, proxy
    tab.page.close()
    proxy.close()


def test_ticks_come_again_after_a_proxys_502(proxied):
    town, tab, proxy = proxied
    page, link = tab.page, tab.page.locator("#link")
    expect(link).to_have_text("● live", timeout=20_000)
    proxy.bad = True
    proxy.cut()
    expect(link).to_have_text("○ connection lost", timeout=20_000)
    page.wait_for_timeout(6000)  # several attempts meet a 502
    change(town.folder / "devices" / "trouble.json", "RVO-001-L003", "burnt_out")
    proxy.bad = False
    expect(link).to_have_text("● live", timeout=40_000)
    problem = page.locator("#problems tr", has_text="RVO-001-L003")
    expect(problem).to_contain_text("lamp failure", timeout=40_000)


def test_ticks_come_again_after_sleep_into_a_network_that_is_not_there_yet(proxied):
    town, tab, _ = proxied
    page, link = tab.page, tab.page.locator("#link")
    expect(link).to_have_text("● live", timeout=20_000)
    hide(page, hidden=True)
    tab.context.set_offline(True)
    hide(page, hidden=False)  # awake, but the network is still down
    expect(link).to_have_text("○ connection lost", timeout=30_000)
    change(town.folder / "devices" / "trouble.json", "RVO-002-L002", "burnt_out")
    tab.context.set_offline(False)
    expect(link).to_have_text("● live", timeout=40_000)
    problem = page.locator("#problems tr", has_text="RVO-002-L002")
    expect(problem).to_contain_text("lamp failure", timeout=40_000)


def hide(page, *, hidden):
    page.evaluate(
        """hidden => {
          Object.defineProperty(document, 'hidden', {configurable: true, get: () => hidden});
          document.dispatchEvent(new Event('visibilitychange'));
        }""",
        hidden,
    )


REDRAW = """async times => {
  const {chart, count, sweep} = await import('./chart.js');
  for (let k = 0; k < times; k++) {
    const place = document.createElement('div');
    document.querySelector('#view').replaceChildren(place);
    chart(place, {height: 200, series: [{}, {}]}, [[1, 2, 3], [1, 2, 3]]);
    sweep();
    if (k % 20 === 0) await new Promise(requestAnimationFrame);
  }
  return count();
}"""


def test_charts_drawn_again_for_a_week_keep_the_heap_flat(town, browser):
    tab = Tab(browser, town, "en-GB")
    tab.open(town.token)
    go(tab, "rain")
    page = tab.page
    devtools = tab.context.new_cdp_session(page)

    def heap() -> float:
        devtools.send("HeapProfiler.collectGarbage")
        found = devtools.send("Performance.getMetrics")["metrics"]
        return next(m["value"] for m in found if m["name"] == "JSHeapUsedSize")

    devtools.send("Performance.enable")
    page.evaluate(REDRAW, 200)
    before = heap()
    assert page.evaluate(REDRAW, 2000) <= 10
    assert heap() <= 1.1 * before
    assert tab.troubles == []
