"""TES 1.1 over HTTP, and the submitter that makes a task's Kubernetes objects. Any number of replicas, no state."""
