"""What every node's process does: one ROS, own signal handlers, one event loop that always ends."""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import os
import signal
import socket
import sys
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from typing_extensions import Self

from landbridge.errors import InputError
from landbridge.real_time import take_priority
from landbridge_nodes.transport import avoid_shared_memory

ENCLAVES = "/landbridge"
OPERATOR = ["--ros-args", "--enclave", f"{ENCLAVES}/operator"]  # arguments of a process that only asks
LOCK_MEMORY = "LANDBRIDGE_LOCK_MEMORY"  # environment variable: 1 keeps every page of the process in memory
MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT = 1, 2, 4  # linux/mman.h; ONFAULT: not the stacks of threads that never use them
LOOP_SECONDS = 0.1  # how soon a signal is noticed while nothing else happens
PARK_SECONDS = 6.0  # for the robot to park before a process ends: whoever ends it will not wait for much longer


def require_one_ros(environment: Mapping[str, str] = os.environ) -> None:
    """Refuse an installation whose halves would load each other's libraries, or a security the wheels do not have.

    Raises:
        InputError: No place for ROS 2's logs, ROS wheels beside a sourced ROS 2, or ROS_SECURITY_ENABLE on the wheels.
    """
    _require_log_folder(environment)
    if importlib.util.find_spec("ros_wheels_bootstrapper") is None:
        return
    if distribution := environment.get("AMENT_PREFIX_PATH", ""):
        raise InputError(
            "AMENT_PREFIX_PATH",
            f"a sourced ROS 2 ({distribution.split(':')[0]}) and the ROS wheels of this environment exclude each other",
            "open a shell that has not sourced setup.bash, or use an environment without `landbridge[ros-wheels]`",
        )
    if environment.get("ROS_SECURITY_ENABLE", "").lower() == "true":
        raise InputError(
            "ROS_SECURITY_ENABLE",
            "the ROS wheels have no SROS2",
            "use an installed ROS 2, or unset ROS_SECURITY_ENABLE",
        )


def _require_log_folder(environment: Mapping[str, str]) -> None:
    if environment.get("ROS_LOG_DIR") or environment.get("ROS_HOME"):
        return
    home, problem = environment.get("HOME", ""), "is not set"
    if home:
        try:
            (Path(home) / ".ros" / "log").mkdir(parents=True, exist_ok=True)  # as rclpy will
            return
        except OSError as error:
            problem = f"{home} takes no folder ({error.strerror})"
    raise InputError("HOME", f"{problem}: ROS 2 keeps its logs there", "set ROS_LOG_DIR to a folder for them")


def run(make: Callable[[], Any], priority: int = 0) -> int:
    """Run the node that `make` returns until SIGINT, SIGTERM or SIGHUP, then call its `close`.

    Returns 0, or 2 for bad input.

    With a `priority` (1 to 99) the process, its DDS threads included, is scheduled first-in first-out above all others;
    without the right to it the node says so and runs on. Under systemd the event loop tells that it is up, and again at
    every turn (sd_notify(3)), so that `WatchdogSec` finds one that hangs.

    rclpy's own signal handlers shut the context before a last safe command can go out, so ours replace them.
    """
    import rclpy
    from rclpy.impl.implementation_singleton import rclpy_implementation
    from rclpy.signals import SignalHandlerOptions
    from rclpy.task import Future

    node: Any = None
    try:
        require_one_ros()
        avoid_shared_memory()
        real_time = priority == 0 or take_priority(priority)  # before rclpy.init: DDS threads inherit it
        locked = _lock_memory()
        rclpy.init(args=sys.argv, signal_handler_options=SignalHandlerOptions.NO)
        ended: list[int] = []  # signals that came; no future's result: its lock may be held where a signal comes
        ends = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # a terminal that is closed; not under nohup
            ends.append(signal.SIGHUP)
        for number in ends:
            signal.signal(number, lambda number, _: ended.append(number))
        node = make()
        if not real_time:
            node.get_logger().warning("no right to real-time priority: a busy machine will delay control")
        if not locked:
            node.get_logger().warning(f"{LOCK_MEMORY}=1, and no right to lock memory: see `landbridge doctor`")
        executor = make_executor()
        executor.add_node(node)
        gc.collect()
        gc.freeze()  # what is loaded by now stays; later collections are short enough for a control loop
        notify("READY=1")
        while not ended:
            notify("WATCHDOG=1")
            try:
                executor.spin_until_future_complete(Future(), timeout_sec=LOOP_SECONDS)
            except rclpy_implementation.RCLError as error:  # an invalid lifecycle transition was asked for
                node.get_logger().error(f"refused: {error}")
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    finally:
        if node is not None:
            node.close()
            node.destroy_node()
        rclpy.try_shutdown()
    return 0


@contextmanager
def client(name: str, **options: Any) -> Iterator[Any]:
    """A node of the operator's, in a context of its own: not the default one, so rclpy takes no signal handler."""
    import rclpy

    context = rclpy.Context()
    rclpy.init(args=OPERATOR, context=context)
    try:
        node = rclpy.create_node(name, context=context, **options)
        try:
            yield node
        finally:
            node.destroy_node()
    finally:
        context.try_shutdown()


class Client(ExitStack):
    """Base of what asks a robot's nodes: a context manager that closes what `open` has entered, also if that fails."""

    def __enter__(self) -> Self:
        try:
            self.open()
        except BaseException:  # `with` closes only what has been entered
            self.close()
            raise
        return self

    @abstractmethod
    def open(self) -> None:
        """Enter everything."""


def spin_while(node: Any, goes_on: Callable[[], bool], seconds: float) -> None:
    """Handle a node's events while `goes_on` says so, for no longer than `seconds`: what `close` waits for."""
    from rclpy.task import Future

    deadline = time.monotonic() + seconds
    while goes_on() and time.monotonic() < deadline:
        node.executor.spin_until_future_complete(Future(), timeout_sec=LOOP_SECONDS)


def notify(news: str) -> None:
    """Tell systemd, if it started this process as `Type=notify`. If nobody listens, the loop neither ends nor waits."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    name = "\0" + address[1:] if address.startswith("@") else address  # an abstract socket
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notifier:
        notifier.setblocking(False)
        with suppress(OSError):
            notifier.sendto(news.encode(), name)


def _lock_memory() -> bool:
    """Whether no page will ever be swapped out, or nobody has asked for that."""
    if os.environ.get(LOCK_MEMORY, "") != "1":
        return True
    return ctypes.CDLL(None).mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) == 0


def make_executor(context: Any = None) -> Any:
    """The events executor, whose latency is half of the wait-set one's; the latter where rclpy has no other."""
    try:
        from rclpy.experimental import EventsExecutor
    except ImportError:
        from rclpy.executors import SingleThreadedExecutor

        class OneByOne(SingleThreadedExecutor):  # type: ignore[misc]
            def spin_until_future_complete(self, future: Any, timeout_sec: float | None = None) -> None:
                """One event, or none in time: rclpy's own leaves a callback in the future at every call."""
                self.spin_once(timeout_sec)

        return OneByOne(context=context)
    return EventsExecutor(context=context)
