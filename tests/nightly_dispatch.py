"""How long a task takes from the scheduler's choice to the node: real raylets of this machine with declared GPUs, on which nothing but the dispatch is done; warm and cold, as a dated JSON file. `python tests/nightly_dispatch.py --out papers/results --nodes 8 --gpus 8 --warm 8` and `--nodes 100 --gpus 10 --warm 15 --at_once 15` (14 GB, five minutes)"""
import os
import sys
import tempfile
import time

import numpy as np
from record import keep, options

from vdb.cluster.ray import Nodes, RayExecutor
from vdb.cluster.scheduler import TaskScheduler


def arrived(*_) -> float:
    "In place of what begins an attempt: when it would have begun, on the clock of this machine."
    return time.time()


def in_ms(seconds: list[float]) -> dict:
    ms = 1000*np.array(seconds)
    return dict(n=len(ms), **{f'p{q}': round(float(np.percentile(ms, q)), 2) for q in (50, 95, 99)}, largest=round(float(ms.max()), 2))


class Dispatch:
    "An executor on these nodes whose attempts do nothing, and the scheduler before it."
    def __init__(self, address: str):
        self.folder = tempfile.mkdtemp()
        self.executor = RayExecutor(address)
        ray = self.executor.ray
        self.executor.attempt = ray.remote(max_calls=0, max_retries=0)(arrived)
        Nodes._ask = lambda nodes, node: setattr(node, 'mistake', '')  # To be asked, each would begin a process
        self.executor.admit(self.folder, {})
        self.queue, self.n = TaskScheduler(self.executor.resources), 0

    def add(self, count: int) -> None:
        for _ in range(count):
            self.n += 1
            self.queue.add(str(self.n), dict(cpus=1, gpus=1))

    def begin(self) -> list[tuple[str, float]]:
        "Give out what there is room for; folder and moment of each."
        asked = time.time()
        begun = [(f'{self.folder}/{key}', node, gpus, self.executor.resources.held[key][1]) for key, node, gpus in self.queue.begin()]
        for folder, node, gpus, needs in begun: self.executor.submit(folder, folder, needs, node, gpus)
        return [(folder, asked) for folder, *_ in begun]

    def end(self, folder: str) -> float:
        "When it came to its node. Its room is free again."
        running = self.executor.running.pop(folder)
        came = self.executor.ray.get(running.ref)
        self.queue.end(folder.rpartition('/')[2])
        return came

    def one_by_one(self, count: int) -> list[float]:
        "Each when the one before is over: from the choice until it is there."
        found = []
        for _ in range(count):
            self.add(1)
            ((folder, asked),) = self.begin()
            found.append(self.end(folder) - asked)
        return found

    def burst(self, count: int) -> tuple[list[float], float]:
        "All at once: from the moment that there was room for it until it is there; and how many a second."
        self.add(count)
        began, found, asked = time.time(), [], dict(self.begin())
        ray = self.executor.ray
        while asked:
            refs = {self.executor.running[f].ref: f for f in asked}
            for ref in ray.wait([*refs], num_returns=1, timeout=60)[0]:
                folder = refs[ref]
                found.append(self.end(folder) - asked.pop(folder))
            asked |= dict(self.begin())
        return found, count/(time.time() - began)


def main() -> int:
    ask = options(__doc__, nodes=8, gpus=8, warm=8, tasks=500, at_once=64)
    from ray.cluster_utils import Cluster
    began, made = time.monotonic(), Cluster(initialize_head=True, head_node_args=dict(num_cpus=0))
    try:
        for _ in range(ask.nodes): made.add_node(num_cpus=ask.gpus, num_gpus=ask.gpus, memory=1e9, object_store_memory=80_000_000, wait=False)
        made.wait_for_nodes(timeout=900)
        up = time.monotonic() - began
        print(f'{ask.nodes} nodes in {up:.0f} s', flush=True)
        work = Dispatch(made.address)
        nodes, there = work.executor.nodes, [*work.executor.resources.nodes.values()]
        assert len(there) == ask.nodes, len(there)
        warm = there[:ask.warm]
        work.executor.resources.see(warm)
        cold = []
        for node in warm:  # Its first process
            work.executor.resources.see([node])
            cold += work.one_by_one(1)
        work.executor.resources.see(warm)
        work.queue.window = ask.at_once
        first = work.burst(2*ask.at_once)[0]  # As many processes as may be at work at once
        for _ in range(2): work.burst(2*ask.at_once)
        one, (many, rate) = work.one_by_one(ask.tasks), work.burst(ask.tasks)
        print('warm', in_ms(one), 'burst', in_ms(many), rate, flush=True)
        work.executor.resources.see(there[ask.warm:ask.warm + 30] or there)  # Nodes that have begun nothing yet, where there are any
        rest = work.one_by_one(min(30, max(0, ask.nodes - ask.warm)))
        t = time.perf_counter()
        for _ in range(5): nodes.looked = -1e9; nodes.look()
        look = (time.perf_counter() - t)/5
        work.executor.resources.see(there)
        work.queue.window = None
        work.add(1000)
        t = time.perf_counter()
        chosen = work.queue.begin()
        choose = (time.perf_counter() - t)/len(chosen)
        for key, *_ in chosen: work.queue.end(key)
        import psutil
        found = dict(nodes=ask.nodes, gpus_declared=ask.nodes*ask.gpus, warm_nodes=ask.warm, up_s=up, first_process_of_a_node_ms=in_ms(cold), warm_one_by_one_ms=in_ms(one), at_once=ask.at_once, cold_burst_ms=in_ms(first), warm_burst_ms=in_ms(many), warm_burst_tasks_per_s=rate,
                     other_cold_nodes_ms=in_ms(rest) if rest else None, look_at_all_nodes_ms=1000*look, choice_of_a_node_ms=1000*choose, choices=len(chosen), memory_used_gb=psutil.virtual_memory().used/1e9)
        work.executor.ray.shutdown()
    finally: made.shutdown()
    passed = all(found[kind]['p50'] < 50 and found[kind]['p95'] < 500 for kind in ('warm_one_by_one_ms', 'warm_burst_ms'))
    keep(f'dispatch-{ask.nodes}', ask.out, os.cpu_count(), load=os.getloadavg(), **found, passed=passed)
    print(found)
    return 0 if passed else 1


if __name__ == '__main__': sys.exit(main())
