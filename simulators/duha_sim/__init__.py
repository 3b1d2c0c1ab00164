"""A city without hardware: its physics, its Modbus ports, its weather, its troubles."""
