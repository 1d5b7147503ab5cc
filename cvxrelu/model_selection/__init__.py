"""One prepared data set over many beta."""
