"""Task Controller: records what a TaskPod cannot report about itself."""
