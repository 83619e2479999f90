"""Single photos put in and taken out beside the collections."""
