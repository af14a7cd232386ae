"""A Fourier neural operator as an operator of nfops."""
