"""Preference triples and conversations: read, checked, split."""
