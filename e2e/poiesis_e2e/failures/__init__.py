"""Every way in which a task ends otherwise than well: one list, for the document and for the stories."""
