"""The sub-commands of `tessera` that ask a server. Each module named here has `main(arguments) -> exit status`.

Loads nothing, so that whoever lists the commands does not load what they need.
"""

COMMANDS = {
    "ask": "ask about images and videos, once or in a conversation",
    "preview": "show what the model would see of images and videos",
    "bench": "measure a server: latencies, throughput, counts",
}
