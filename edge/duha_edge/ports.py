"""The library's clients for each kind of line; knows pymodbus for `bus`."""

import ssl
from collections.abc import Callable

from pymodbus import FramerType
from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient
from pymodbus.transport import CommParams, CommType

from duha_edge.errors import ConfigError
from duha_edge.site import BusConfig

Client = AsyncModbusTcpClient | AsyncModbusSerialClient


def client(config: BusConfig, on_bytes: Callable[[bool, bytes], bytes]) -> Client:
    """The client of a line; `on_bytes` sees what comes and goes before it does.

    Raises
    ------
    ConfigError
        Certificates that cannot be used.
    """
    if config.type == "rtu":
        return AsyncModbusSerialClient(
            str(config.port),
            framer=FramerType.RTU,
            baudrate=config.baud,
            bytesize=int(config.format[0]),
            parity=config.format[1],
            stopbits=int(config.format[2]),
            timeout=config.timeout_s,
            retries=0,
            reconnect_delay=0,
            trace_packet=on_bytes,
        )
    if config.type == "tls":
        return TlsClient(config, on_bytes)
    return AsyncModbusTcpClient(
        config.host,
        port=int(config.port),
        framer=FramerType.RTU if config.serial else FramerType.SOCKET,
        timeout=config.timeout_s,
        retries=0,
        reconnect_delay=0,
        trace_packet=on_bytes,
    )


class TlsClient(AsyncModbusTcpClient):
    """Modbus/TCP Security: the frames of Modbus TCP within TLS.

    The library's own TLS client leaves the header with transaction and unit away, which
    no device does.
    """

    def __init__(
        self, config: BusConfig, on_bytes: Callable[[bool, bytes], bytes]
    ) -> None:
        try:
            context = ssl.create_default_context(cafile=config.ca)
            if config.certificate:
                context.load_cert_chain(config.certificate, config.key)
        except OSError as error:  # a missing file, or one that is no certificate
            raise ConfigError(f"bus {config.name}: certificates: {error}") from None
        self.comm_params = CommParams(
            comm_type=CommType.TLS,
            host=config.host,
            port=int(config.port),
            sslctx=context,
            reconnect_delay=0,
            timeout_connect=config.timeout_s,
        )
        super().__init__("", framer=FramerType.SOCKET, retries=0, trace_packet=on_bytes)
