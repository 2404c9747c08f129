"""Three machines of Ray on this one, one of which is killed and replaced while clients ask; run as a program.

Prints one JSON object: how requests ended, and the replicas before and after. The environment must have what
`cluster/__main__.py` sets, since Ray reads it when it is imported.
"""

import json
import sys
import threading
import time
from collections import Counter

import httpx
import ray
from ray import serve
from ray.cluster_utils import Cluster

from cluster.app import Options, application

NUM_CLIENTS = 4
WAIT_S = 300
BODY = {"model": "tessera-tiny", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8}


def main(port: int) -> None:
    """Start, kill one machine of two, add another one, and tell."""
    machines = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 100 << 20})
    workers = [machines.add_node(num_cpus=1, object_store_memory=100 << 20) for _ in range(2)]
    machines.wait_for_nodes()
    ray.init(address=machines.address, log_to_driver=False)
    try:
        serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
        options = Options(min_replicas=2, max_replicas=2, replicas_per_machine=1)
        serve.run(application(options), name="tessera", route_prefix="/")
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        before = _seen(url, 2)
        outcome: Counter[str] = Counter()
        stopped = threading.Event()
        clients = [threading.Thread(target=_ask, args=(url, number, stopped, outcome)) for number in range(NUM_CLIENTS)]
        for client in clients:
            client.start()
        time.sleep(5)
        machines.remove_node(workers[0], allow_graceful=False)
        time.sleep(15)
        machines.add_node(num_cpus=1, object_store_memory=100 << 20)
        after = _seen(url, 2, but=before)
        stopped.set()
        for client in clients:
            client.join()
        told = {"clients": NUM_CLIENTS, "outcome": outcome, "before": sorted(before), "after": sorted(after)}
        print(json.dumps(told), flush=True)
    finally:
        serve.shutdown()
        ray.shutdown()
        machines.shutdown()


def _ask(url: str, number: int, stopped: threading.Event, outcome: "Counter[str]") -> None:
    turn = 0
    with httpx.Client(timeout=120) as client:
        while not stopped.is_set():
            turn += 1
            body = {**BODY, "messages": [{"role": "user", "content": f"{number} {turn}"}]}
            try:
                outcome[str(client.post(url, json=body).status_code)] += 1
            except httpx.HTTPError as error:
                outcome[type(error).__name__] += 1


def _seen(url: str, num: int, but: "set[str] | frozenset[str]" = frozenset()) -> set[str]:
    """The replicas that answer, once there are so many, one of them new."""
    deadline_s = time.monotonic() + WAIT_S
    recent: dict[str, float] = {}
    number = 0
    with httpx.Client(timeout=120) as client:
        while True:
            number += 1
            body = {**BODY, "messages": [{"role": "user", "content": f"Who answers {number}?"}], "max_tokens": 1}
            try:
                name = client.post(url, json=body).headers.get("x-tessera-server")
            except httpx.HTTPError:
                continue
            now_s = time.monotonic()
            if name is not None:
                recent[name] = now_s
            found = {name for name, at_s in recent.items() if at_s > now_s - 10}
            if len(found) == num and found - but:
                return found
            if now_s > deadline_s:
                raise TimeoutError(f"only {found} answer")
            time.sleep(0.1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
