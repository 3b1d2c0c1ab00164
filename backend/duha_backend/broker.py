"""The embedded broker: amqtt, on loopback, for a laptop and for tests.

A city runs Mosquitto or a cluster; the contract asks for MQTT 3.1.1 only.
"""

import asyncio
import logging
import signal

from amqtt.broker import Broker


async def serve(host: str, port: int) -> None:
    """Run a broker until the process is told to stop."""
    logging.getLogger("amqtt").setLevel(logging.ERROR)
    logging.getLogger("transitions").setLevel(logging.ERROR)
    plugins = {
        "amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}
    }
    listeners = {"default": {"type": "tcp", "bind": f"{host}:{port}"}}
    broker = Broker({"listeners": listeners, "plugins": plugins})
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await broker.start()
    print(f"broker: listens on {host}:{port}", flush=True)
    await stop.wait()
    await broker.shutdown()
