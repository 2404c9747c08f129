"""The HTTP process's side of the engine: client, supervisor, one engine process, standby."""
