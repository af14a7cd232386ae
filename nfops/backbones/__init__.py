"""Backbones: point-wise fields. The folder is the registry: `siren.py` is backbone `siren`."""
