"""The model of a run: weights, costs, exports."""
