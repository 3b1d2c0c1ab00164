"""Speed and memory as figures; never part of the tests."""
