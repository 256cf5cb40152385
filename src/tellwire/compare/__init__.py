"""Measures every transport between this place and a server: what ``tellwire compare`` does."""
