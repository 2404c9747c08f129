"""The sandboxed worker processes that decode media, and the pool that runs them."""
