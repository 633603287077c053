"""This project measured beside the usual alternatives: `python -m miewid_core bench --help`.

Each comparison is a `measuring.Task`, by its name in `harness.TASKS`; `report` says what came out.
"""
