"""A plain U-Net as an operator of nfops."""
