"""The sandboxed worker processes that decode images and videos, and the pool that runs them."""
