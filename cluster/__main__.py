"""`python -m cluster`: the application on a Ray of its own, on this machine alone, or on one that is there.

    TESSERA_MODEL=… python -m cluster --min-replicas 1 --max-replicas 4 --port 8000

Ray runs the code of whoever reaches its ports, so it wants a token (RAY_AUTH_TOKEN; made anew where there is none), and
a Ray of its own listens on 127.0.0.1 only.
"""

import argparse
import os
import secrets
import signal
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_HAPROXY_TCP_NODELAY": "1",
    # As docker/haproxy.cfg: requests with the same beginning go to the same replica; what had no answer is sent again.
    "RAY_SERVE_HAPROXY_BALANCE_ALGORITHM": (
        "hash req.body,bytes(0,4096),xxh64\n    hash-type consistent\n    hash-balance-factor 150\n"
        "    option http-buffer-request"
    ),
    "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": "1048576",
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",
    # On a busy machine the imports of a proxy take longer than the 5 s that Ray allows.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
}
"""Read by Ray when it is imported, in all of its processes; the manifests in `cluster/kubernetes` have the same."""


def main() -> int:
    """Run until SIGINT or SIGTERM; returns the exit status."""
    arguments = _parser().parse_args()
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    if arguments.address is None:
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # else Ray binds the machine's address
    with TemporaryDirectory(prefix="tessera-haproxy-") as folder:
        for name, file in (
            ("CONFIG_FILE_LOC", "haproxy.cfg"),
            ("SOCKET_PATH", "admin.sock"),
            ("SERVER_STATE_BASE", ""),
            ("SERVER_STATE_FILE", "server-state"),
        ):
            os.environ.setdefault(f"RAY_SERVE_HAPROXY_{name}", str(Path(folder) / file))
        return _serve(arguments)


def _serve(arguments: argparse.Namespace) -> int:
    import ray
    from ray import serve

    from cluster.app import Options, application

    chosen = {name: value for name, value in vars(arguments).items() if name in Options.model_fields}
    options = Options(**{name: value for name, value in chosen.items() if value is not None})
    own = {"num_cpus": arguments.cpus, "include_dashboard": False, "object_store_memory": 100 << 20}
    ray.init(address=arguments.address, log_to_driver=False, **({} if arguments.address else own))
    try:
        serve.start(http_options={"host": arguments.host, "port": arguments.port})
        serve.run(application(options), name="tessera", route_prefix="/")
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # Ray has set one that aborts
        print(f"Tessera listens on http://{arguments.host}:{arguments.port}.", flush=True)
        signal.pause()
    except KeyboardInterrupt:
        print("Tessera stops.", flush=True)
    except RuntimeError as error:
        print(f"tessera: {error}", file=sys.stderr)
        return 1
    finally:
        serve.shutdown()
        ray.shutdown()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cluster", description="Serve with Ray; settings: TESSERA_…")
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    add("--port", type=int, default=8000, help="default: %(default)s")
    add("--address", help="of a Ray that is there (`auto` on one of its machines); default: one of its own")
    add("--cpus", type=int, help="processors of its own Ray; default: all")
    add("--min-replicas", type=int, metavar="N", help="servers there always are (default: 1)")
    add("--max-replicas", type=int, metavar="N", help="servers there are at most (default: as many)")
    add("--requests-per-replica", type=float, metavar="N", help="above which another one is started (default: 8)")
    add("--upscale-delay-s", type=float, metavar="S", help="default: 10")
    add("--downscale-delay-s", type=float, metavar="S", help="default: 300")
    add("--replicas-per-machine", type=int, metavar="N", help="default: as many as there is room for")
    add("--num-cpus", type=float, metavar="N", help="processors set aside for each (default: 1)")
    add("--num-gpus", type=float, metavar="N", help="GPUs of each (default: 0)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
