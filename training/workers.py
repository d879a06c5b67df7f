"""Who works on the trials of a sweep: processes of this machine, or of a Ray cluster. One process, one trial."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Generator, Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess

from landbridge.errors import InputError
from landbridge.training.trial import Trial

POLL_SECONDS = 1.0
REFUSED = (1, 2)  # exit codes of `Trial.work`: to try again would change nothing
# Ray would report its use, and gives its workers the least of a core: on a busy machine they do not even start
RAY = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}


def here(trials: Sequence[Trial], retries: int) -> Generator[list[Trial]]:
    """Work on trials, one a core; about once a second, those that have ended since.

    A process that is killed is started again, up to `retries` times a trial.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    waiting, left = list(reversed(trials)), dict.fromkeys(trials, retries)
    running: dict[SpawnProcess, Trial] = {}
    try:
        while waiting or running:
            while waiting and len(running) < len(os.sched_getaffinity(0)):
                trial = waiting.pop()
                process = multiprocessing.get_context("spawn").Process(target=_work, args=(trial,))
                process.start()
                running[process] = trial
            wait([process.sentinel for process in running], POLL_SECONDS)
            ended = []
            for process in [process for process in running if not process.is_alive()]:
                trial = running.pop(process)
                if trial.complete or process.exitcode in REFUSED:
                    ended.append(trial)
                    continue
                trial.note(f"its process ended with {process.exitcode}; started again {left[trial]} times more at most")
                (waiting if left[trial] > 0 else ended).append(trial)
                left[trial] -= 1
            yield ended
    finally:
        for process in running:
            process.terminate()  # training ends after its block, with a checkpoint
        for process in running:
            process.join()


def _work(trial: Trial) -> None:
    os.setsid()  # a Ctrl-C reaches the sweep alone, which passes it on once: a second signal would end without a save
    with suppress(KeyboardInterrupt):  # who asked for it also stops the sweep, or has the trial started again
        sys.exit(trial.work())


def on_ray(trials: Sequence[Trial], retries: int, address: str, gpus: float) -> Generator[list[Trial]]:
    """Likewise on a Ray cluster, which decides how many at once by its cores, and by its GPUs if a trial takes any.

    Raises:
        InputError: Ray is not installed, there is no cluster, or it has too few GPUs.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        raise InputError("--address", "needs Ray", "pip install 'landbridge[sweep]'") from error
    os.environ |= RAY | os.environ
    orderly = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # Ray raises whatever it met
        remedy = "`ray start` makes a cluster, `ray status` shows it"
        raise InputError("--address", f"{address}: {error}".splitlines()[0], remedy) from error
    signal.signal(signal.SIGTERM, orderly)  # Ray's own aborts
    try:
        if (there := float(ray.cluster_resources().get("GPU", 0.0))) < gpus:  # type: ignore[no-untyped-call]
            raise InputError("--gpus", f"{gpus:g} a trial, and the cluster has {there:g}", "ask for fewer, or for none")
        start = ray.remote(num_cpus=1, num_gpus=gpus, max_calls=1, max_retries=retries)(Trial.work).remote
        running = {start(trial): trial for trial in trials}
        while running:
            ended, _ = ray.wait(list(running), timeout=POLL_SECONDS)
            for task in ended:
                try:
                    ray.get(task)
                except ray.exceptions.RayError as error:
                    running[task].note(str(error).splitlines()[0])
            yield [running.pop(task) for task in ended]
    finally:
        ray.shutdown()
