"""What training minimises, exact over processes."""
