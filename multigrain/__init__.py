"""The model core: what trainer, index and service must agree on."""
