"""Every way in which a task can fail: one list, for the page and for the stories."""
