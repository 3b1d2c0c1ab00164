"""Alarms after ISA-18.2: found in the readings, one for each cause, kept until dealt with."""
