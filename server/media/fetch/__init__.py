"""From a URL, a file or inline data to bytes; the only outbound network access."""
