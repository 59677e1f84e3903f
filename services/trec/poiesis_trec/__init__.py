"""The Task Recorder: one per task, so every import is paid for by every task."""
