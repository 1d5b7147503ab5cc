"""Semismooth Newton with its products on a device."""
