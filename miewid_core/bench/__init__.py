"""This project measured beside the usual alternatives: `python -m miewid_core.bench --help`.

A module for each comparison: WAYS (ours first), SIZES, `prepare(way, **case)`, which returns what
is timed, and `differences()`, which shows first that the ways give the same answers.
"""
