"""HTTP: which photos look like this one?"""
