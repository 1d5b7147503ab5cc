"""The programs: data, loss, maps and dual; nothing here iterates."""
