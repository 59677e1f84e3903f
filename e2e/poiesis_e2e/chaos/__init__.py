"""The chaos test of docs/explanation/chaos.md: tasks while parts of Poiesis and of the node are killed."""
