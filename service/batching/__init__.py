"""Requests become batches: queue, lanes, and who watches the model."""
