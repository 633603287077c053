"""Core of the MiewID paper companion: a catalog of photos goes in, the paper's numbers come out."""

__version__ = "0.1.0"
