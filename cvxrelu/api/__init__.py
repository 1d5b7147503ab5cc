"""Where users' arguments are checked, and nowhere below."""
