"""A head beside its model, as files that others load."""
