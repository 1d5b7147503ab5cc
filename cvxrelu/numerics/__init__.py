"""Numerical routines that know no network."""
