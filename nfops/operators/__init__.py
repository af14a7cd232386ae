"""Operators: source to target. The folder is the registry: `residual_mlp.py` is operator `residual-mlp`."""
