"""Mutated messages against a running backend and a running agent."""

import argparse
import random
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from tests.mutants import CONTROLLERS, mutated_messages

from benchmarks.robust.city import CITY, Backend, city, quantile, until
from duha_sim.demo import _parser as demo_parser
from duha_sim.load import Load
from duha_sim.town import Town

CABINETS, LAMPS, ROWS_PER_S = 20, 20, 2000.0
MOST_BYTES = 250_000
"""The broker hangs up on a larger packet, and would again each time it is sent."""
AHEAD = 2000
"""Most mutants on their way to the broker."""


class Sender:
    """Publishes at QoS 1, as fast as the broker takes it."""

    def __init__(self, port: int) -> None:
        self.sent = 0
        self._way = threading.Semaphore(AHEAD)
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="mutants")
        self._client.max_inflight_messages_set(AHEAD)
        self._client.on_publish = lambda *_: self._way.release()
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def send(self, messages: Iterable[tuple[str, bytes, bool]]) -> None:
        """Publish messages; one that MQTT or the broker cannot carry is left out."""
        for topic, payload, retain in messages:
            if len(payload) > MOST_BYTES:
                continue
            try:
                self._way.acquire(timeout=30)
                self._client.publish(topic, payload, qos=1, retain=retain)
                self.sent += 1
            except ValueError:  # a wildcard, or a name that is no UTF-8
                self._way.release()

    def close(self) -> None:
        """Wait until the broker has everything, and go."""
        for _ in range(AHEAD):
            self._way.acquire(timeout=30)
        self._client.disconnect()
        self._client.loop_stop()
        del self._client


def backend(count: int, seed: int) -> dict[str, float]:
    """Mutants on every topic of a city, while other controllers send valid readings."""
    with city(CABINETS, LAMPS, others=CONTROLLERS) as target:
        load = Load(target.broker, CABINETS, LAMPS, city=CITY, outbox="valid")
        sender = Sender(target.broker)
        done = threading.Event()
        steady = threading.Thread(target=_steady, args=(load, done))
        steady.start()
        step = max(1, count // 10)
        began = time.monotonic()
        for part in range(0, count, step):
            sender.send(mutated_messages(seed + part, min(step, count - part)))
            target.check()
            print(f"  {sender.sent:,} mutants, {target.rss_mib:.0f} MiB", flush=True)
        sender.close()
        rate = sender.sent / (time.monotonic() - began)
        done.set()
        steady.join()
        load.drain(60)
        target.check()
        lags, unacked = list(load.lags), load.waiting
        restart = _restarted(target, load)
        result = {
            "mqtt_mutants": sender.sent,
            "mqtt_mutants_per_s": rate,
            "process_deaths": target.deaths,
            "valid_sent": load.sent,
            "valid_unacked": unacked + load.waiting,
            "valid_ack_p99_s": quantile(lags, 0.99),
            "restart_with_retained_s": restart,
        }
        load.close()
        return result


def _steady(load: Load, done: threading.Event) -> None:
    while not done.is_set():
        load.at_rate(ROWS_PER_S, 1.0)


def _restarted(target: Backend, load: Load) -> float:
    """Restart with everything still retained; how long until readings are acknowledged [s]."""
    target.stop()
    before = load.acknowledged
    target.start()
    began = time.monotonic()
    while load.acknowledged == before and time.monotonic() - began < 30:
        load.at_rate(ROWS_PER_S, 0.1)
    took = time.monotonic() - began
    time.sleep(5)
    target.check()
    load.drain(30)
    return took


def agent(count: int, seed: int) -> dict[str, float]:
    """Mutated documents and acknowledgements against an agent; then a restart with them."""
    words = ("--cabinets", "1", "--luminaires", "8", "--gauges", "1", "--rtu", "0")
    options: argparse.Namespace = demo_parser().parse_args(
        [*words, "--port", "0", "--now", "--broker", "mosquitto"]
    )
    with tempfile.TemporaryDirectory(prefix="duha-robust-") as name:
        town = Town(options, Path(name))
        town.start()
        try:
            return _attack_agent(town, count, seed)
        finally:
            town.stop()


def _attack_agent(town: Town, count: int, seed: int) -> dict[str, float]:
    cabinet = town.city.cabinets[0].id
    (part,) = [n for n in town.children if n not in ("broker", "backend", "devices")]
    sender, deaths, chance = Sender(town.broker_port), 0, random.Random(seed)
    step = max(1, count // 10)
    for begin in range(0, count, step):
        found = mutated_messages(seed + begin, 8 * step, controllers=(cabinet,))
        wanted = (m for m in found if m[0].endswith(("/ack", "/desired")))
        sender.send(_retained(wanted, chance, min(step, count - begin)))
        if town.children[part].poll() is not None:
            deaths += 1
            town.again(part)
        print(f"  {sender.sent:,} documents and acknowledgements", flush=True)
    sender.close()
    town.end([part])
    town.again(part)
    time.sleep(10)  # time enough to meet what is retained
    deaths += town.children[part].poll() is not None
    rows = _newest(town)
    took = until(lambda: _newest(town) > rows, 60, "no reading after a restart")
    return {"edge_mutants": sender.sent, "edge_deaths": deaths, "edge_first_reading_s": took}  # fmt: skip


def _retained(
    messages: Iterable[tuple[str, bytes, bool]], chance: random.Random, most: int
) -> Iterable[tuple[str, bytes, bool]]:
    for number, (topic, payload, _) in enumerate(messages):
        if number >= most:
            return
        yield topic, payload, chance.random() < 0.5


def _newest(town: Town) -> float:
    """Time of the newest reading [ms]."""
    found = town.ask("GET", "/latest/luminaire?columns=power_w")["columns"]
    return max((ts for ts in found["ts"] if ts), default=0)
