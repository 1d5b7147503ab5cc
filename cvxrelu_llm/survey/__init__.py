"""Blind surveys: a page, and what people answered."""
