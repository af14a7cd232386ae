"""k nearest neighbours as an operator of nfops."""
