"""Task Controller: what a TaskPod cannot say of itself."""
