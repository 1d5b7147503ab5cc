"""Text sampled and guided by a head."""
