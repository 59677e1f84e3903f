"""TES 1.1 over HTTP, and the submitter that makes a task's Kubernetes objects; stateless replicas."""
