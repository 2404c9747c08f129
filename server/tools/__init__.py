"""Tools: the request's fields, the prompt that describes them, and the calls in the output."""
