"""The traffic of very many controllers, without their devices: for load and for drills.

Each controller sends whole batches of readings and keeps to the contract: what is not
acknowledged is sent again. Everything is counted, so that a loss can be seen.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator

import msgspec
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from duha_contract.errors import ContractError
from duha_contract.messages import Ack, Batch, Table, decode, encode
from duha_contract.topics import build, parse, pattern

COLUMNS = (
    "device", "ts", "quality", "level_commanded_pct", "level_in_effect_pct",
    "level_actual_pct", "power_w", "energy_wh", "driver_temperature_c", "voltage_v",
    "lamp_failure",
)  # fmt: skip
"""Eight values of each luminaire."""
_CONTROLLER, _TS, _SEQ, _OUTBOX = "@@@@@@@@@", 1_111_111_111_111, 999_999_999, "@box@"
_VARIANTS = 16
RESEND_S = 5.0


def controller_name(number: int) -> str:
    """Id of a controller."""
    return f"RVO-{number:05d}"


def lamp_name(controller: str, number: int) -> str:
    """Id of a luminaire."""
    return f"{controller}-L{number:03d}"


def templates(lamps: int, seed: int = 1) -> list[bytes]:
    """Batches with room for controller, time, number and outbox."""
    chance = random.Random(seed)
    return [encode(_template(lamps, chance)) for _ in range(_VARIANTS)]


def _template(lamps: int, chance: random.Random) -> Batch:
    level = chance.choice((0, 40, 60, 100))
    rows = tuple(
        (
            lamp_name(_CONTROLLER, n), _TS, "good", level, level, level,
            round(level * 0.6 + chance.uniform(0, 2), 1), chance.randrange(10**7),
            round(chance.gauss(30, 4), 1), round(chance.gauss(231, 1.5), 1), 0,
        )
        for n in range(1, lamps + 1)
    )  # fmt: skip
    table = Table("luminaire", COLUMNS, rows)
    return Batch(1, "load", _OUTBOX, _SEQ, "trusted", (table,))


class Load:
    """Many controllers behind one connection to a broker.

    Parameters
    ----------
    port : int
        Where the broker listens, on loopback.
    controllers, lamps : int
        How many controllers, and luminaires of each.
    outbox : str
        Name of this run; every run is a new outbox.
    """

    def __init__(
        self, port: int, controllers: int, lamps: int, city: str = "load",
        outbox: str = "load",
    ) -> None:  # fmt: skip
        self.lamps = lamps
        self.sent = 0
        self.acknowledged = 0
        self.resent = 0
        self.lags: list[float] = []
        self._city = city
        self._outbox = outbox
        self._names = [controller_name(n) for n in range(controllers)]
        self._following = dict.fromkeys(self._names, 1)
        self._templates = templates(lamps)
        self._waiting: dict[tuple[str, int], tuple[int, float]] = {}
        self._lock = threading.Lock()
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=f"load-{outbox}"
        )
        self._client.max_inflight_messages_set(2000)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = self._connected
        self._client.on_message = self._taken
        self._client.connect_async("127.0.0.1", port)
        self._client.loop_start()

    def close(self) -> None:
        """Go away."""
        self._client.disconnect()
        self._client.loop_stop()
        del self._client  # its last sockets close when nobody holds it any more

    @property
    def waiting(self) -> int:
        """Batches that are not acknowledged."""
        return len(self._waiting)

    @property
    def rows(self) -> int:
        """Readings that are acknowledged."""
        return self.acknowledged * self.lamps

    def at_rate(self, rows_per_s: float, seconds: float) -> None:
        """Send evenly for a while, whatever becomes of it."""
        began, pause = time.monotonic(), self.lamps / rows_per_s
        for n, name in enumerate(self._round()):
            due = began + n * pause
            if due - began >= seconds:
                return
            time.sleep(max(0.0, due - time.monotonic()))
            self._send(name)
            if n % 256 == 0:
                self._send_again()

    def at_most(self, window: int, until: Callable[[], bool]) -> None:
        """Send as fast as it is acknowledged, with so many batches on their way."""
        for name in self._round():
            while len(self._waiting) >= window:
                if until():
                    return
                time.sleep(0.002)
                self._send_again()
            if until():
                return
            self._send(name)

    def drain(self, seconds: float) -> bool:
        """Send again until everything is acknowledged; False when that takes too long."""
        deadline = time.monotonic() + seconds
        while self._waiting and time.monotonic() < deadline:
            time.sleep(0.05)
            self._send_again()
        return not self._waiting

    def poison(self, count: int, chance: random.Random) -> None:
        """Send messages that nobody can store."""
        for n in range(count):
            raw = chance.randbytes(40) if n % 2 else b'{"v":1,"boot":%d}' % n
            topic = build(self._city, chance.choice(self._names), "data")
            self._client.publish(topic, raw, qos=1)

    def _round(self) -> Iterator[str]:
        while True:
            yield from self._names

    def _send(self, name: str) -> None:
        seq = self._following[name]
        self._following[name] = seq + 1
        ts = round(time.time() * 1000)
        with self._lock:
            self._waiting[name, seq] = (ts, time.monotonic() + RESEND_S)
            self.sent += 1
        self._publish(name, seq, ts)

    def _send_again(self) -> None:
        now = time.monotonic()
        with self._lock:
            late = [k for k, (_, due) in self._waiting.items() if due < now][:500]
            for key in late:
                self._waiting[key] = (self._waiting[key][0], now + RESEND_S)
        for name, seq in late:
            known = self._waiting.get((name, seq))
            if known is not None:
                self.resent += 1
                self._publish(name, seq, known[0])

    def _publish(self, name: str, seq: int, ts: int) -> None:
        raw = self._templates[(seq + hash(name)) % _VARIANTS]
        raw = raw.replace(_CONTROLLER.encode(), name.encode())
        raw = raw.replace(b"%d" % _TS, b"%d" % ts)
        raw = raw.replace(b"%d" % _SEQ, b"%d" % seq, 1)
        raw = raw.replace(_OUTBOX.encode(), self._outbox.encode(), 1)
        self._client.publish(build(self._city, name, "data"), raw, qos=1)

    def _connected(self, client: mqtt.Client, *_: object) -> None:
        client.subscribe(pattern(self._city, "ack"), 0)

    def _taken(self, _client: object, _data: object, message: mqtt.MQTTMessage) -> None:
        try:
            ack = decode(bytes(message.payload), Ack)
            name = parse(message.topic).controller
        except ContractError:
            return  # of others, who may send anything
        now = time.time()
        with self._lock:
            if ack.resend:
                for key, (ts, _) in list(self._waiting.items()):
                    if key[0] == name:
                        self._waiting[key] = (ts, 0.0)
            for first, last in ack.ranges if ack.outbox == self._outbox else ():
                for seq in range(first, last + 1):
                    known = self._waiting.pop((name, seq), None)
                    if known is not None:
                        self.acknowledged += 1
                        self.lags.append(now - known[0] / 1000)


def plain_messages(lamps: int, seed: int = 1) -> list[bytes]:
    """Readings as one message each, the way a first attempt at such a system sends them."""
    batch = _template(lamps, random.Random(seed))
    encoder = msgspec.json.Encoder()
    rows = batch.tables[0].rows
    return [
        encoder.encode(
            dict(zip(COLUMNS, (row[0].replace("@", "0"), *row[1:]), strict=True))
        )
        for row in rows
    ]
