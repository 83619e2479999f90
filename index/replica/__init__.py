"""Indexes in object stores: sent there, and read through copies on this machine."""
