"""Files clients upload once and name in their requests."""
