"""Test sets in their published layouts, read from a folder; nothing is downloaded."""
