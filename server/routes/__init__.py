"""The routes, one small file per family: parse, call, answer."""
