"""Revisions of the tables that a published catalog has in a PostgreSQL database."""
