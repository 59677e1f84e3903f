"""The Task Recorder: one per task, so every import costs every task time and memory."""
