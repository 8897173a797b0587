"""Converters by family: functions of a node, one table each."""
