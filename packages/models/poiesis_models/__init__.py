"""What every Poiesis service shares; no I/O.

Import the submodule you need: `tes` loads pydantic, everything else only the standard library, because
the recorder and the filers run once per task and their start time and memory are paid for by every task.
"""
