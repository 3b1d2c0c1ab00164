"""The agent in the cabinet: Modbus in, MQTT out, programmes kept without a backend."""
