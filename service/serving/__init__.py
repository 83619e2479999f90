"""The parts of a running service: engine, generations, adds."""
