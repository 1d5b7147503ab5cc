"""Branch and bound for the network program: regions of directions, their bounds, and the search for a dual variable."""
