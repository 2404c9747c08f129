"""The HTTP process's side of the engine: client, supervisor, process, standby."""
