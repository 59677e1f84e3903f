"""Run tasks while parts of Poiesis and of the node are killed (docs/explanation/chaos.md)."""
