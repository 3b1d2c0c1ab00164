"""The baseline of `benchmarks.cost`: the least that brings Duha's batches into InfluxDB.

One loop: MQTT, JSON, line protocol by format, gzip at level 1, one write each second or
5,000 rows, an acknowledgement. It checks nothing, marks nothing and keeps no figures. Run
as ``python -m benchmarks.minimal PORT WRITE_URL [TOKEN]``, until SIGTERM.
"""

import gzip
import json
import signal
import sys
import threading
import time
import urllib.request
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

ROWS = 5000
FLUSH_S = 1.0


class Writer:
    """Batches that wait, and who writes them."""

    def __init__(self, port: int, url: str, token: str) -> None:
        self._url = url
        self._headers = {"Content-Encoding": "gzip"}
        if token:
            self._headers["Authorization"] = f"Token {token}"
        self._lines: list[str] = []
        self._done: list[tuple[str, str, int]] = []
        self._full = threading.Event()
        self._lock = threading.Lock()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="minimal")
        self._client.on_message = self._take
        self._client.connect("127.0.0.1", port)
        self._client.subscribe("duha/v1/load/+/data", 1)
        self._client.loop_start()

    def _take(self, _client: Any, _data: Any, message: mqtt.MQTTMessage) -> None:
        batch = json.loads(message.payload)
        controller = message.topic.split("/")[3]
        found = []
        for table in batch["tables"]:
            names = table["columns"][3:]
            form = ",".join(f"{name}=%r" for name in names)
            head = f"{table['kind']},controller={controller},device="
            for device, ts, quality, *values in table["rows"]:
                fields = form % tuple(map(float, values))
                found.append(f'{head}{device} quality="{quality}",{fields} {ts}')
        with self._lock:
            self._lines += found
            self._done.append((controller, batch["outbox"], batch["seq"]))
        if len(self._lines) >= ROWS:
            self._full.set()

    def flush(self) -> None:
        """Write what waits, and acknowledge it."""
        self._full.wait(FLUSH_S)
        self._full.clear()
        with self._lock:
            lines, self._lines = self._lines, []
            done, self._done = self._done, []
        if not lines:
            return
        body = gzip.compress("\n".join(lines).encode(), 1)
        request = urllib.request.Request(self._url, body, self._headers)
        while True:
            try:
                urllib.request.urlopen(request, timeout=60).close()
                break
            except OSError as error:  # a busy server
                print(error, file=sys.stderr)
                time.sleep(1)
        for controller, outbox, seq in done:
            ack = {"v": 1, "outbox": outbox, "ranges": [[seq, seq]]}
            self._client.publish(f"duha/v1/load/{controller}/ack", json.dumps(ack))


def main() -> None:
    """Run until SIGTERM."""
    port, url, *token = sys.argv[1:]
    writer = Writer(int(port), url, *(token or [""]))
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    print("ready", flush=True)
    while not ended.is_set():
        writer.flush()


if __name__ == "__main__":
    main()
